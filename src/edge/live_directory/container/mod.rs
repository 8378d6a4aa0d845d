//! A data directory in a container, reached by commands that are run there. Writes nothing, leaves nothing running.

mod aof;
mod look;
mod pieces;
mod stream;

use std::{error, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::{io::AsyncRead, time::timeout};

pub(super) use self::pieces::{Pieces, Streamed, StreamedServing};
use self::stream::Stream;
use super::{AofSet, Dump, Error, OpenFile};
use crate::domain::{
    bgsave::Room,
    capture::FileNames,
    frames::{self, FileState, Tool},
    observation::{NodeObservation, NodeSettings},
    persistence::Persistence,
};

type Cause = Box<dyn error::Error + Send + Sync>;

/// For a command that only looks.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// For the last words of a command whose output has ended.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// Runs commands where a server's files lie. Shown as people call that place, such as `pod shop/redis-0`.
#[async_trait]
pub trait Shell: fmt::Debug + fmt::Display + Send + Sync {
    /// `sh -c script sh arguments…`. What it may read is an empty line at once, others now and then, and an end as soon
    /// as nobody reads its output any more. Returns when it runs.
    async fn run(&self, script: &str, arguments: &[String]) -> Result<Running, Cause>;
}

/// A command that runs until it ends or this is dropped.
pub struct Running {
    /// What it prints, which may end before it does.
    pub output: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// How it ended. What it prints on stderr is read all the time, and the first of it kept.
    pub ended: BoxFuture<'static, Ended>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// The last words of a command, as far as they arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// None when nothing was told of it, or it succeeded.
    pub fault: Option<String>,
    pub stderr: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.as_deref().unwrap_or("its output ended too soon"))?;
        // A point in a line of its own answers that we live.
        let lines = self.stderr.lines().map(str::trim).filter(|line| !matches!(*line, "" | "."));
        match lines.collect::<Vec<_>>().join("\n").as_str() {
            "" => Ok(()),
            stderr => write!(f, ": {stderr}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("run a command in {place}")]
    Start {
        place: String,
        #[source]
        source: Cause,
    },
    #[error("{place} has no shell: {finding}")]
    NoShell { place: String, finding: String },
    #[error("look into {place}: {finding}")]
    Look { place: String, finding: String },
    #[error("{place} lacks what sends files provably: {missing}")]
    Tools { place: String, missing: &'static str },
    #[error("read {path} in {place}")]
    Frames {
        place: String,
        path: String,
        #[source]
        source: frames::Error,
    },
    #[error("read {path} in {place}: cut {cuts} times without a byte between ({finding})")]
    Cut { place: String, path: String, cuts: u32, finding: String },
    #[error(
        "read {path} in {place}: it was replaced after {sent} bytes, and the rest cannot be had"
    )]
    Replaced { place: String, path: String, sent: u64 },
}

/// A data directory in a container that has what is needed to read it.
#[derive(Clone, Debug)]
pub struct Container {
    shell: Arc<dyn Shell>,
    directory: String,
    tool: Tool,
}

impl Container {
    /// Looks at the directory in which the server says that it works, or its process does; or else at
    /// what is `mounted` for data.
    pub async fn find(
        shell: Arc<dyn Shell>,
        mounted: Option<&str>,
        node: &NodeObservation,
    ) -> Result<(Self, Room), Error> {
        let NodeSettings { dir, dbfilename, .. } = &node.settings;
        let process_id = node.persistence.process_id.unwrap_or(1);
        let names = (dir.as_deref(), dbfilename.as_deref());
        let seen = look::look(&*shell, names.0, process_id, names.1, mounted).await?;
        let room = seen.room(&node.persistence);
        let tool = seen.tool.ok_or_else(|| ContainerError::Tools {
            place: shell.to_string(),
            missing: "one of sha256sum and cksum, or dd, head, stat or /proc",
        })?;
        Ok((Self { shell, directory: seen.directory, tool }, room))
    }

    pub(super) async fn room(&self, node: &NodeObservation) -> Result<Room, Error> {
        let seen = self.look(node.settings.dbfilename.as_deref()).await?;
        Ok(seen.room(&node.persistence))
    }

    async fn look(&self, dbfilename: Option<&str>) -> Result<look::Seen, Error> {
        look::look(&*self.shell, Some(&self.directory), 1, dbfilename, None).await
    }

    /// What lies there before a save, and the room for it.
    pub(super) async fn before_save(
        &self,
        dbfilename: Option<&str>,
    ) -> Result<(Room, Vec<FileState>), Error> {
        let seen = self.look(dbfilename).await?;
        let room = seen.room(&Persistence::default());
        Ok((room, seen.dumps.into_iter().map(|(state, _)| state).collect()))
    }

    /// Opens the file that was not there before, and holds it open from then on.
    pub(super) async fn fresh_dump(
        &self,
        dbfilename: Option<&str>,
        before: &[FileState],
    ) -> Result<Option<Dump>, Error> {
        let name = if let Some(name) = dbfilename {
            name.to_owned()
        } else {
            let mut dumps = self.look(None).await?.dumps.into_iter();
            let fresh = dumps.find(|(state, _)| !before.contains(state));
            let Some((_, name)) = fresh else { return Ok(None) };
            name
        };
        let path = format!("{}/{name}", self.directory);
        let Some((stream, opened)) = self.open(&[(path, false)], None).await? else {
            return Ok(None);
        };
        let Some(state) = opened.files.first().filter(|state| !before.contains(state)) else {
            return Ok(None);
        };
        let bytes = state.bytes;
        let file = Streamed::all(stream, 1).into_iter().next();
        Ok(file.map(|file| Dump { file: OpenFile::Streamed(file), name: name.into(), bytes }))
    }

    pub(super) async fn open_aof(
        &self,
        names: &FileNames,
        has_many_parts: bool,
    ) -> Result<Option<AofSet>, Error> {
        if has_many_parts { self.open_set(names).await } else { self.open_single(names).await }
    }

    /// Files that may grow are marked so. None when one is gone.
    async fn open(
        &self,
        files: &[(String, bool)],
        list: Option<&str>,
    ) -> Result<Option<(Stream, frames::Opened)>, Error> {
        Stream::open(Arc::clone(&self.shell), self.tool, files, list).await
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.directory, self.shell)
    }
}

/// Without what only people read: a script travels in an address, whose length has limits.
fn compact(script: &str) -> String {
    let lines = script.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

/// What a command had to say at its end, not waited for long.
async fn last_words(ended: BoxFuture<'static, Ended>) -> Ended {
    timeout(LAST_WORDS_LIMIT, ended).await.unwrap_or_default()
}
