//! What the documents promise, held against the program.

use std::{collections::BTreeMap, fs, path::Path};

use redis_backup::{failure::Exit, settings::Settings};
use serde_json::Value;

use super::{program, run};

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let text = fs::read_to_string("docs/RUNBOOK.md").unwrap();
    let (_, section) = text.split_once("## Exit codes").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let documented: BTreeMap<u8, String> = section
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        })
        .collect();
    let known: BTreeMap<u8, String> =
        Exit::ALL.into_iter().map(|exit| (exit as u8, format!("{exit:?}"))).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_config_of_the_readme_is_good_and_the_schema_knows_all_of_its_keys() {
    let text = fs::read_to_string("README.md").unwrap();
    let (_, example) = text.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let settings = Settings::parse(Path::new("README.md"), example).unwrap();
    assert_eq!(settings.source_names().len(), 2);
    assert_eq!(settings.schedules().count(), 1);

    let schema = run(program().arg("schema"));
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    let names: Vec<&str> = schema.as_object().unwrap()["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected =
        ["encryption", "keepManual", "retention", "schedules", "serve", "sources", "stores"];
    assert_eq!(names, expected);
    let schema = schema.to_string();
    for key in
        ["nodes", "passwordFrom", "caFile", "primary", "spool", "bytesMax", "codec", "cron", "keep"]
    {
        assert!(example.contains(key) && schema.contains(&format!("\"{key}\"")), "{key}");
    }
}

#[test]
fn the_documents_link_to_what_is_there() {
    let mut files = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let documents = entries.filter(|path| path.extension().is_some_and(|it| it == "md"));
        files.extend(documents.map(|path| path.to_str().unwrap().to_owned()));
    }
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let folder = Path::new(&file).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone().into() } else { folder.join(path) };
            assert!(target.exists(), "{file} links to {link}");
            if !heading.is_empty() {
                let headings = fs::read_to_string(&target).unwrap();
                let is_there = headings.lines().filter(|line| line.starts_with('#')).any(|line| {
                    line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == heading
                });
                assert!(is_there, "{file} links to {link}");
            }
        }
    }
}
