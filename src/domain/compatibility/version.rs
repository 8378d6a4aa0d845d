//! Which server and which version, read from what servers and people say. Never asks one.

use std::{fmt, str::FromStr};

use crate::domain::manifest::{Flavour, Server};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    pub flavour: Flavour,
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no server version; use a form such as 7.0.15, redis-8.0 or valkey-9.1.2")]
pub struct NotAServerVersion {
    text: String,
}

impl ServerVersion {
    pub const fn new(flavour: Flavour, major: u32, minor: u32, patch: u32) -> Self {
        Self { flavour, major, minor, patch }
    }

    /// From the text of INFO: Valkey calls itself Redis 7.2.4 there and tells its own version beside.
    pub fn from_info(info: &str) -> Result<Self, NotAServerVersion> {
        let field = |name: &str| {
            info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
        };
        let (flavour, text) = match (field("valkey_version"), field("redis_version")) {
            (Some(version), _) => (Flavour::Valkey, version),
            (None, Some(version)) => (Flavour::Redis, version),
            (None, None) => {
                return Err(NotAServerVersion { text: "an INFO without version".into() });
            }
        };
        Self::numbered(flavour, text).ok_or_else(|| NotAServerVersion { text: text.to_owned() })
    }

    /// As a manifest names it.
    pub fn of(server: &Server) -> Result<Self, NotAServerVersion> {
        Self::numbered(server.flavour, &server.version)
            .ok_or_else(|| NotAServerVersion { text: server.version.clone() })
    }

    /// From what `redis-server --version` or `valkey-server --version` prints, such as
    /// `Redis server v=7.0.15 sha=00000000:0 …`. A `redis-server` may well be a Valkey.
    pub fn from_version_output(output: &str) -> Result<Self, NotAServerVersion> {
        let line = output.lines().next().unwrap_or_default();
        let parse = || {
            let flavour = match line.split_whitespace().next()?.to_ascii_lowercase().as_str() {
                "redis" => Flavour::Redis,
                "valkey" => Flavour::Valkey,
                _ => return None,
            };
            let version = line.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
            Self::numbered(flavour, version)
        };
        parse().ok_or_else(|| NotAServerVersion { text: line.to_owned() })
    }

    /// As a manifest names it.
    pub fn server(&self) -> Server {
        let Self { flavour, major, minor, patch } = *self;
        Server { flavour, version: format!("{major}.{minor}.{patch}") }
    }

    pub const fn flavour_name(&self) -> &'static str {
        match self.flavour {
            Flavour::Redis => "Redis",
            Flavour::Valkey => "Valkey",
        }
    }

    pub const fn at_least(&self, major: u32, minor: u32) -> bool {
        self.major > major || (self.major == major && self.minor >= minor)
    }

    /// Redis 7.0 and every Valkey keep their append-only files in a folder with a manifest.
    pub const fn has_append_only_folder(&self) -> bool {
        self.at_least(7, 0)
    }

    /// FUNCTION came with Redis 7.0.
    pub const fn has_functions(&self) -> bool {
        self.at_least(7, 0)
    }

    pub const fn has_relaxed_version_check(&self) -> bool {
        matches!(self.flavour, Flavour::Valkey) && self.at_least(8, 1)
    }

    fn numbered(flavour: Flavour, text: &str) -> Option<Self> {
        // Release candidates and distributions append to the numbers: 8.0-rc1, 7.0.15+dfsg.
        let numbers = text.trim().split(['-', '+', '~']).next()?;
        let mut parts = numbers.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        let patch = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        parts.next().is_none().then_some(Self { flavour, major, minor, patch })
    }
}

impl FromStr for ServerVersion {
    type Err = NotAServerVersion;

    /// `7.0.15` is a Redis; `redis-8.0`, `valkey-9.1.2` and `Valkey 9` tell the flavour.
    fn from_str(text: &str) -> Result<Self, NotAServerVersion> {
        let lower = text.trim().to_ascii_lowercase();
        let (flavour, numbers) = if let Some(rest) = lower.strip_prefix("valkey") {
            (Flavour::Valkey, rest)
        } else {
            (Flavour::Redis, lower.strip_prefix("redis").unwrap_or(&lower))
        };
        let numbers = numbers.trim_start_matches(['-', ' ', ':', '=', '@']);
        Self::numbered(flavour, numbers).ok_or_else(|| NotAServerVersion { text: text.to_owned() })
    }
}

impl TryFrom<&Server> for ServerVersion {
    type Error = NotAServerVersion;

    fn try_from(server: &Server) -> Result<Self, NotAServerVersion> {
        Self::numbered(server.flavour, &server.version)
            .ok_or_else(|| NotAServerVersion { text: server.version.clone() })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flavour: _, major, minor, patch } = self;
        write!(f, "{} {major}.{minor}.{patch}", self.flavour_name())
    }
}
