//! Which servers `tests/servers/fetch` brought. Never fetches any.

use std::{env, fmt, fs, path::PathBuf};

use redis_backup::domain::manifest::Flavour;

/// What `tests/servers/fetch` brings. A test that cannot run on all of them fails.
const FETCHED: [&str; 6] =
    ["redis-6.2", "redis-7.0", "redis-8.0", "redis-newest", "valkey-8.1", "valkey-newest"];

/// One server program with its tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub flavour: Flavour,
    /// Major, minor and patch.
    pub numbers: [u16; 3],
    folder: PathBuf,
}

impl Version {
    /// Every version, oldest first, Redis before Valkey.
    pub fn all() -> Vec<Self> {
        FETCHED.into_iter().map(Self::named).collect()
    }

    /// What most tests run on: Redis 7.0.
    pub fn usual() -> Self {
        Self::named("redis-7.0")
    }

    /// The name is the folder's that `tests/servers/fetch` made, such as `valkey-newest`.
    pub fn named(name: &str) -> Self {
        let folder = folder(name);
        let marker = fs::read_to_string(folder.join("server")).unwrap_or_else(|error| {
            panic!("no {name} in {}: run tests/servers/fetch ({error})", folder.display())
        });
        let (flavour, version) = marker.trim().split_once(' ').unwrap();
        let flavour = match flavour {
            "redis" => Flavour::Redis,
            "valkey" => Flavour::Valkey,
            other => panic!("{name} is of the unknown flavour {other}"),
        };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap());
        let numbers = [(); 3].map(|()| numbers.next().unwrap());
        Self { flavour, numbers, folder }
    }

    /// The path of `redis-server`, `redis-cli`, `redis-check-rdb` or `redis-sentinel`, for Valkey too.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Every version that was built with TLS: all but the Redis 6.2 of a Python package.
    pub fn all_with_tls() -> Vec<Self> {
        Self::all().into_iter().filter(Self::is_seven).collect()
    }

    /// Whether this is Redis of at least that major and minor version.
    pub fn is_redis(&self, least: [u16; 2]) -> bool {
        self.flavour == Flavour::Redis && self.numbers[..2] >= least[..]
    }

    /// Whether this is Valkey of at least that major and minor version.
    pub fn is_valkey(&self, least: [u16; 2]) -> bool {
        self.flavour == Flavour::Valkey && self.numbers[..2] >= least[..]
    }

    /// Redis 7.0 and all Valkey: functions, absolute expiry times, multi-part AOF.
    pub fn is_seven(&self) -> bool {
        self.is_redis([7, 0]) || self.flavour == Flavour::Valkey
    }

    pub fn has_field_expiry(&self) -> bool {
        self.is_redis([7, 4]) || self.is_valkey([9, 0])
    }
}

/// Such as `redis 7.0.15`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flavour = match self.flavour {
            Flavour::Redis => "redis",
            Flavour::Valkey => "valkey",
        };
        let [major, minor, patch] = self.numbers;
        write!(f, "{flavour} {major}.{minor}.{patch}")
    }
}

/// Where `tests/servers/fetch` puts the server of that name.
pub fn folder(name: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    cache.join("redis-backup/servers").join(name)
}
