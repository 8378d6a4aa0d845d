//! Which server loads which RDB, and what would work instead. Decides; never starts a server.
//!
//! The matrix was measured with real servers: Redis 6.2 to 8.6 and Valkey 8.0 to 9.1, fifteen keys
//! of every core type. A server that refuses its RDB ends at start, so this is asked before anything
//! is touched.

mod choice;
mod version;

pub use self::{
    choice::{Choice, choose, choose_for_aof},
    version::{NotAServerVersion, ServerVersion},
};
use super::{
    manifest::{AofCapture, Flavour},
    rdb::{Content, Facts, Magic},
};

/// The server that shall load, as it will be configured when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub server: ServerVersion,
    /// Valkey's `rdb-version-check relaxed`, from 8.1 on.
    pub version_check_relaxed: bool,
    pub appendonly: bool,
    /// The setting `databases`.
    pub databases: u32,
    /// The setting `cluster-databases` of Valkey 9 if `cluster-enabled` is yes; other servers have one.
    pub cluster_databases: Option<u32>,
    /// Names as MODULE LIST tells them; none if nobody knows.
    pub modules: Option<Vec<String>>,
}

/// Why a server would not load an RDB, and what would work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("{rdb} is newer than {server} reads; {works}")]
    TooNew { rdb: String, server: ServerVersion, works: &'static str },
    #[error("{rdb} is in the format of the other flavour, which {server} does not read; {works}")]
    OtherFlavour { rdb: String, server: ServerVersion, works: &'static str },
    #[error(
        "{rdb} is newer than this program reads, so only a {flavour} at least as new as its source, {source_version}, is sure to load it; {server} is not",
        flavour = source_version.flavour_name()
    )]
    Unread { rdb: String, source_version: ServerVersion, server: ServerVersion },
    #[error(
        "{server} with appendonly yes does not recognise {rdb} in its append-only files; use Valkey 8.1.5 or later, or start it with appendonly no"
    )]
    AppendOnlyBase { rdb: String, server: ServerVersion },
    #[error(
        "keys lie in database {highest}, but the server has {configured}; set `databases {needed}` or more"
    )]
    Databases { highest: u32, configured: u32, needed: u32 },
    #[error(
        "keys lie in database {highest}, but in cluster mode {server} has {configured}; {works}"
    )]
    ClusterDatabases { highest: u32, configured: u32, server: ServerVersion, works: &'static str },
    #[error(
        "the append-only files hold annotations, which {server} does not read; use Redis 7.0 or later, or restore the RDB"
    )]
    Annotations { server: ServerVersion },
    #[error(
        "values of type {type_name} need {module}, which is not loaded; add a `loadmodule` line"
    )]
    Module { type_name: String, module: String },
}

/// How a server takes an RDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loads {
    AsItIs,
    /// Only with `rdb-version-check relaxed`.
    Relaxed,
}

/// The newest RDB version of magic `REDIS` that this page of facts covers, that of Redis 8.6.
const REDIS_VERSION_KNOWN_MAX: u32 = 13;
/// The RDB version of Valkey 9.
const VALKEY_VERSION: u32 = 80;

/// The first Redis that reads each version of magic `REDIS`; versions up to 9 are read by all.
const REDIS_READS: [(u32, (u32, u32)); 4] =
    [(10, (7, 0)), (11, (7, 2)), (12, (7, 4)), (13, (8, 6))];

/// Module types whose module bears another name.
const MODULE_OF_TYPE: [(&str, &str); 9] = [
    ("ReJSON-RL", "ReJSON"),
    ("MBbloom--", "bf"),
    ("MBbloomCF", "bf"),
    ("CMSk-TYPE", "bf"),
    ("TopK-TYPE", "bf"),
    ("TDIS-TYPE", "bf"),
    ("TSDB-TYPE", "timeseries"),
    ("ft_index0", "search"),
    ("graphdata", "graph"),
];

/// Whether the target loads append-only files, as far as that can be known before: not every command of a newer
/// server is known to an older one.
pub fn check_aof(
    aof: &AofCapture,
    source: &ServerVersion,
    target: &Target,
) -> Result<Loads, Vec<Reason>> {
    let (loads, mut reasons) = match aof.preamble().map(|rdb| check(rdb, source, target)) {
        Some(Ok(loads)) => (loads, Vec::new()),
        Some(Err(reasons)) => (Loads::AsItIs, reasons),
        None => (Loads::AsItIs, Vec::new()),
    };
    if let Some(reason) = too_few_databases(databases_needed_by_aof(aof), target) {
        let is_other = |reason: &Reason| {
            !matches!(reason, Reason::Databases { .. } | Reason::ClusterDatabases { .. })
        };
        reasons.retain(is_other);
        reasons.push(reason);
    }
    let annotations = aof.files.iter().any(|file| file.facts.annotations > 0);
    if annotations && !target.server.has_append_only_folder() {
        reasons.push(Reason::Annotations { server: target.server });
    }
    if reasons.is_empty() { Ok(loads) } else { Err(reasons) }
}

