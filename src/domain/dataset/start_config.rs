//! What a redis.conf says of a server's start, as far as a restore must know. Never reads a file.

use super::{Error, Names};
use crate::domain::sds;

/// The settings that decide from which files a server starts and what it can load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartConfig {
    pub names: Names,
    /// Where the server looks for its files.
    pub dir: String,
    pub databases: u32,
    /// `cluster-databases` if `cluster-enabled` is yes.
    pub cluster_databases: Option<u32>,
    pub version_check_relaxed: bool,
    /// Paths of `loadmodule` lines.
    pub modules: Vec<String>,
    /// What `include` lines name. They were not followed, so they may say otherwise.
    pub includes: Vec<String>,
}

/// What a person told, which counts more than a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub dbfilename: Option<String>,
    pub appendonly: Option<bool>,
    pub appendfilename: Option<String>,
    pub appenddirname: Option<String>,
    pub databases: Option<u32>,
}

impl Default for StartConfig {
    /// As in Redis and Valkey without a config.
    fn default() -> Self {
        Self {
            names: Names::default(),
            dir: "./".to_owned(),
            databases: 16,
            cluster_databases: None,
            version_check_relaxed: false,
            modules: Vec::new(),
            includes: Vec::new(),
        }
    }
}

impl StartConfig {
    /// Read as config.c:loadServerConfigFromString does: the last of equal settings wins.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut config = Self::default();
        let mut is_cluster = false;
        let mut cluster_databases = 1;
        for (index, line) in text.lines().enumerate() {
            let refuse = |finding: String| Error::Config { line: index + 1, finding };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words = sds::split(line.as_bytes())
                .ok_or_else(|| refuse("unbalanced quotes".to_owned()))?
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect::<Vec<_>>();
            let [setting, arguments @ ..] = words.as_slice() else { continue };
            let setting = setting.to_ascii_lowercase();
            if setting == "loadmodule" {
                config.modules.extend(arguments.first().cloned());
                continue;
            }
            let one = || match arguments {
                [argument] => Ok(argument.clone()),
                _ => Err(refuse(format!("{setting} takes one argument"))),
            };
            match setting.as_str() {
                "include" => config.includes.push(one()?),
                "dir" => config.dir = one()?,
                "dbfilename" => config.names.dbfilename = one()?,
                "appendfilename" => config.names.appendfilename = one()?,
                "appenddirname" => config.names.appenddirname = one()?,
                "appendonly" => config.names.appendonly = yes_or_no(&one()?).map_err(refuse)?,
                "cluster-enabled" => is_cluster = yes_or_no(&one()?).map_err(refuse)?,
                "databases" => config.databases = count(&one()?).map_err(refuse)?,
                "cluster-databases" => cluster_databases = count(&one()?).map_err(refuse)?,
                "rdb-version-check" => {
                    config.version_check_relaxed = one()?.eq_ignore_ascii_case("relaxed");
                }
                _ => {}
            }
        }
        config.cluster_databases = is_cluster.then_some(cluster_databases);
        config.names.check()?;
        Ok(config)
    }

    pub fn with(mut self, overrides: Overrides) -> Result<Self, Error> {
        let Overrides { dbfilename, appendonly, appendfilename, appenddirname, databases } =
            overrides;
        let names = &mut self.names;
        let told = [
            (&mut names.dbfilename, dbfilename),
            (&mut names.appendfilename, appendfilename),
            (&mut names.appenddirname, appenddirname),
        ];
        for (name, told) in told {
            if let Some(told) = told {
                *name = told;
            }
        }
        names.appendonly = appendonly.unwrap_or(names.appendonly);
        self.databases = databases.unwrap_or(self.databases);
        self.names.check()?;
        Ok(self)
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{text:?} is neither yes nor no")),
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| format!("{text:?} is no count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_wins_whatever_its_case() {
        let config = StartConfig::parse(
            "# comment\n\n  Appendonly yes\nAppendfilename \"Appendonly.aof\"\ndbfilename a.rdb\nDBFILENAME b.rdb\ndir /data\ndatabases 32\nloadmodule /m.so arg\nsave 900 1\n",
        )
        .unwrap();
        assert!(config.names.appendonly);
        assert_eq!(config.names.appendfilename, "Appendonly.aof");
        assert_eq!(config.names.dbfilename, "b.rdb");
        assert_eq!(config.names.appenddirname, "appendonlydir");
        assert_eq!(config.dir, "/data");
        assert_eq!(config.databases, 32);
        assert_eq!(config.modules, ["/m.so"]);
        assert_eq!(config.cluster_databases, None);
    }

    #[test]
    fn cluster_and_relaxed_versions_are_told() {
        let config = StartConfig::parse(
            "cluster-databases 4\ncluster-enabled yes\nrdb-version-check relaxed\n",
        )
        .unwrap();
        assert_eq!(config.cluster_databases, Some(4));
        assert!(config.version_check_relaxed);
    }

    #[test]
    fn includes_are_reported_and_not_followed() {
        let config = StartConfig::parse("include /etc/redis/local.conf\n").unwrap();
        assert_eq!(config.includes, ["/etc/redis/local.conf"]);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = |text: &str| StartConfig::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("port 1\nappendonly maybe\n"),
            "line 2 of the Redis config: \"maybe\" is neither yes nor no",
        );
        assert_eq!(
            error("dbfilename a b"),
            "line 1 of the Redis config: dbfilename takes one argument",
        );
        assert_eq!(error("dbfilename \u{fffd}.rdb"), "dbfilename \"\u{fffd}.rdb\": must be UTF-8",);
        assert_eq!(
            error("dbfilename /data/dump.rdb"),
            "dbfilename \"/data/dump.rdb\": must be a plain name, without a path",
        );
    }

    #[test]
    fn what_a_person_tells_counts_more() {
        let overrides = Overrides {
            dbfilename: Some("c.rdb".to_owned()),
            appendonly: Some(false),
            ..Overrides::default()
        };
        let config = StartConfig::parse("appendonly yes\ndbfilename b.rdb\ndatabases 3\n")
            .unwrap()
            .with(overrides)
            .unwrap();
        assert!(!config.names.appendonly);
        assert_eq!(config.names.dbfilename, "c.rdb");
        assert_eq!(config.databases, 3);
    }
}
