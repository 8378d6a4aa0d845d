//! What a server will start there, and whether the backup fits it. Everything is asked before anything is touched.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use super::convert::Conversion;
use crate::{
    cli::{DatasetNames, Restore as Arguments, RestoreFrom, YesNo},
    domain::{
        compatibility::{self, ServerVersion, Target},
        dataset::{self, AppendOnly, Chosen, Dataset, Form, Names, Overrides, StartConfig},
        identity::BackupId,
        manifest::{Manifest, ShardManifest},
    },
    edge::{
        data_directory::Restore,
        server_process::{self, Binary},
    },
    failure::Failure,
    flow::{
        Context, load,
        pieces::{self, Piece},
    },
};

/// No config of a server is near to this.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A restore that fits.
pub(super) struct Wanted {
    pub(super) restore: Restore,
    /// What is staged, in order.
    pub(super) pieces: Vec<Piece>,
    pub(super) chosen: Chosen,
    pub(super) shard: ShardManifest,
    pub(super) server: ServerVersion,
    pub(super) warnings: Vec<String>,
    /// Append-only files of which an RDB must be made.
    pub(super) conversion: Option<Conversion>,
}

pub(super) async fn want(
    arguments: &Arguments,
    manifest: &Manifest,
    context: &Context,
) -> Result<Wanted, Failure> {
    let shard = shard(arguments, manifest)?;
    let (config, mut warnings) = start_config(&arguments.names)?;
    warnings.extend(other_folder(Path::new(&config.dir), &arguments.data_dir));
    let server = server(arguments, context).await?;
    let source = load::server_version(&manifest.server)?;
    let target = Target {
        server,
        version_check_relaxed: config.version_check_relaxed,
        appendonly: config.names.appendonly,
        databases: config.databases,
        cluster_databases: config.cluster_databases,
        modules: None,
    };
    let chosen = choose(arguments, manifest, shard)?;
    fits(chosen.form, manifest, shard, &source, &target)?;
    let conversion = match (&shard.aof, chosen.form) {
        (Some(aof), Form::Aof) if !config.names.appendonly => {
            Conversion::find(arguments, aof, &source, &target, context).await?
        }
        (Some(_) | None, Form::Rdb | Form::Aof) => None,
    };
    let is_loaded_there = chosen.form == Form::Aof && conversion.is_none();
    if is_loaded_there && (server.flavour != source.flavour || server < source) {
        warnings.push(format!(
            "the append-only files hold commands of {}: {server} does not start if it does not know one of them",
            manifest.server,
        ));
    }
    if manifest.shards.len() > 1 {
        warnings.push(
            "nodes.conf is left as it is: it must name the slots of this shard, or be removed \
             together with those of all other nodes"
                .to_owned(),
        );
    }
    let form = if conversion.is_some() { Form::Rdb } else { chosen.form };
    let dataset = Dataset::new(config.names, form, server).map_err(|error| Failure::Usage {
        hint: hint_of(&error, shard),
        finding: error.to_string(),
    })?;
    let pieces = pieces::of(chosen.form, &manifest.backup, shard)?;
    let restore = Restore {
        backup: manifest.backup.clone(),
        shard: shard.shard,
        dataset,
        bytes: pieces.iter().map(Piece::bytes).sum(),
    };
    Ok(Wanted { restore, pieces, chosen, shard: shard.clone(), server, warnings, conversion })
}

fn choose(
    arguments: &Arguments,
    manifest: &Manifest,
    shard: &ShardManifest,
) -> Result<Chosen, Failure> {
    let told = arguments.from.map(|from| match from {
        RestoreFrom::Rdb => Form::Rdb,
        RestoreFrom::Aof => Form::Aof,
    });
    dataset::choose(shard.rdb.as_ref(), shard.aof.as_ref(), told).ok_or_else(|| Failure::Usage {
        finding: format!(
            "{} holds no {} of shard {}",
            manifest.backup,
            told.map_or("capture", |form| match form {
                Form::Rdb => "RDB",
                Form::Aof => "append-only files",
            }),
            shard.shard,
        ),
        hint: "`redis-backup show` tells what it holds; leave --from away to take that".to_owned(),
    })
}

fn fits(
    form: Form,
    manifest: &Manifest,
    shard: &ShardManifest,
    source: &ServerVersion,
    target: &Target,
) -> Result<(), Failure> {
    let checked = match (form, &shard.aof) {
        (Form::Aof, Some(aof)) => compatibility::check_aof(aof, source, target),
        (Form::Rdb, _) | (Form::Aof, None) => {
            let rdb = pieces::rdb_content(&manifest.backup, shard)?;
            compatibility::check(rdb, source, target)
        }
    };
    checked.map(drop).map_err(|reasons| misfit(&manifest.backup, &reasons))
}

