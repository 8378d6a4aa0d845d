//! One save of a server's own, waited for and its file opened. Asks for it; judges by `domain::bgsave` alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{Access, Connection, Error};
use crate::{
    domain::{
        bgsave::{self, Answer, Asked, Foreign, Progress, Shortage},
        persistence::Persistence,
        source::NodeAddress,
    },
    edge::live_directory::{self, Dump, Folder, SavesBefore},
};

const ATTEMPT: &str = "capture by BGSAVE";

/// Saves that are asked for before the server is given up, because each was killed.
const ATTEMPTS_MAX: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one save, and for what the server does before it.
    pub save_max: Duration,
    pub poll_min: Duration,
    pub poll_max: Duration,
    /// Of opening files that are replaced all the time.
    pub tries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            save_max: Duration::from_hours(4),
            poll_min: Duration::from_millis(20),
            poll_max: Duration::from_secs(1),
            tries_max: 1000,
        }
    }
}

/// For a server to reap a child that has ended: it looks ten times a second, unless it is busy.
const REAP_MAX: Duration = Duration::from_secs(10);

/// What a save ended in.
#[derive(Debug)]
pub struct Saved {
    pub asked: Asked,
    pub dump: Dump,
}

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("its background save failed ({reply}): {writes}")]
    Failed {
        reply: String,
        /// What this means for whoever writes to it, in a sentence.
        writes: &'static str,
    },
    #[error(
        "{attempts} saves were killed before they ended, by FLUSHALL or by a full synchronisation"
    )]
    Killed { attempts: u32 },
    #[error("another process answers at its address than at the beginning")]
    Restarted,
    #[error("not asked to save")]
    NoRoom(#[source] Shortage),
    #[error("look for what it saved")]
    Directory(#[source] live_directory::Error),
    #[error("it saved, and no new RDB file appeared in {folder}: that is not its data directory")]
    OtherDirectory { folder: String },
    #[error("the RDB file that appeared is not of its save")]
    Foreign(#[source] Foreign),
}

/// Makes the server save and opens the file. A save that was killed is asked for again.
pub async fn save(
    address: &NodeAddress,
    access: &Access,
    run_id: &str,
    folder: &Folder,
    dbfilename: Option<&str>,
    limits: Limits,
) -> Result<Saved, Error> {
    let failed = |source| Error::Save { address: address.clone(), source };
    let mut server = Saver { node: Connection::open(address, access).await?, limits };
    let mut has_failed = false;
    for _ in 0..ATTEMPTS_MAX {
        let before = server.wait_until_free().await?;
        if before.run_id != run_id {
            return Err(failed(SaveError::Restarted));
        }
        let directory = |source| failed(SaveError::Directory(source));
        let old = folder.before_save(dbfilename).await.map_err(directory)?;
        match check_room(&old, &before) {
            Ok(()) => {}
            // What its failure did to the server weighs more than why it is not tried again.
            Err(SaveError::NoRoom(_)) if has_failed => {
                return Err(server.failed("rdb_last_bgsave_status:err").await);
            }
            Err(error) => return Err(failed(error)),
        }
        let Some(mut asked) = server.ask(before).await? else { continue };
        let ended = server.wait_for_end(&mut asked).await?;
        tracing::debug!("the save has ended");
        let fresh = async || folder.fresh_dump(&old).await.map_err(directory);
        match ended {
            Progress::Ended => {
                let folder = folder.to_string();
                let dump =
                    fresh().await?.ok_or_else(|| failed(SaveError::OtherDirectory { folder }))?;
                return Ok(Saved { asked, dump });
            }
            Progress::Unsure => match fresh().await? {
                Some(dump) => return Ok(Saved { asked, dump }),
                // The next one begins in another second.
                None => sleep(Duration::from_secs(1)).await,
            },
            // A save that succeeds is what makes the server take writes again.
            Progress::Failed if !has_failed => has_failed = true,
            Progress::Failed => return Err(server.failed("rdb_last_bgsave_status:err").await),
            Progress::Restarted => return Err(failed(SaveError::Restarted)),
            Progress::Killed | Progress::Waits => {}
        }
    }
    Err(failed(SaveError::Killed { attempts: ATTEMPTS_MAX }))
}

/// Waits, not for long, until the node has no saving child any more. Who cannot be asked is not waited for.
pub async fn wait_for_child(address: &NodeAddress, access: &Access) {
    let limits = Limits { save_max: REAP_MAX, ..Limits::default() };
    let Ok(node) = Connection::open(address, access).await else { return };
    let (mut saver, mut pause) = (Saver { node, limits }, Pause::new(limits));
    while saver.look().await.is_ok_and(|seen| seen.save_in_progress) {
        if pause.next().await.is_err() {
            break;
        }
    }
}

fn check_room(old: &SavesBefore, before: &Persistence) -> Result<(), SaveError> {
    let room = bgsave::Room {
        disk_bytes: old.disk_bytes,
        last_dump_bytes: old.last_dump_bytes,
        memory_bytes: None,
    };
    bgsave::check_disk(&room, before.dataset_bytes).map_err(SaveError::NoRoom)
}

struct Saver {
    node: Connection,
    limits: Limits,
}

impl Saver {
    async fn look(&mut self) -> Result<Persistence, Error> {
        let info: String = self.node.ask(ATTEMPT, &["INFO"], 1).await?;
        Ok(Persistence::of_info(&info))
    }

    async fn wait_until_free(&mut self) -> Result<Persistence, Error> {
        let mut pause = Pause::new(self.limits);
        loop {
            let seen = self.look().await?;
            if seen.loading {
                let address = self.node.address().clone();
                return Err(Error::Loading { attempt: ATTEMPT, address });
            }
            if bgsave::is_free(&seen) {
                return Ok(seen);
            }
            pause.next().await.map_err(|limit| self.late(limit))?;
        }
    }

    /// None when another child was quicker.
    async fn ask(&mut self, before: Persistence) -> Result<Option<Asked>, Error> {
        let at = self.time().await?;
        let reply = match self.node.ask::<String>(ATTEMPT, &["BGSAVE"], 1).await {
            Ok(reply) | Err(Error::Refused { reply, .. }) => reply,
            Err(error) => return Err(error),
        };
        match bgsave::answer(&reply) {
            Some(Answer::Busy) => {
                sleep(self.limits.poll_min).await;
                Ok(None)
            }
            Some(answer) => Ok(Some(Asked { at, answer, before, was_seen: false })),
            None => Err(self.failed(&reply).await),
        }
    }

    async fn wait_for_end(&mut self, asked: &mut Asked) -> Result<Progress, Error> {
        let mut pause = Pause::new(self.limits);
        loop {
            let seen = self.look().await?;
            asked.was_seen |= seen.save_in_progress;
            match bgsave::progress(asked, &seen) {
                Progress::Waits => pause.next().await.map_err(|limit| self.late(limit))?,
                ended @ (Progress::Ended
                | Progress::Unsure
                | Progress::Killed
                | Progress::Failed
                | Progress::Restarted) => return Ok(ended),
            }
        }
    }

    async fn time(&mut self) -> Result<Timestamp, Error> {
        let (seconds, microseconds): (i64, i64) = self.node.ask(ATTEMPT, &["TIME"], 1).await?;
        Timestamp::from_second(seconds)
            .and_then(|time| time.checked_add(SignedDuration::from_micros(microseconds)))
            .map_err(|_| Error::Protocol {
                attempt: ATTEMPT,
                address: self.node.address().clone(),
                finding: format!("{seconds} s is no time"),
            })
    }

    /// With what the failure did to the server: a primary with save points answers MISCONF from now
    /// on, even to PING (`processCommand` in `server.c`).
    async fn failed(&mut self, reply: &str) -> Error {
        let writes = match self.node.ask::<String>(ATTEMPT, &["PING"], 1).await {
            Err(Error::Refused { reply, .. }) if reply.starts_with("MISCONF") => {
                "THE SERVER NOW REFUSES ALL WRITES (MISCONF) until a save of it succeeds"
            }
            Ok(_) => {
                "it still takes writes; a replica whose disk is full ends itself at the next write that it follows"
            }
            Err(_) => "whether it still takes writes could not be asked",
        };
        let source = SaveError::Failed { reply: reply.to_owned(), writes };
        Error::Save { address: self.node.address().clone(), source }
    }

    fn late(&self, limit: Duration) -> Error {
        Error::Late { attempt: ATTEMPT, address: self.node.address().clone(), limit }
    }
}

/// Polls quickly at first, then slowly, and not for ever.
struct Pause {
    limits: Limits,
    began: Instant,
    length: Duration,
}

impl Pause {
    fn new(limits: Limits) -> Self {
        Self { limits, began: Instant::now(), length: limits.poll_min }
    }

    /// The limit, once it is reached.
    async fn next(&mut self) -> Result<(), Duration> {
        if self.began.elapsed() > self.limits.save_max {
            return Err(self.limits.save_max);
        }
        sleep(self.length).await;
        self.length = (self.length * 2).min(self.limits.poll_max);
        Ok(())
    }
}
