//! One thing that fails beside others that do not: the others are backed up, listed, verified and restored all the same.

use std::fs;

use super::bench::{Bench, Ended, Place, run};

/// A config with a source that has no password to read, and a store that is none.
fn configured(bench: &Bench, line: &str) -> Ended {
    let config = bench.folder.path().join("config.yaml");
    let (url, root) = (bench.source.url(), bench.place.root());
    let file = bench.folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let text = format!(
        "sources:\n  aaa:\n    nodes: [\"{url}\"]\n    auth: {{passwordFrom: {{env: NOBODY_SET_IT}}}}\n  \
         one:\n    nodes: [\"{url}\"]\n\
         stores:\n  away: {{directory: {{path: {}}}}}\n  \
         disk: {{directory: {{path: {}}}}}\n",
        file.display(),
        root.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = bench.program();
    run(command.args(line.split(' ')).arg("--config").arg(config))
}

#[test]
fn a_source_without_its_password_keeps_no_other_from_its_backup() {
    let bench = Bench::new(Place::directory(), 1);
    let ended = configured(&bench, "backup --store disk --output json");
    ended.assert_code(2);
    let report = ended.json();
    assert_eq!(report["backups"][0]["source"], "one", "{report}");
    assert_eq!(report["failures"][0]["source"], "aaa", "{report}");
    assert_eq!(report["failures"][0]["exit"], 2, "{report}");
    assert!(report["failures"][0]["error"].as_str().unwrap().contains("NOBODY_SET_IT"), "{report}");
}

#[test]
fn a_store_that_does_not_answer_hides_nothing_of_another() {
    let bench = Bench::new(Place::directory(), 1);
    configured(&bench, "backup one --store disk").assert_code(0);
    let ended = configured(&bench, "list --output json");
    ended.assert_code(14);
    assert_eq!(ended.json()["backups"].as_array().unwrap().len(), 1);
    configured(&bench, "show --latest").assert_code(0);
    let missing = configured(&bench, "show 20200101T000000Z-manual-aaaaaa");
    missing.assert_code(11);
}

#[test]
fn the_newest_backup_is_not_restored_after_its_proof_failed() {
    let bench = Bench::new(Place::directory(), 1);
    let (one, other) = (bench.back_up(), bench.back_up());
    // Of one second, chance decides which is the newer.
    let (older, newer) = if one < other { (one, other) } else { (other, one) };
    let archives = bench.place.archives();
    let damaged = archives.iter().find(|key| key.contains(&newer) && key.contains("dump")).unwrap();
    let path = bench.place.root().join(damaged);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    run(&mut bench.verb("verify --latest")).assert_code(20);

    let data = bench.folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let line = format!(
        "restore --latest --output json --redis-defaults --server-version 7.0.15 --data-dir {}",
        data.display()
    );
    let ended = run(&mut bench.verb(&line));
    ended.assert_code(0);
    assert_eq!(ended.json()["backup"], older, "{ended:?}");
    run(&mut bench.verb("verify --all --level stored")).assert_code(0);
    run(&mut bench.verb("verify --all")).assert_code(20);
}
