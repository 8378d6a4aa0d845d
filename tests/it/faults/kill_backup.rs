//! `kill -9` of `backup` at any moment: the catalog shows whole backups or none, and what is left is swept when it is old.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    bench::{Bench, LONG_AGO, Moments, Place, SOURCE, digest},
    tally::Tally,
};

/// Of each store.
const KILLS: usize = 30;

/// Enough for two parts of an upload.
const VALUES: usize = 260;

#[test]
fn a_killed_backup_into_a_directory_is_whole_or_absent() {
    let tally = Tally::of("backup into a directory", "`kill -9` at a random moment");
    kill_again_and_again(&Bench::new(Place::directory(), VALUES), tally);
}

#[test]
fn a_killed_backup_into_s3_is_whole_or_absent() {
    let tally = Tally::of("backup into S3", "`kill -9` at a random moment");
    kill_again_and_again(&Bench::new(Place::s3(), VALUES), tally);
}

fn kill_again_and_again(bench: &Bench, mut tally: Tally) {
    let before = digest(&bench.source);
    bench.back_up();
    let took = bench.back_up_timed();
    let mut proven = BTreeSet::new();
    let mut killed = 0;
    let mut moments = Moments::new("kill -9 of backup", took);
    for index in 0..KILLS {
        let moment = moments.anywhere();
        let is_killed = moments.run_and_kill(&mut bench.backup(), moment);
        killed += usize::from(is_killed);
        let listed_before = proven.len();
        bench.assert_listed_are_whole(&mut proven);
        assert_eq!(digest(&bench.source), before, "the source changed");
        if is_killed {
            tally.add(proven.len() > listed_before);
        }
        if index % 6 == 5 {
            let backup = bench.back_up();
            bench.assert_listed_are_whole(&mut proven);
            assert!(proven.contains(&backup), "the next backup is not listed");
        }
    }
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} runs were still there to be killed");
    leftovers_are_swept_when_they_are_old(bench, &mut proven);
    tally.write();
}

fn leftovers_are_swept_when_they_are_old(bench: &Bench, proven: &mut BTreeSet<String>) {
    let (orphans, unfinished) = (bench.place.orphans(), bench.place.unfinished());
    eprintln!("{} orphans, {} unfinished uploads", orphans.len(), unfinished.len());
    assert!(!unfinished.is_empty(), "no kill hit an upload");
    // Two backups came since, and they swept nothing that is young.
    bench.back_up();
    assert_eq!((bench.place.orphans(), bench.place.unfinished()), (orphans, unfinished));

    let source = bench.place.root().join(SOURCE);
    let committed = proven.first().unwrap().clone();
    // A backup of long ago, and archives of a run of long ago that was killed before it committed.
    let orphan = LONG_AGO.replace("aaaaaa", "bbbbbb");
    for name in [LONG_AGO, &orphan] {
        copy(&source.join("archives").join(&committed), &source.join("archives").join(name));
    }
    let manifests = source.join("manifests");
    copy(&manifests.join(format!("{committed}.json")), &manifests.join(format!("{LONG_AGO}.json")));
    Place::age(&source);
    Place::age(&bench.place.unfinished_folder());
    assert!(!bench.place.orphans().is_empty());
    bench.back_up();
    let of_run = |name: &str| {
        let archives = bench.place.archives();
        archives.into_iter().filter(|key| key.contains(name)).count()
    };
    assert_eq!(of_run(&orphan), 0, "old archives stay");
    assert!(bench.place.unfinished().is_empty(), "old uploads stay");
    assert!(of_run(LONG_AGO) > 0, "archives of a committed backup were swept");
    fs::remove_file(manifests.join(format!("{LONG_AGO}.json"))).unwrap();
    bench.back_up();
    assert_eq!(of_run(LONG_AGO), 0);
    bench.assert_listed_are_whole(proven);
}

/// With the extended attributes in which the S3 server keeps what it knows of an object.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}
