//! `inspect`: a doctor for dumps.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::Context;
use crate::{
    cli::Inspect,
    domain::rdb::{self, Content, Expectations, Scanned, Scanner},
    failure::{Exit, Failure, chain},
    report::{Bar, InspectFailure, InspectReport, InspectedKeys, Outcome},
};

/// Bytes read from the file at once.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) async fn run(arguments: &Inspect, context: &Context) -> Result<Outcome, Failure> {
    let Inspect { file, slots, biggest_keys } = arguments;
    let expectations = Expectations { slots: slots.clone(), biggest_keys_max: *biggest_keys };
    let (path, progress) = (file.clone(), context.progress.clone());
    let scanned = tokio::task::spawn_blocking(move || {
        let (mut input, length) = open(&path)?;
        let bar = progress.bar("inspect", length);
        let scanned = scan(&mut *input, &expectations, &bar);
        bar.finish();
        scanned
    });
    let scanned = scanned
        .await
        .map_err(|_| Failure::Worker { attempt: "scan a file" })?
        .map_err(|source| Failure::Local { attempt: format!("read {}", file.display()), source })?;
    Ok(diagnose(file, scanned))
}

fn open(path: &Path) -> io::Result<(Box<dyn Read>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((Box::new(file), Some(length)))
}

fn scan(
    input: &mut dyn Read,
    expectations: &Expectations,
    bar: &Bar,
) -> io::Result<Result<Scanned, rdb::Error>> {
    let mut scanner = Scanner::new(expectations);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match input.read(&mut chunk) {
            Ok(0) => return Ok(scanner.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Err(error) = scanner.feed(&chunk[..count]) {
            return Ok(Err(error));
        }
        bar.add(count as u64);
    }
}

fn diagnose(file: &Path, scanned: Result<Scanned, rdb::Error>) -> Outcome {
    let mut report = InspectReport {
        kind: "inspect",
        version: 1,
        file: file.to_owned(),
        valid: false,
        error: None,
        keys: InspectedKeys::default(),
        facts: None,
        unread: None,
        private: None,
    };
    let exit = match scanned {
        Ok(Scanned { content: Content::Read(facts), private }) => {
            report.valid = true;
            report.keys.total = facts.keys();
            report.keys.databases =
                facts.databases.iter().map(|(number, database)| (*number, database.keys)).collect();
            report.facts = Some(facts);
            report.private = Some(private);
            Exit::Done
        }
        Ok(Scanned { content: Content::Unread(unread), private: _ }) => {
            report.unread = Some(unread);
            Exit::Incompatible
        }
        Err(error) => {
            report.error =
                Some(InspectFailure { message: chain(&error), offset: Some(error.offset) });
            Exit::Corrupt
        }
    };
    Outcome { report: Box::new(report), exit }
}
