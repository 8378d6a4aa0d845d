//! Redis and Valkey nodes and their sentinels, over the network. Reads and asks for saves; never changes a setting or a key.
//!
//! An ACL user with `+psync +replconf +ping +info +time` (and on a Cluster `+cluster|nodes`)
//! is enough for everything a backup needs, and `+bgsave` where it reads the data directory; what else is asked is
//! asked for facts that may be missing.

pub mod aof;
pub mod bgsave;
pub mod connection;
mod dial;
pub mod inspect;
mod link;
pub mod permission;
pub mod replication;
mod sentinel;
pub mod tls;

use std::{io, time::Duration};

pub use self::{
    aof::AofError,
    bgsave::SaveError,
    connection::{Access, Connection, Credentials},
    dial::{Dial, Dialed, Duplex, Stream},
    inspect::{SourceAccess, observe, observe_node},
    replication::Snapshot,
    sentinel::watched,
    tls::Tls,
};
use crate::domain::source::NodeAddress;

/// Variants by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Try later, or another node.
    #[error("{attempt} at {address}: not reachable")]
    Unreachable {
        attempt: &'static str,
        address: NodeAddress,
        #[source]
        source: io::Error,
    },
    /// The connection broke after it had been made. Try again, or another node.
    #[error("{attempt} at {address}: the connection was cut {position}")]
    Cut {
        attempt: &'static str,
        address: NodeAddress,
        /// Such as `after 12 of 100 bytes`.
        position: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error("{attempt} at {address}: no answer within {} s", limit.as_secs_f64())]
    Timeout { attempt: &'static str, address: NodeAddress, limit: Duration },
    /// It lives, and does not begin to send, or does not end its save.
    #[error("{attempt} at {address}: its snapshot was not ready within {} s (`timeouts.begin`)", limit.as_secs_f64())]
    Late { attempt: &'static str, address: NodeAddress, limit: Duration },
    #[error("{attempt} at {address}: the server answered {reply:?}; {advice}")]
    AuthenticationRefused {
        attempt: &'static str,
        address: NodeAddress,
        reply: String,
        advice: &'static str,
    },
    #[error("{attempt} at {address}: {command} is not permitted; {advice}")]
    PermissionDenied {
        attempt: &'static str,
        address: NodeAddress,
        command: String,
        advice: String,
    },
    #[error("{attempt} at {address}: TLS failed; {advice}")]
    Tls {
        attempt: &'static str,
        address: NodeAddress,
        advice: String,
        #[source]
        source: io::Error,
    },
    /// The server still loads its dataset. Try later, or another node.
    #[error("{attempt} at {address}: the server is loading its dataset")]
    Loading { attempt: &'static str, address: NodeAddress },
    /// A replica that cannot tell how far it lags. Try another node.
    #[error("{attempt} at {address}: the replica has no link to its primary")]
    NoPrimaryLink { attempt: &'static str, address: NodeAddress },
    #[error("capture by BGSAVE at {address}")]
    Save {
        address: NodeAddress,
        #[source]
        source: SaveError,
    },
    #[error("capture the append-only files of {address}")]
    Aof {
        address: NodeAddress,
        #[source]
        source: AofError,
    },
    /// An error reply that no other variant names.
    #[error("{attempt} at {address}: the server answered {reply:?}")]
    Refused { attempt: &'static str, address: NodeAddress, reply: String },
    /// Not what a Redis answers. Is it one?
    #[error("{attempt} at {address}: {finding}")]
    Protocol { attempt: &'static str, address: NodeAddress, finding: String },
}

impl Error {
    /// What an error reply means; `reply` begins behind the `-`. `command` is what was asked, such
    /// as `CLUSTER NODES`.
    fn of_reply(attempt: &'static str, address: &NodeAddress, command: &str, reply: &str) -> Self {
        let address = address.clone();
        let reply: String = reply.chars().filter(|c| !c.is_control()).take(300).collect();
        let code = reply.split_ascii_whitespace().next().unwrap_or_default();
        match code {
            "NOPERM" => Self::PermissionDenied {
                attempt,
                address,
                command: command.to_owned(),
                advice: format!("allow it with `ACL SETUSER <user> {}`", acl_rule(command)),
            },
            "NOAUTH" => Self::AuthenticationRefused {
                attempt,
                address,
                reply,
                advice: "give a password, and a username if it is not the default user's",
            },
            "WRONGPASS" => Self::AuthenticationRefused {
                attempt,
                address,
                reply,
                advice: "check username and password, and that the user is on (`ACL GETUSER`)",
            },
            "DENIED" => Self::AuthenticationRefused {
                attempt,
                address,
                reply,
                advice: "the server is in protected mode: give it a password",
            },
            _ if command == "AUTH" => Self::AuthenticationRefused {
                attempt,
                address,
                reply,
                advice: "leave out username and password if the server has none",
            },
            "LOADING" => Self::Loading { attempt, address },
            "NOMASTERLINK" => Self::NoPrimaryLink { attempt, address },
            _ => Self::Refused { attempt, address, reply },
        }
    }

    /// What a failed read or write means on a connection that was made.
    fn of_cut(
        attempt: &'static str,
        address: &NodeAddress,
        position: String,
        source: io::Error,
    ) -> Self {
        let address = address.clone();
        match tls::advice(&source) {
            Some(advice) => Self::Tls { attempt, address, advice, source },
            None => Self::Cut { attempt, address, position, source: Some(source) },
        }
    }
}

/// `CLUSTER NODES` → `+cluster|nodes`
fn acl_rule(command: &str) -> String {
    format!("+{}", command.to_ascii_lowercase().replace(' ', "|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_reply(command: &str, reply: &str) -> String {
        Error::of_reply("observe", &NodeAddress::new("a", 1), command, reply).to_string()
    }

    #[test]
    fn a_missing_permission_names_the_command_and_its_rule() {
        assert_eq!(
            of_reply("CLUSTER NODES", "NOPERM this user has no permissions"),
            "observe at a:1: CLUSTER NODES is not permitted; \
             allow it with `ACL SETUSER <user> +cluster|nodes`",
        );
    }

    #[test]
    fn error_replies_become_what_the_caller_can_do() {
        for (command, reply, expected) in [
            ("PING", "NOAUTH Authentication required.", "give a password"),
            ("AUTH", "WRONGPASS invalid username-password pair", "check username and password"),
            ("AUTH", "ERR AUTH <password> called without any password configured", "leave out"),
            ("INFO", "LOADING Redis is loading the dataset in memory", "is loading its dataset"),
            ("PSYNC", "NOMASTERLINK Can't SYNC while not connected", "no link to its primary"),
            ("PSYNC", "ERR what\u{7}ever", "the server answered \"ERR whatever\""),
        ] {
            assert!(of_reply(command, reply).contains(expected), "{}", of_reply(command, reply));
        }
    }
}