pub(super) fn misfit(backup: &BackupId, reasons: &[compatibility::Reason]) -> Failure {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    Failure::Incompatible(format!("{backup} does not fit: {}", reasons.join("; ")))
}

fn hint_of(error: &dataset::Error, shard: &ShardManifest) -> String {
    match error {
        dataset::Error::AppendOnlyOff if shard.rdb.is_some() => {
            "start it with appendonly yes, or have such a server in PATH or by --server-binary, which makes an RDB of them, or give --from rdb; `redis-backup show` tells to which moment each reaches"
        }
        dataset::Error::AppendOnlyOff => {
            "start it with appendonly yes, or have such a server in PATH or by --server-binary, which makes an RDB of them: the backup holds none"
        }
        dataset::Error::Name { .. }
        | dataset::Error::SameName { .. }
        | dataset::Error::Config { .. } => "give the names as the server has them at its start",
    }
    .to_owned()
}

impl Wanted {
    /// The plan in sentences.
    pub(super) fn steps(&self) -> Vec<String> {
        let Restore { backup: _, shard, dataset, bytes } = &self.restore;
        let names = &dataset.names;
        let mut steps = vec![self.choice()];
        if dataset.form == Form::Aof {
            steps.extend(self.steps_of_aof(names));
            return steps;
        }
        let read = match &self.conversion {
            None => format!(
                "read shard {shard} from the store and check its digests and every key ({bytes} bytes of RDB)"
            ),
            Some(conversion) => format!(
                "read shard {shard} from the store and check its digests, load its append-only files ({bytes} bytes) into a throw-away {}, and let that write an RDB of as many keys: with appendonly no they would not be read",
                conversion.server()
            ),
        };
        steps.extend([
            read,
            format!(
                "write it beside the present dataset, read it back from disk, then replace {}",
                names.dbfilename
            ),
        ]);
        match dataset.append_only {
            AppendOnly::Folder => steps.push(format!(
                "make it the base of {}/{}.manifest too, so that {} starts from it with appendonly yes and no",
                names.appenddirname, names.appendfilename, self.server,
            )),
            AppendOnly::SingleFile => steps.push(format!(
                "copy it to {}, from which {} starts with appendonly yes",
                names.appendfilename, self.server,
            )),
            AppendOnly::None => {}
        }
        steps.push(KEEP.to_owned());
        steps
    }

    /// Which capture is taken, and why.
    pub(super) fn choice(&self) -> String {
        let form = match self.chosen.form {
            Form::Rdb => "the RDB",
            Form::Aof => "the append-only files",
        };
        let made = match &self.conversion {
            None => String::new(),
            Some(conversion) => format!("; {} makes an RDB of them", conversion.server()),
        };
        format!("take {form}: {}{made}", self.chosen.reason)
    }

    fn steps_of_aof(&self, names: &Names) -> [String; 3] {
        let Restore { backup: _, shard, dataset, bytes } = &self.restore;
        let place = match dataset.append_only {
            AppendOnly::Folder => {
                format!(
                    "make it the base of {}/{}.manifest",
                    names.appenddirname, names.appendfilename
                )
            }
            AppendOnly::SingleFile | AppendOnly::None => {
                format!("replace {}", names.appendfilename)
            }
        };
        [
            format!(
                "read shard {shard} from the store, join its append-only files ({bytes} bytes) beside the present dataset, check digests and every command from disk"
            ),
            format!(
                "{place}, from which {} starts with appendonly yes, and put {} aside",
                self.server, names.dbfilename
            ),
            KEEP.to_owned(),
        ]
    }
}

const KEEP: &str = "keep the present dataset in .redis-backup until --finish or --undo";

fn shard<'a>(arguments: &Arguments, manifest: &'a Manifest) -> Result<&'a ShardManifest, Failure> {
    let usage = |finding: String| {
        Failure::Usage {
        finding,
        hint: "`redis-backup show` tells which shard holds which slots; compare with `myself` in nodes.conf".into(),
    }
    };
    match (manifest.shards.as_slice(), arguments.shard) {
        ([only], None) => Ok(only),
        (shards, None) => Err(usage(format!(
            "{} has {} shards: name one by --shard",
            manifest.backup,
            shards.len()
        ))),
        (shards, Some(number)) => shards.iter().find(|it| it.shard == number).ok_or_else(|| {
            usage(format!("{} has shards 0 to {}, not {number}", manifest.backup, shards.len() - 1))
        }),
    }
}

