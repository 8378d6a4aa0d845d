//! Which commands a user may run, tried by calls that do nothing. Never decides which are needed.

use super::{Access, Connection, Error};
use crate::domain::source::NodeAddress;

const ATTEMPT: &str = "try a command";

/// A command in a form that does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Ping,
    Info,
    Time,
    Replconf,
    Bgsave,
    ClusterNodes,
}

impl Permission {
    /// As `ACL SETUSER` takes it.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Ping => "+ping",
            Self::Info => "+info",
            Self::Time => "+time",
            Self::Replconf => "+replconf",
            Self::Bgsave => "+bgsave",
            Self::ClusterNodes => "+cluster|nodes",
        }
    }

    /// The call, and how many of its words name the command. Permissions are looked at before arguments are, but after
    /// their number (`processCommand` in server.c).
    const fn call(self) -> (&'static [&'static str], usize) {
        match self {
            Self::Ping => (&["PING"], 1),
            Self::Info => (&["INFO", "server"], 1),
            Self::Time => (&["TIME"], 1),
            // Sets no option.
            Self::Replconf => (&["REPLCONF"], 1),
            // Refused as a syntax error by every version.
            Self::Bgsave => (&["BGSAVE", "nothing"], 1),
            Self::ClusterNodes => (&["CLUSTER", "NODES"], 2),
        }
    }
}

/// Those that the user may not run at this node.
pub async fn refused(
    address: &NodeAddress,
    access: &Access,
    permissions: &[Permission],
) -> Result<Vec<Permission>, Error> {
    let mut node = Connection::open(address, access).await?;
    let mut refused = Vec::new();
    for permission in permissions {
        let (words, named) = permission.call();
        match node.ask::<redis::Value>(ATTEMPT, words, named).await {
            Err(Error::PermissionDenied { .. }) => refused.push(*permission),
            // Whatever else it answers, it would have run it.
            Ok(_)
            | Err(Error::Refused { .. } | Error::Loading { .. } | Error::NoPrimaryLink { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}
