//! The arrows drawn in `src/lib.rs` and other promises about the text of this repository, held against the text itself.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Which modules at the top of the crate each of them may name, besides itself.
const ARROWS: [(&str, &[&str]); 9] = [
    ("domain", &[]),
    ("edge", &["domain"]),
    ("failure", &["domain", "edge", "settings"]),
    ("settings", &["domain", "edge", "cli"]),
    ("cli", &["domain"]),
    ("report", &["domain", "failure", "cli"]),
    ("telemetry", &["cli", "report"]),
    // The arguments are data to a flow, as the settings are.
    ("flow", &["domain", "edge", "failure", "report", "settings", "cli"]),
    ("main", &["domain", "edge", "failure", "report", "settings", "telemetry", "cli", "flow"]),
];

/// What waits, or asks the world outside. A decision does neither.
const IMPURE: [&str; 20] = [
    "async fn",
    "async move",
    ".await",
    "tokio",
    "kube::",
    "k8s_openapi",
    "aws_",
    "redis::",
    "rustix",
    "tempfile",
    "rand::",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "Timestamp::now",
    "Zoned::now",
    "SystemTime",
    "Instant",
];

#[test]
fn domain_is_pure() {
    let found = findings(&rust_files(Path::new("src/domain")), |line| {
        let code = line.split("//").next().unwrap_or_default();
        IMPURE.into_iter().find(|word| code.contains(word)).map(|word| format!("uses `{word}`"))
    });
    assert_none(&found);
}

#[test]
fn modules_name_only_those_that_their_arrows_reach() {
    let mut found = Vec::new();
    for path in rust_files(Path::new("src")) {
        let module = top_module(&path);
        if module == "lib" {
            continue;
        }
        let Some((_, reached)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            found.push(format!("{}: no arrow is drawn from `{module}`", path.display()));
            continue;
        };
        for (line, named) in modules_named(&path) {
            let is_drawn = named == module || reached.contains(&named.as_str());
            // Macros and items at the root of the crate are no modules.
            if ARROWS.iter().any(|(name, _)| *name == named) && !is_drawn {
                found.push(format!("{}:{line} `{module}` names `{named}`", path.display()));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn every_file_says_in_its_first_line_what_it_is_for() {
    let mut files = rust_files(Path::new("src"));
    files.extend(rust_files(Path::new("tests")));
    let is_silent = |path: &&PathBuf| !fs::read_to_string(path).unwrap().starts_with("//! ");
    let found: Vec<String> = files
        .iter()
        .filter(is_silent)
        .map(|path| format!("{}:1 begins without `//! `", path.display()))
        .collect();
    assert_none(&found);
}

#[test]
fn nothing_is_put_off_silenced_or_private_to_a_machine() {
    // Put together here, or this file would find itself.
    let put_off = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["todo", "!("].concat()];
    let silenced =
        [["#[ig", "nore"].concat(), ["#[al", "low("].concat(), ["#![al", "low("].concat()];
    let private = [["/wo", "rk"].concat(), ["/ro", "ot"].concat(), ["/Us", "ers"].concat()];
    let found = findings(&all_files(Path::new(".")), |line| {
        // A test that runs itself in a process of its own has no other way to keep the runner from it.
        if line.contains("it is the child of another test") {
            return None;
        }
        let words = put_off.iter().chain(&silenced).find(|word| line.contains(*word));
        let word = words.or_else(|| private.iter().find(|path| names_path(line, path)));
        word.map(|word| format!("has `{word}`"))
    });
    assert_none(&found);
}

#[test]
fn a_path_is_told_from_a_part_of_a_path() {
    assert!(names_path("cd /secret/place", "/secret"));
    assert!(names_path("\"/secret\"", "/secret"));
    assert!(!names_path("cd $folder/secret/place", "/secret"));
    assert!(!names_path("cd /secrets", "/secret"));
}

#[test]
fn modules_are_found_in_every_form_of_a_path() {
    let text = "use crate::{\n    edge::{store, redis_node},\n    failure::Failure,\n};\n\
                // crate::report\nlet a = crate::settings::load();\npub(crate) fn f() {}\n\
                use redis_backup::{cli, flow};\nuse super::super::report;\nuse super::cli;\n";
    let named: Vec<(usize, String)> = modules_in(text, 2);
    let expected =
        [(1, "edge"), (1, "failure"), (6, "settings"), (8, "cli"), (8, "flow"), (9, "report")];
    assert_eq!(named, expected.map(|(line, name)| (line, name.to_owned())));
}

fn modules_named(path: &Path) -> Vec<(usize, String)> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let depth = path.components().count() - 1 - usize::from(name == "mod");
    modules_in(&fs::read_to_string(path).unwrap(), depth)
}

/// Line and first segment of every path from the root of the crate, in the text of a module that lies `depth` below it.
fn modules_in(text: &str, depth: usize) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    let code: String = text.lines().fold(String::new(), |mut code, line| {
        writeln!(code, "{}", line.split("//").next().unwrap_or_default()).unwrap();
        code
    });
    for root in ["crate::", "redis_backup::", &"super::".repeat(depth)] {
        for (at, _) in code.match_indices(root) {
            let line = code[..at].lines().count().max(1) + usize::from(code[..at].ends_with('\n'));
            let line = if at == 0 { 1 } else { line };
            for segment in first_segments(&code[at + root.len()..]) {
                named.push((line, segment));
            }
        }
    }
    named.sort();
    named
}

/// Of `a::b` a; of `{a::b, c::{d, e}}` a and c.
fn first_segments(path: &str) -> Vec<String> {
    let name = |text: &str| {
        let end = text.find(|sign: char| !sign.is_alphanumeric() && sign != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut segments = Vec::new();
    let (mut depth, mut begins) = (1, 0);
    for (at, sign) in list.char_indices() {
        depth += match sign {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 || (depth == 1 && sign == ',') {
            segments.push(name(list[begins..at].trim_start()));
            begins = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// `edge` of `src/edge/store/mod.rs`, `cli` of `src/cli.rs`.
fn top_module(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    let first = Path::new(below.iter().next().unwrap());
    first.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Whether `path` stands in the line as a whole path or the beginning of one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let is_part = |sign: char| sign.is_alphanumeric() || "._-$}*~/".contains(sign);
        !before.is_some_and(is_part) && !after.is_some_and(|sign| is_part(sign) && sign != '/')
    })
}

/// `file:line` and what is wrong there.
fn findings(files: &[PathBuf], wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (line, number) in text.lines().zip(1..) {
            if let Some(what) = wrong(line) {
                found.push(format!("{}:{number} {what}", path.display()));
            }
        }
    }
    found
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = all_files(folder);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!files.is_empty(), "no Rust files in {}", folder.display());
    files
}

/// What belongs to the repository: not what is built, nor what git keeps for itself.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !["target", ".git"].iter().any(|name| path.ends_with(name)) {
                files.extend(all_files(&path));
            }
        } else if !path.ends_with(".git") {
            files.push(path);
        }
    }
    files.sort();
    files
}