/// Names are never guessed: a wrong one is a server that starts empty.
fn start_config(names: &DatasetNames) -> Result<(StartConfig, Vec<String>), Failure> {
    let DatasetNames {
        redis_conf,
        redis_defaults,
        dbfilename,
        appendonly,
        appendfilename,
        appenddirname,
    } = names;
    let all_told = dbfilename.is_some()
        && appendonly.is_some()
        && appendfilename.is_some()
        && appenddirname.is_some();
    let config = match redis_conf {
        Some(path) => {
            let text = read_config(path).map_err(|source| Failure::Local {
                attempt: format!("read {}", path.display()),
                source,
            })?;
            StartConfig::parse(&text).map_err(|error| Failure::Usage {
                finding: format!("{}: {error}", path.display()),
                hint: "give the file with which the server starts".to_owned(),
            })?
        }
        None if *redis_defaults || all_told => StartConfig::default(),
        None => {
            return Err(Failure::Usage {
                finding: "how the server names its dataset is not told, and a wrong name is a server that starts empty".into(),
                hint: "give --redis-conf FILE, or --redis-defaults, or all of --dbfilename, --appendonly, --appendfilename, --appenddirname".into(),
            });
        }
    };
    let mut warnings: Vec<String> = config
        .includes
        .iter()
        .map(|include| {
            format!(
                "`include {include}` was not followed: check that it sets no name of the dataset"
            )
        })
        .collect();
    if !config.modules.is_empty() {
        warnings.push(format!("modules are not looked into: {}", config.modules.join(", ")));
    }
    let overrides = Overrides {
        dbfilename: dbfilename.clone(),
        appendonly: appendonly.map(|appendonly| match appendonly {
            YesNo::Yes => true,
            YesNo::No => false,
        }),
        appendfilename: appendfilename.clone(),
        appenddirname: appenddirname.clone(),
        databases: None,
    };
    let config = config.with(overrides).map_err(|error| Failure::Usage {
        finding: error.to_string(),
        hint: "give the names as the server has them at its start".to_owned(),
    })?;
    Ok((config, warnings))
}

/// Comments may be of any encoding; a name that is not UTF-8 is refused where it is used.
fn read_config(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!("longer than {CONFIG_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A container may see its folder under another name, so this is for a person to judge.
fn other_folder(configured: &Path, data_dir: &Path) -> Option<String> {
    let is_same = match (fs::canonicalize(configured), fs::canonicalize(data_dir)) {
        (Ok(configured), Ok(data_dir)) => configured == data_dir,
        (Err(_), _) | (_, Err(_)) => configured == data_dir,
    };
    (configured.is_absolute() && !is_same).then(|| {
        format!(
            "the server starts in `dir {}` by its config: check that it is the same folder as {}",
            configured.display(),
            data_dir.display(),
        )
    })
}

/// As told, or as the one server that is installed tells itself.
async fn server(arguments: &Arguments, context: &Context) -> Result<ServerVersion, Failure> {
    if let Some(text) = &arguments.server_version {
        return text.parse().map_err(|error: compatibility::NotAServerVersion| Failure::Usage {
            finding: format!("--server-version: {error}"),
            hint: "such as 7.0.15 for Redis, valkey-8.1.1 for Valkey".to_owned(),
        });
    }
    let path = OsString::from(context.environment()("PATH").unwrap_or_default());
    let found = server_process::find(arguments.server_binary.as_deref(), &path)
        .await
        .map_err(Failure::Server)?;
    match found.as_slice() {
        [Binary { path: _, version }] => Ok(*version),
        [] => Err(Failure::Usage {
            finding: "which server will start there is not known: none is in PATH".to_owned(),
            hint: "give --server-version, such as 7.0.15 or valkey-8.1.1".to_owned(),
        }),
        several => {
            let known: Vec<String> =
                several.iter().map(|binary| binary.path.display().to_string()).collect();
            Err(Failure::Usage {
                finding: format!("several servers are installed: {}", known.join(", ")),
                hint: "choose by --server-binary or --server-version".to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_of_another_folder_is_told_and_one_of_the_same_is_not() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = other.path().join("link");
        std::os::unix::fs::symlink(one.path(), &link).unwrap();
        assert_eq!(other_folder(one.path(), one.path()), None);
        assert_eq!(other_folder(one.path(), &link), None);
        assert_eq!(other_folder(Path::new("./"), one.path()), None);
        assert!(other_folder(one.path(), other.path()).is_some());
        assert!(other_folder(Path::new("/is/not/here"), one.path()).is_some());
    }

    #[test]
    fn a_config_with_comments_of_another_encoding_is_read_and_an_endless_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redis.conf");
        fs::write(&path, b"# f\xfcr alle\ndbfilename a.rdb\n").unwrap();
        assert!(read_config(&path).unwrap().ends_with("dbfilename a.rdb\n"));
        read_config(Path::new("/dev/zero")).unwrap_err();
    }
}
