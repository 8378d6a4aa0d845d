//! `serve`: takes the backups of the config's schedules until it is told to end. Remembers nothing that the stores tell.

mod board;
mod http;
mod look;
mod metrics;
mod run;
mod scheduler;
#[cfg(test)]
mod simulation;

use std::{rc::Rc, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{net::TcpListener, task::LocalSet};

use self::{
    board::Board,
    look::Seen,
    scheduler::{Pace, Scheduler, Work},
};
use super::{Context, backup, verify};
use crate::{
    cli::{Backup, IdentityFrom, Past, Place, Serve, Verify, VerifyLevel, Which},
    domain::{agenda::Entry, identity::ScheduleName, record::Level},
    failure::{Exit, Failure, chain},
    report::Outcome,
    settings::{self, Settings},
};

pub(super) async fn run(
    arguments: &Serve,
    settings: Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    if settings.schedules().next().is_none() {
        return Err(Failure::Usage {
            finding: "there is no schedule to serve".to_owned(),
            hint: "name a config file with `schedules:` by --config FILE".to_owned(),
        });
    }
    tell_what_cannot_run(&settings, context);
    let entries: Vec<_> = settings.schedules().map(entry).collect();
    let board = Arc::new(Board::new(&settings, context.now()));
    let listener = listen(arguments, &settings).await?;
    let clock = Arc::clone(&context.clock);
    let answering = tokio::spawn(http::answer(listener, Arc::clone(&board), clock));

    let backups_at_once = settings.serve().backups_at_once;
    let work = Rc::new(Installations { settings, context: context.clone() });
    let scheduler = Scheduler::new(entries, work, board, backups_at_once, Pace::default());
    let failure = LocalSet::new().run_until(scheduler.run(context.ended())).await;
    answering.abort();
    Err(failure)
}

fn entry(schedule: &settings::Schedule) -> (Entry, crate::domain::identity::SourceName) {
    (schedule.entry(), schedule.source.clone())
}

/// A source without its password, say, fails at each of its backups; better to read of it at once.
fn tell_what_cannot_run(settings: &Settings, context: &Context) {
    for schedule in settings.schedules() {
        if let Err(error) = settings.source(&schedule.source, context.environment()) {
            let failure = Failure::from(error);
            tracing::error!(
                schedule = %schedule.name,
                hint = failure.hint(),
                "source {} cannot be backed up: {}", schedule.source, chain(&failure)
            );
        }
    }
}

async fn listen(arguments: &Serve, settings: &Settings) -> Result<TcpListener, Failure> {
    let address = arguments.listen.unwrap_or(settings.serve().listen);
    let failed = |error: std::io::Error| Failure::Usage {
        finding: format!("listen on {address}: {error}"),
        hint: "choose another address by --listen or `serve: {listen: …}`".to_owned(),
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!("listening on {}", listener.local_addr().map_err(failed)?);
    Ok(listener)
}

/// The sources and stores of the config.
struct Installations {
    settings: Settings,
    context: Context,
}

#[async_trait(?Send)]
impl Work for Installations {
    fn now(&self) -> Timestamp {
        self.context.now()
    }

    async fn look(&self, schedule: &ScheduleName) -> Result<Seen, Failure> {
        look::look(self.settings.schedule(schedule)?, &self.settings, &self.context).await
    }

    /// As `backup --schedule NAME --scheduled-for TIME` does.
    async fn back_up(
        &self,
        schedule: &ScheduleName,
        scheduled_for: Timestamp,
    ) -> Result<Exit, Failure> {
        let arguments = Backup {
            schedule: Some(schedule.clone()),
            scheduled_for: Some(scheduled_for),
            ..Backup::default()
        };
        let outcome = backup::run(&arguments, &self.settings, &self.context).await?;
        Ok(outcome.exit)
    }

    /// As `verify BACKUP --level LEVEL --store NAME` does, in each store that got the backup.
    async fn prove(
        &self,
        schedule: &ScheduleName,
        scheduled_for: Timestamp,
        seen: &Seen,
    ) -> Result<Exit, Failure> {
        let schedule = self.settings.schedule(schedule)?;
        let Some(level) = schedule.verify else { return Ok(Exit::Done) };
        let mut exit = Exit::Done;
        for (store, backup) in seen.backups_for(scheduled_for) {
            let arguments = Verify {
                which: Which { backup: Some(backup), latest: false, before: None },
                all: false,
                level: match level {
                    Level::Stored => VerifyLevel::Stored,
                    Level::Content => VerifyLevel::Content,
                    Level::Load => VerifyLevel::Load,
                },
                server_binary: None,
                place: Place {
                    store: Some(store.to_string()),
                    source_name: Some(schedule.source.clone()),
                },
                past: Past::default(),
                identity: IdentityFrom::default(),
            };
            let outcome = verify::run(&arguments, &self.settings, &self.context).await?;
            if outcome.exit == Exit::Done {
                tracing::info!("proven at level {level} in store {store}");
            }
            exit = exit.max(outcome.exit);
        }
        Ok(exit)
    }
}
