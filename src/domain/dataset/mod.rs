//! Which files with which bytes a server starts from. Decides; never touches a folder.
//!
//! What counts is how the server is configured *when it starts*: with `appendonly yes` it never looks
//! at dump.rdb, with `appendonly no` never at the append-only files. So both forms are written, and a
//! server starts from the same keys whichever way it is configured.

mod choice;
mod start_config;

use serde::{Deserialize, Serialize};

pub use self::{
    choice::{Chosen, choose},
    start_config::{Overrides, StartConfig},
};
use super::{compatibility::ServerVersion, sds::quoted};

/// Folder in a data directory for everything that is neither the old nor the new dataset.
pub const WORK_FOLDER: &str = ".redis-backup";

/// Names that the server uses when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Names {
    pub dbfilename: String,
    pub appendonly: bool,
    pub appendfilename: String,
    pub appenddirname: String,
}

/// The dataset that a server of that version and with these names starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    pub names: Names,
    pub form: Form,
    pub append_only: AppendOnly,
}

/// What is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// An RDB, which a server starts from whichever way it is configured.
    Rdb,
    /// Commands, behind an RDB or not, in one file. Only `appendonly yes` starts from it.
    Aof,
}

/// The form in which `appendonly yes` finds the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppendOnly {
    /// Redis 7.0 and later, Valkey: the RDB as base of a set of files with a manifest.
    Folder,
    /// Redis 6.2 with `appendonly yes`: the RDB under the name of the append-only file, as a copy,
    /// since the server appends to it in place.
    SingleFile,
    /// Redis 6.2 with `appendonly no`.
    None,
}

/// Files of an append-only folder. The manifest makes them the dataset, so it comes last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppendOnlySet {
    /// Holds what is restored; never written to by a server, so a hard link serves.
    pub base: String,
    /// An empty file for what will be written; none in a new folder, where the server makes its own.
    pub increment: Option<String>,
    pub manifest: String,
    pub manifest_text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{setting} {name:?}: {finding}")]
    Name { setting: &'static str, name: String, finding: &'static str },
    #[error("{first} and {second} are both {name:?}; the server would overwrite one by the other")]
    SameName { first: &'static str, second: &'static str, name: String },
    #[error("line {line} of the Redis config: {finding}")]
    Config { line: usize, finding: String },
    #[error("a server with appendonly no does not look at append-only files")]
    AppendOnlyOff,
}

impl Default for Names {
    /// As in Redis and Valkey without a config.
    fn default() -> Self {
        Self {
            dbfilename: "dump.rdb".to_owned(),
            appendonly: false,
            appendfilename: "appendonly.aof".to_owned(),
            appenddirname: "appendonlydir".to_owned(),
        }
    }
}

impl Names {
    /// Redis takes plain names only here, and so do we: nothing may leave the data directory.
    pub fn check(&self) -> Result<(), Error> {
        let settings = [
            ("dbfilename", &self.dbfilename),
            ("appendfilename", &self.appendfilename),
            ("appenddirname", &self.appenddirname),
        ];
        for (setting, name) in settings {
            let finding = match name.as_str() {
                "" => Some("must not be empty"),
                "." | ".." => Some("must name a file, not a folder"),
                WORK_FOLDER => Some("is the folder of redis-backup itself"),
                "nodes.conf" => Some("is the file of Redis Cluster"),
                text if text.contains(['/', '\\']) => Some("must be a plain name, without a path"),
                text if text.contains(char::REPLACEMENT_CHARACTER) => Some("must be UTF-8"),
                text if text.contains('\0') => Some("must not hold a zero byte"),
                // The server refuses manifest lines of 1024 bytes, and most file systems names of 256.
                text if text.len() > 200 => Some("must not be longer than 200 bytes"),
                _ => None,
            };
            if let Some(finding) = finding {
                return Err(Error::Name { setting, name: name.clone(), finding });
            }
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let ((first, name), (second, second_name)) = (settings[one], settings[other]);
            if name == second_name {
                return Err(Error::SameName { first, second, name: name.clone() });
            }
        }
        Ok(())
    }
}

impl Dataset {
    pub fn new(names: Names, form: Form, server: ServerVersion) -> Result<Self, Error> {
        names.check()?;
        if form == Form::Aof && !names.appendonly {
            return Err(Error::AppendOnlyOff);
        }
        let append_only = if server.has_append_only_folder() {
            AppendOnly::Folder
        } else if names.appendonly {
            AppendOnly::SingleFile
        } else {
            AppendOnly::None
        };
        Ok(Self { names, form, append_only })
    }

    /// Name of the one file that a restore writes; the others are made from it.
    pub fn staged_name(&self) -> &str {
        match self.form {
            Form::Rdb => &self.names.dbfilename,
            Form::Aof => &self.names.appendfilename,
        }
    }

    /// How many times the bytes restored need room, `hard_links` telling whether the volume has them.
    pub const fn copies(&self, hard_links: bool) -> u64 {
        match (self.append_only, self.form, hard_links) {
            (AppendOnly::None, _, _)
            | (AppendOnly::Folder, _, true)
            | (AppendOnly::SingleFile, Form::Aof, _) => 1,
            (AppendOnly::SingleFile, Form::Rdb, _) | (AppendOnly::Folder, _, false) => 2,
        }
    }