/// Of the RDB at its beginning and of every SELECT.
fn databases_needed_by_aof(aof: &AofCapture) -> u32 {
    let preamble = match aof.preamble() {
        Some(Content::Read(facts)) => databases_needed(facts),
        Some(Content::Unread(_)) | None => 1,
    };
    let selected = aof.files.iter().filter_map(|file| file.facts.databases.last());
    selected.map(|highest| highest.saturating_add(1)).chain([preamble]).max().unwrap_or(1)
}

/// Whether the target loads the RDB and how, or every reason why it does not.
///
/// `source` is the server that wrote it; it counts where the content could not be read.
pub fn check(rdb: &Content, source: &ServerVersion, target: &Target) -> Result<Loads, Vec<Reason>> {
    let mut reasons = Vec::new();
    let format = match rdb {
        Content::Read(facts) => {
            reasons.extend(databases(facts, target));
            reasons.extend(modules(facts, target));
            let field_expiry = facts.hashes_with_field_expiry > 0;
            loads(facts.magic, facts.version, field_expiry, target.server)
        }
        Content::Unread(_)
            if source.flavour == target.server.flavour
                && (target.server.major, target.server.minor) >= (source.major, source.minor) =>
        {
            Ok(Loads::AsItIs)
        }
        Content::Unread(unread) => Err(Reason::Unread {
            rdb: rdb_name(unread.magic, unread.version),
            source_version: *source,
            server: target.server,
        }),
    };
    let format = match format {
        Ok(Loads::Relaxed) if !target.version_check_relaxed => {
            Err(relaxation_missing(rdb, target.server))
        }
        Ok(Loads::Relaxed) if hides_in_append_only_base(rdb, target) => {
            Err(Reason::AppendOnlyBase { rdb: content_name(rdb), server: target.server })
        }
        other @ (Ok(Loads::AsItIs | Loads::Relaxed) | Err(_)) => other,
    };
    match format {
        Ok(loads) if reasons.is_empty() => Ok(loads),
        Ok(_) => Err(reasons),
        Err(reason) => {
            reasons.insert(0, reason);
            Err(reasons)
        }
    }
}

/// The matrix: how a server takes an RDB of that version. `field_expiry`: hashes with a time to live
/// per field are in it.
pub fn loads(
    magic: Magic,
    version: u32,
    field_expiry: bool,
    server: ServerVersion,
) -> Result<Loads, Reason> {
    match (magic, server.flavour) {
        (Magic::Redis, Flavour::Redis) => {
            let reads = |&(known, (major, minor)): &(u32, (u32, u32))| {
                version <= known && server.at_least(major, minor)
            };
            if version <= 9 || REDIS_READS.iter().any(reads) {
                Ok(Loads::AsItIs)
            } else {
                Err(too_new(magic, version, field_expiry, server))
            }
        }
        (Magic::Redis, Flavour::Valkey) => match version {
            0..=11 => Ok(Loads::AsItIs),
            12 if !field_expiry && server.at_least(9, 0) => Ok(Loads::Relaxed),
            _ => Err(too_new(magic, version, field_expiry, server)),
        },
        (Magic::Valkey, Flavour::Valkey) => match version {
            0..=VALKEY_VERSION if server.at_least(9, 0) => Ok(Loads::AsItIs),
            0..=VALKEY_VERSION if !field_expiry && server.at_least(8, 1) => Ok(Loads::Relaxed),
            _ => Err(too_new(magic, version, field_expiry, server)),
        },
        (Magic::Valkey, Flavour::Redis) => Err(Reason::OtherFlavour {
            rdb: rdb_name(magic, version),
            server,
            works: works(magic, version, field_expiry),
        }),
    }
}

/// How many databases a server must have to load it.
pub fn databases_needed(facts: &Facts) -> u32 {
    facts.databases.last_key_value().map_or(1, |(&highest, _)| highest + 1)
}

fn databases(facts: &Facts, target: &Target) -> Option<Reason> {
    too_few_databases(databases_needed(facts), target)
}

fn too_few_databases(needed: u32, target: &Target) -> Option<Reason> {
    let highest = needed - 1;
    let Some(configured) = target.cluster_databases else {
        let configured = target.databases;
        return (needed > configured).then_some(Reason::Databases { highest, configured, needed });
    };
    let has_many = target.server.flavour == Flavour::Valkey && target.server.at_least(9, 0);
    let (configured, works) = if has_many {
        (configured, "raise `cluster-databases`")
    } else {
        (1, "restore to a server that is no cluster node, or to Valkey 9 with `cluster-databases`")
    };
    (needed > configured).then_some(Reason::ClusterDatabases {
        highest,
        configured,
        server: target.server,
        works,
    })
}

