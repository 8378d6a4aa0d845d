//! The append-only files of a live server, opened while it does nothing to them. Asks for nothing but INFO; changes nothing.

use tokio::time::sleep;

use super::{Access, Connection, Error, bgsave::Limits};
use crate::{
    domain::{
        aof::gate::{Gate, Verdict, gate, judge},
        capture::FileNames,
        manifest::{Flavour, Server},
        persistence::Persistence,
        source::NodeAddress,
    },
    edge::live_directory::{self, AofSet, Folder},
};

const ATTEMPT: &str = "capture the append-only files";

/// Looks that must agree before files count as another server's.
const STRANGE_MAX: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum AofError {
    #[error("{0}")]
    Closed(&'static str),
    #[error("another process answers at its address than at the beginning")]
    Restarted,
    #[error("open its append-only files")]
    Directory(#[source] live_directory::Error),
    #[error("the append-only files in {folder} were gone or replaced whenever they were opened")]
    Unsteady { folder: String },
    #[error(
        "the append-only files in {folder} have {found} bytes, and the server wrote {least} to {most}: \
         that is not its data directory, or it cut a broken file when it started"
    )]
    OfAnother { folder: String, found: u64, least: u64, most: u64 },
}

/// Open files, and what the server said just before.
#[derive(Debug)]
pub struct OpenedAof {
    pub set: AofSet,
    pub before: Persistence,
}

/// Opens all files at a moment when the server's list of them is true. Everything that it answered
/// before is in them.
pub async fn open(
    address: &NodeAddress,
    access: &Access,
    server: &Server,
    run_id: &str,
    folder: &Folder,
    names: &FileNames,
    limits: Limits,
) -> Result<OpenedAof, Error> {
    let failed = |source| Error::Aof { address: address.clone(), source };
    let mut node = Connection::open(address, access).await?;
    let (mut length, mut strange, mut tries) = (limits.poll_min, 0, 0);
    let began = tokio::time::Instant::now();
    loop {
        let before = look(&mut node).await?;
        if before.run_id != run_id {
            return Err(failed(AofError::Restarted));
        }
        match gate(&before) {
            Gate::Closed(why) => return Err(failed(AofError::Closed(why))),
            Gate::Wait(_) => {}
            Gate::Open => {
                tries += 1;
                let opened = folder.open_aof(names, has_many_parts(server)).await;
                let opened = opened.map_err(|source| failed(AofError::Directory(source)))?;
                let after = look(&mut node).await?;
                if let Some(set) = opened {
                    let found = set.bytes();
                    match judge(&before, set.sizes(), &after) {
                        Verdict::Sound => return Ok(OpenedAof { set, before }),
                        Verdict::Disturbed => {}
                        Verdict::OfAnother { least, most } => {
                            strange += 1;
                            if strange >= STRANGE_MAX {
                                let folder = folder.to_string();
                                let source = AofError::OfAnother { folder, found, least, most };
                                return Err(failed(source));
                            }
                        }
                    }
                }
            }
        }
        if began.elapsed() > limits.save_max || tries > limits.tries_max {
            let folder = folder.to_string();
            return Err(failed(AofError::Unsteady { folder }));
        }
        sleep(length).await;
        length = (length * 2).min(limits.poll_max);
        if tries > 0 {
            // Not in step with whatever disturbed it.
            length = length.min(limits.poll_min * (1 + tries % 7));
        }
    }
}

async fn look(node: &mut Connection) -> Result<Persistence, Error> {
    let info: String = node.ask(ATTEMPT, &["INFO"], 1).await?;
    Ok(Persistence::of_info(&info))
}

/// Redis keeps a set of files from 7.0 on, Valkey from its beginning.
fn has_many_parts(server: &Server) -> bool {
    let major = server.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    server.flavour == Flavour::Valkey || major.is_some_and(|major| major >= 7)
}
