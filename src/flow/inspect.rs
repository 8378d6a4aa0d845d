//! `inspect`: a doctor for dumps and append-only files.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::Context;
use crate::{
    cli::Inspect,
    domain::{
        aof::{
            self, Fault,
            list::{self, FileList},
        },
        rdb::{self, Content, Expectations},
    },
    failure::{Exit, Failure, chain},
    report::{
        Bar, InspectFailure, InspectReport, InspectedAof, InspectedAofFile, InspectedKeys, Outcome,
    },
};

/// Bytes read from the file at once.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) async fn run(arguments: &Inspect, context: &Context) -> Result<Outcome, Failure> {
    let Inspect { file, slots, biggest_keys } = arguments;
    let expectations = Expectations { slots: slots.clone(), biggest_keys_max: *biggest_keys };
    let (path, progress) = (file.clone(), context.progress.clone());
    let found = tokio::task::spawn_blocking(move || {
        let bar = progress.bar("inspect", length(&path));
        let found = look(&path, &expectations, &bar);
        bar.finish();
        found
    });
    let found = found.await.map_err(|_| Failure::Worker { attempt: "scan a file" })??;
    Ok(diagnose(file, found))
}

enum Found {
    Rdb(rdb::Scanned),
    Aof { list: Option<PathBuf>, files: Vec<InspectedAofFile>, private: rdb::Private },
    Broken(InspectFailure),
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len())
}

fn look(path: &Path, expectations: &Expectations, bar: &Bar) -> Result<Found, Failure> {
    if let Some(list) = list_of(path)? {
        return look_at_set(&list, expectations, bar);
    }
    Ok(match scan(path, expectations, bar)? {
        Ok(scanned) => single(path, scanned),
        Err(error) => Found::Broken(InspectFailure {
            offset: Some(error.offset),
            message: match &error.fault {
                Fault::Preamble(error) => chain(error),
                Fault::NoCommand(_)
                | Fault::NoArgument(_)
                | Fault::Number
                | Fault::Empty
                | Fault::TooLong { .. }
                | Fault::ArgumentEnd
                | Fault::Annotation { .. }
                | Fault::Database
                | Fault::TooManyDatabases { .. } => chain(&error),
            },
        }),
    })
}

/// The list of an append-only set, if the path is one or is the folder of one.
fn list_of(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let is_list = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().ends_with(list::EXTENSION.as_bytes()))
    };
    if !path.is_dir() {
        return Ok(is_list(path).then(|| path.to_owned()));
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|source| local(path, source))?;
    let mut lists = entries.iter().map(fs::DirEntry::path).filter(|path| is_list(path));
    match (lists.next(), lists.next()) {
        (Some(list), None) => Ok(Some(list)),
        (found, _) => Err(Failure::Usage {
            finding: format!(
                "{} holds {} list of append-only files",
                path.display(),
                if found.is_some() { "more than one" } else { "no" },
            ),
            hint: "name one file: an RDB, an append-only file, or the .manifest of a set"
                .to_owned(),
        }),
    }
}

/// Every file of the set, in the order in which a server loads them, up to the first that is broken.
fn look_at_set(path: &Path, expectations: &Expectations, bar: &Bar) -> Result<Found, Failure> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(list::BYTES_MAX as u64 + 1).read_to_end(&mut text))
        .map_err(|source| local(path, source))?;
    let broken = |message| Ok(Found::Broken(InspectFailure { message, offset: None }));
    let list = match FileList::parse(&text) {
        Ok(list) => list,
        Err(error) => return broken(chain(&error)),
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let end = list.load_order().last().map(|file| file.name.clone());
    let (mut files, mut private) = (Vec::new(), None);
    for file in list.load_order() {
        let at = folder.join(&file.name);
        if !at.exists() {
            return broken(format!("{} is missing", file.name));
        }
        let scanned = match scan(&at, expectations, bar)? {
            Ok(scanned) => scanned,
            Err(error) => {
                return Ok(Found::Broken(InspectFailure {
                    message: format!("{}: {}", file.name, chain(&error)),
                    offset: Some(error.offset),
                }));
            }
        };
        let aof::Scanned { facts, private: of_file } = scanned;
        if facts.tail_bytes() > 0 && Some(&file.name) != end.as_ref() {
            return Ok(Found::Broken(InspectFailure {
                message: format!(
                    "{}: a command is cut short, which servers take in the last file only",
                    file.name
                ),
                offset: Some(facts.whole_bytes),
            }));
        }
        private.get_or_insert(of_file);
        files.push(InspectedAofFile { name: file.name.clone(), role: file.role.into(), facts });
    }
    let private = private.unwrap_or_default();
    Ok(Found::Aof { list: Some(path.to_owned()), files, private })
}

/// An RDB is what begins as one and holds nothing else.
fn single(path: &Path, scanned: aof::Scanned) -> Found {
    let aof::Scanned { facts, private } = scanned;
    match &facts.preamble {
        Some(content) if content.bytes() == facts.bytes => {
            Found::Rdb(rdb::Scanned { content: content.clone(), private })
        }
        None if facts.bytes == 0 => Found::Broken(InspectFailure {
            message: "the file is empty".to_owned(),
            offset: Some(0),
        }),
        Some(_) | None => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let role = list::Role::Base.into();
            let files = vec![InspectedAofFile { name, role, facts }];
            Found::Aof { list: None, files, private }
        }
    }
}

fn scan(
    path: &Path,
    expectations: &Expectations,
    bar: &Bar,
) -> Result<Result<aof::Scanned, aof::Error>, Failure> {
    let failed = |source| local(path, source);
    let mut input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut scanner = aof::Scanner::new(expectations);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match input.read(&mut chunk) {
            Ok(0) => return Ok(scanner.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        if let Err(error) = scanner.feed(&chunk[..count]) {
            return Ok(Err(error));
        }
        bar.add(count as u64);
    }
}

fn local(path: &Path, source: io::Error) -> Failure {
    Failure::Local { attempt: format!("read {}", path.display()), source }
}

fn diagnose(file: &Path, found: Found) -> Outcome {
    let mut report = InspectReport {
        kind: "inspect",
        version: 1,
        file: file.to_owned(),
        valid: false,
        error: None,
        keys: Some(InspectedKeys::default()),
        facts: None,
        unread: None,
        aof: None,
        private: None,
    };
    let exit = match found {
        Found::Rdb(rdb::Scanned { content: Content::Read(facts), private }) => {
            report.valid = true;
            report.keys = Some(InspectedKeys {
                total: facts.keys(),
                databases: facts
                    .databases
                    .iter()
                    .map(|(number, database)| (*number, database.keys))
                    .collect(),
            });
            report.facts = Some(facts);
            report.private = Some(private);
            Exit::Done
        }
        Found::Rdb(rdb::Scanned { content: Content::Unread(unread), private: _ }) => {
            report.unread = Some(unread);
            Exit::Incompatible
        }
        Found::Aof { list, files, private } => {
            report.valid = true;
            report.keys = None;
            report.aof = Some(InspectedAof { list, files });
            report.private = Some(private);
            Exit::Done
        }
        Found::Broken(error) => {
            report.error = Some(error);
            Exit::Corrupt
        }
    };
    Outcome { report: Box::new(report), exit }
}