fn modules<'a>(facts: &'a Facts, target: &'a Target) -> impl Iterator<Item = Reason> + 'a {
    let loaded = target.modules.as_deref();
    facts.modules.iter().filter_map(move |type_name| {
        let module = MODULE_OF_TYPE
            .iter()
            .find_map(|&(known, module)| (known == type_name).then_some(module));
        let built_in = type_name == "vectorset"
            && target.server.flavour == Flavour::Redis
            && target.server.at_least(8, 0);
        let provides = |name: &String| match module {
            Some(module) => name.eq_ignore_ascii_case(module),
            // An RDB names types, not modules: any module that we do not know may bring it.
            None => !MODULE_OF_TYPE.iter().any(|&(_, known)| name.eq_ignore_ascii_case(known)),
        };
        let missing = !built_in && loaded.is_some_and(|loaded| !loaded.iter().any(provides));
        missing.then(|| Reason::Module {
            type_name: type_name.clone(),
            module: module.map_or_else(
                || "the module that defines it".to_owned(),
                |module| format!("module {module}"),
            ),
        })
    })
}

fn too_new(magic: Magic, version: u32, field_expiry: bool, server: ServerVersion) -> Reason {
    Reason::TooNew {
        rdb: rdb_name(magic, version),
        server,
        works: works(magic, version, field_expiry),
    }
}

fn relaxation_missing(rdb: &Content, server: ServerVersion) -> Reason {
    let (magic, version) = content_format(rdb);
    Reason::TooNew {
        rdb: content_name(rdb),
        server,
        works: if magic == Magic::Valkey && version <= VALKEY_VERSION {
            "it takes it with `rdb-version-check relaxed`, and Valkey 9 or later as it is"
        } else {
            "it takes it with `rdb-version-check relaxed`, and Redis 7.4 or later as it is"
        },
    }
}

fn works(magic: Magic, version: u32, field_expiry: bool) -> &'static str {
    match (magic, version, field_expiry) {
        (Magic::Redis, 0..=9, _) => "any Redis or Valkey loads it",
        (Magic::Redis, 10, _) => "Redis 7.0 or later and every Valkey load it",
        (Magic::Redis, 11, _) => "Redis 7.2 or later and every Valkey load it",
        (Magic::Redis, 12, true) => {
            "Redis 7.4 or later loads it; no Valkey does, as some hash fields have a time to live"
        }
        (Magic::Redis, 12, false) => {
            "Redis 7.4 or later loads it, and Valkey 9 or later with `rdb-version-check relaxed`"
        }
        (Magic::Redis, REDIS_VERSION_KNOWN_MAX, _) => "Redis 8.6 or later loads it",
        (Magic::Redis, _, _) => "a Redis at least as new as its source loads it",
        (Magic::Valkey, 0..=VALKEY_VERSION, true) => {
            "Valkey 9 or later loads it; no other does, as some hash fields have a time to live"
        }
        (Magic::Valkey, 0..=VALKEY_VERSION, false) => {
            "Valkey 9 or later loads it, and Valkey 8.1 with `rdb-version-check relaxed`"
        }
        (Magic::Valkey, _, _) => "a Valkey at least as new as its source loads it",
    }
}

/// Up to 8.1.4 the append-only loader takes only `REDIS` for an RDB (valkey-io/valkey#2888).
fn hides_in_append_only_base(rdb: &Content, target: &Target) -> bool {
    let server = target.server;
    content_format(rdb).0 == Magic::Valkey
        && target.appendonly
        && (server.major, server.minor) == (8, 1)
        && server.patch <= 4
}

const fn content_format(rdb: &Content) -> (Magic, u32) {
    match rdb {
        Content::Read(facts) => (facts.magic, facts.version),
        Content::Unread(unread) => (unread.magic, unread.version),
    }
}

fn content_name(rdb: &Content) -> String {
    let (magic, version) = content_format(rdb);
    rdb_name(magic, version)
}

fn rdb_name(magic: Magic, version: u32) -> String {
    let writers = match (magic, version) {
        (Magic::Redis, 9) => " of Redis 5.0 to 6.2",
        (Magic::Redis, 10) => " of Redis 7.0",
        (Magic::Redis, 11) => " of Redis 7.2 or Valkey 7.2 to 8.1",
        (Magic::Redis, 12) => " of Redis 7.4 or 8.0",
        (Magic::Redis, 13) => " of Redis 8.6",
        (Magic::Redis, _) => " of Redis",
        (Magic::Valkey, 80) => " of Valkey 9",
        (Magic::Valkey, _) => " of Valkey",
    };
    format!("RDB {version}{writers}")
}

#[cfg(test)]
mod tests;
