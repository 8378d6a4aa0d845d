//! What keeps two installations and two runs apart: the origin of a prefix, and a lock of the host.

use std::fs;

use super::bench::{Bench, Place, digest, files, run};
use crate::servers::{Version, redis::Server};

#[test]
fn a_prefix_of_another_installation_is_refused_until_it_is_adopted() {
    for place in [Place::directory(), Place::s3()] {
        let mut bench = Bench::new(place, 1);
        bench.back_up();
        let before = bench.listed();
        bench.source = Server::start(&Version::usual(), &[]);
        let () = bench.source.command("SET another installation");
        let refused = run(&mut bench.backup());
        refused.assert_code(2);
        let report = refused.json();
        assert!(report["error"].as_str().unwrap().contains("another installation"), "{report}");
        assert!(report["hint"].as_str().unwrap().contains("--adopt"), "{report}");
        assert_eq!(bench.listed(), before);
        bench.assert_nothing_remains();
        run(bench.backup().arg("--adopt")).assert_code(0);
        // Once is enough.
        bench.back_up();
        assert_eq!(bench.listed().len(), before.len() + 2);
        run(&mut bench.verb("verify --all")).assert_code(0);
    }
}

/// The nodes of a Cluster are replaced over the years, some between two backups: in the end none is left of the first.
#[test]
fn an_installation_that_changed_bit_by_bit_is_known_by_its_last_backup() {
    let bench = Bench::new(Place::directory(), 1);
    bench.back_up();
    let forget = |name: &str| {
        let all = files(&bench.place.root());
        for file in all.iter().filter(|file| file.display().to_string().contains(name)) {
            let text = fs::read_to_string(file).unwrap();
            let other = text.replace("127.0.0.1:", "10.255.255.1:");
            assert_ne!(text, other, "{text}");
            fs::write(file, other).unwrap();
        }
    };
    forget("origin.json");
    bench.back_up();
    forget("/manifests/");
    run(&mut bench.backup()).assert_code(2);
}

#[test]
fn of_two_backups_at_once_on_one_host_the_second_is_told_so() {
    let bench = Bench::new(Place::s3(), 200);
    let before = digest(&bench.source);
    let Place::S3(_) = &bench.place else { panic!("S3") };
    let mut runs: Vec<_> = (0..4)
        .map(|_| {
            let mut backup = bench.backup();
            backup.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            backup.spawn().unwrap()
        })
        .collect();
    let ended: Vec<_> = runs.drain(..).map(super::signals::ended).collect();
    let codes: Vec<_> = ended.iter().map(|ended| ended.code).collect();
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert!(codes.contains(&Some(13)), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 13))), "{ended:?}");
    assert_eq!(bench.listed().len(), codes.iter().filter(|code| **code == Some(0)).count());
    bench.assert_nothing_remains();
    assert_eq!(digest(&bench.source), before);
    bench.back_up();
}