    /// The append-only set to put into a folder that holds `existing` names, empty where it is new.
    ///
    /// Beside other files it is numbered above all of them, with an increment of its own, so that a
    /// server never appends to one of the other set; and named as no server names its files.
    pub fn append_only_set<'a>(
        &self,
        existing: impl IntoIterator<Item = &'a str>,
    ) -> AppendOnlySet {
        let appendfilename = &self.names.appendfilename;
        let number = |name: &str| -> Option<u64> {
            let rest = name.strip_prefix(appendfilename.as_str())?.strip_prefix('.')?;
            rest.split('.').next()?.parse().ok()
        };
        let mut is_new = true;
        let mut highest = 0;
        for name in existing {
            is_new = false;
            highest = highest.max(number(name).unwrap_or(0));
        }
        let sequence = highest + 1;
        let stem = if is_new {
            format!("{appendfilename}.{sequence}")
        } else {
            format!("{appendfilename}.{sequence}.restored")
        };
        let base = match self.form {
            Form::Rdb => format!("{stem}.base.rdb"),
            Form::Aof => format!("{stem}.base.aof"),
        };
        let increment = (!is_new).then(|| format!("{stem}.incr.aof"));
        let line =
            |name: &String, kind| format!("file {} seq {sequence} type {kind}\n", quoted(name));
        let increment_line = increment.as_ref().map(|name| line(name, 'i')).unwrap_or_default();
        let manifest_text = line(&base, 'b') + &increment_line;
        let manifest = format!("{appendfilename}.manifest");
        AppendOnlySet { base, increment, manifest, manifest_text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(names: Names, server: &str) -> Dataset {
        Dataset::new(names, Form::Rdb, server.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_form_follows_version_and_config() {
        let form = |server: &str, appendonly: bool| {
            dataset(Names { appendonly, ..Names::default() }, server).append_only
        };
        assert_eq!(form("7.0.15", false), AppendOnly::Folder);
        assert_eq!(form("valkey-8.0", true), AppendOnly::Folder);
        assert_eq!(form("6.2.16", true), AppendOnly::SingleFile);
        assert_eq!(form("6.2.16", false), AppendOnly::None);
    }

    #[test]
    fn append_only_files_are_only_for_a_server_that_reads_them() {
        let new = |appendonly: bool, server: &str| {
            let names = Names { appendonly, ..Names::default() };
            Dataset::new(names, Form::Aof, server.parse().unwrap())
        };
        assert_eq!(new(false, "7.0"), Err(Error::AppendOnlyOff));
        let set = new(true, "8.0").unwrap().append_only_set([]);
        assert_eq!(set.base, "appendonly.aof.1.base.aof");
        let single = new(true, "6.2").unwrap();
        assert_eq!((single.staged_name(), single.copies(false)), ("appendonly.aof", 1));
    }

    #[test]
    fn a_new_folder_gets_a_base_and_a_manifest_that_ends_its_line() {
        let set = dataset(Names::default(), "7.0").append_only_set([]);
        assert_eq!(set.base, "appendonly.aof.1.base.rdb");
        assert_eq!(set.increment, None);
        assert_eq!(set.manifest, "appendonly.aof.manifest");
        assert_eq!(set.manifest_text, "file appendonly.aof.1.base.rdb seq 1 type b\n");
    }

    #[test]
    fn a_set_beside_another_is_numbered_above_it() {
        let names = Names { appendfilename: "Appendonly.aof".to_owned(), ..Names::default() };
        let set = dataset(names, "7.0").append_only_set([
            "Appendonly.aof.3.base.rdb",
            "Appendonly.aof.12.incr.aof",
            "appendonly.aof.99.incr.aof",
            "Appendonly.aof.manifest",
        ]);
        assert_eq!(
            set.manifest_text,
            "file Appendonly.aof.13.restored.base.rdb seq 13 type b\nfile Appendonly.aof.13.restored.incr.aof seq 13 type i\n",
        );
        assert_eq!(set.increment.as_deref(), Some("Appendonly.aof.13.restored.incr.aof"));
    }

    #[test]
    fn a_name_cannot_leave_the_data_directory() {
        for name in ["", ".", "..", "a/b", "../dump.rdb", "a\\b", "a\0", WORK_FOLDER, "nodes.conf"]
        {
            let names = Names { dbfilename: name.to_owned(), ..Names::default() };
            assert!(matches!(names.check(), Err(Error::Name { .. })), "{name:?}");
            let names = Names { appenddirname: name.to_owned(), ..Names::default() };
            assert!(matches!(names.check(), Err(Error::Name { .. })), "{name:?}");
        }
        let names = Names { dbfilename: "appendonlydir".to_owned(), ..Names::default() };
        assert!(matches!(names.check(), Err(Error::SameName { .. })));
    }

    #[test]
    fn a_volume_without_hard_links_needs_room_for_two() {
        let names = Names { appendonly: true, ..Names::default() };
        assert_eq!(dataset(names.clone(), "7.0").copies(true), 1);
        assert_eq!(dataset(names.clone(), "7.0").copies(false), 2);
        assert_eq!(dataset(names, "6.2").copies(true), 2);
    }
}
