//! One file per verb, each a sequence: observe, decide, act, record.

mod backup;
mod catalog;
mod check;
mod copy;
mod discover;
mod examine;
mod fetch;
mod find;
mod inspect;
mod install;
mod list;
mod load;
mod lock;
mod mark;
mod origin;
mod pieces;
mod prune;
mod restore;
mod retention;
mod runs;
mod serve;
mod show;
mod standing;
mod stores;
mod sweep;
mod texts;
mod transfer;
mod unlock;
mod verify;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    cli::{Cli, Verb},
    domain::archive::Identities,
    edge::store::Store,
    failure::{Failure, Signal},
    report::{Outcome, Progress},
    settings::{Environment, Settings},
};

/// As it stands in manifests, records and runs.
pub(crate) const TOOL: &str = concat!("redis-backup ", env!("CARGO_PKG_VERSION"));

/// How long what is under way in a store may go on after a signal.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// A variable of the environment by its name.
pub type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A store in the place of another.
pub type OverStore = dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync;

/// What enters from outside: time, chance, environment, the wish to end, and the terminal.
#[derive(Clone)]
pub struct Context {
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub chance: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub environment: Arc<Lookup>,
    /// Holds a signal from the moment that one came.
    pub signal: watch::Receiver<Option<Signal>>,
    pub progress: Progress,
    /// Put around every store that is opened: the identity, but for tests of what a store may do.
    pub over_store: Arc<OverStore>,
    /// What opens encrypted archives; none until a verb that reads them was given some.
    pub identities: Identities,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn chance(&self) -> u64 {
        (self.chance)()
    }

    pub(crate) fn environment(&self) -> Environment<'_> {
        &*self.environment
    }

    /// Never returns unless a signal came.
    pub(crate) async fn ended(&self) -> Failure {
        let mut signal = self.signal.clone();
        match signal.wait_for(Option::is_some).await.map(|signal| *signal) {
            Ok(Some(signal)) => Failure::Ended { signal },
            // The sender is gone: nobody can end us any more.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Runs `act`, which writes to a store, to its end: a request that is dropped half way may still
    /// arrive. Some time after a signal it is dropped all the same.
    pub(crate) async fn unless_ended_long_ago<T>(
        &self,
        act: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let ended_long_ago = async {
            let failure = self.ended().await;
            tokio::time::sleep(SETTLE_LIMIT).await;
            failure
        };
        tokio::select! {
            biased;
            result = act => result,
            failure = ended_long_ago => Err(failure),
        }
    }

    /// A failure when a signal has come.
    pub(crate) fn check_not_ended(&self) -> Result<(), Failure> {
        match *self.signal.borrow() {
            Some(signal) => Err(Failure::Ended { signal }),
            None => Ok(()),
        }
    }

    /// Runs `act` to its end, or drops it where it stands when a signal comes.
    pub(crate) fn unless_ended<T>(
        &self,
        act: impl Future<Output = Result<T, Failure>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        unless(self.ended(), act)
    }
}

/// Runs `act` to its end, or drops it where it stands when `end` comes.
async fn unless<T>(
    end: impl Future<Output = Failure>,
    act: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        failure = end => Err(failure),
        result = act => result,
    }
}

/// Runs the verb that the arguments name.
pub async fn run(cli: Cli, context: &Context) -> Result<Outcome, Failure> {
    // Large as it is, it is kept out of what every caller carries.
    Box::pin(run_verb(cli, context)).await
}

async fn run_verb(cli: Cli, context: &Context) -> Result<Outcome, Failure> {
    let Cli { global, verb } = cli;
    let settings = || Settings::load(&global);
    match verb {
        Verb::Backup(arguments) => Box::pin(backup::run(&arguments, &settings()?, context)).await,
        Verb::List(arguments) => {
            context.unless_ended(list::run(&arguments, &settings()?, context)).await
        }
        Verb::Show(arguments) => {
            context.unless_ended(show::run(&arguments, &settings()?, context)).await
        }
        Verb::Copy(arguments) => copy::run(&arguments, &settings()?, context).await,
        Verb::Verify(arguments) => verify::run(&arguments, &settings()?, context).await,
        Verb::Restore(arguments) => restore::run(&arguments, &settings()?, context).await,
        Verb::Fetch(arguments) => {
            context.unless_ended(fetch::run(&arguments, &settings()?, context)).await
        }
        Verb::Prune(arguments) => prune::run(&arguments, &settings()?, context).await,
        Verb::Pin(arguments) => mark::pin(&arguments, &settings()?, context).await,
        Verb::Unpin(arguments) => mark::unpin(&arguments, &settings()?, context).await,
        Verb::Accept(arguments) => mark::accept(&arguments, &settings()?, context).await,
        Verb::Inspect(arguments) => context.unless_ended(inspect::run(&arguments, context)).await,
        Verb::Check(arguments) => {
            let settings = settings();
            context.unless_ended(Box::pin(check::run(&arguments, &settings, context))).await
        }
        Verb::Discover(arguments) => {
            context.unless_ended(Box::pin(discover::run(&arguments, context))).await
        }
        Verb::Serve(arguments) => serve::run(&arguments, settings()?, context).await,
        Verb::Install(arguments) => install::run(&arguments, context),
        Verb::Worker => Box::pin(backup::worker::run(&settings()?, context)).await,
        Verb::Schema => texts::schema(),
        Verb::Completions(arguments) => Ok(texts::completions(arguments.shell)),
        Verb::Man => texts::manual(),
    }
}
