//! The program and its authorities where `install` put them, as a container of another image runs them.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use super::{Tool, tool::Run};
use crate::servers::{
    Version,
    dataset::fill,
    redis::Server,
    s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY},
};

#[test]
fn what_is_installed_loads_a_backup_and_trusts_whom_its_image_trusted() {
    let version = Version::usual();
    let server = Server::start(&version, &[]);
    fill(&mut server.connection(), 81, 50);
    let s3 = S3Server::start(true);
    s3.create_bucket("installed", false);
    let authorities = s3.ca_file().unwrap().display().to_string();
    let endpoint = s3.endpoint();
    let store = format!("s3://installed/p?endpoint={endpoint}&region={REGION}&pathStyle=true");
    let credentials = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    let tool =
        Tool::new(&version).with_store(&store).with_environment("SSL_CERT_FILE", &authorities);
    let tool = credentials.iter().fold(tool, |tool, (name, key)| tool.with_environment(name, key));
    tool.back_up(&server.url());

    let [program, copy] =
        ["program", "authorities.crt"].map(|name| tool.folder().join(name).display().to_string());
    let install = [program.as_str(), "--authorities", &copy];
    tool.run_anywhere("install", &[&install[..], &["--dry-run"]].concat());
    assert!(!fs::exists(&program).unwrap() && !fs::exists(&copy).unwrap());
    for replaces in [false, true] {
        let run = tool.run_anywhere("install", &install);
        assert_eq!(run.exit, Some(0), "{run:#?}");
        assert_eq!(run.report["files"][0]["replaces"], replaces, "{run:#?}");
    }
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o777, 0o555);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&authorities).unwrap());

    let verify = |trusted: &str| {
        let mut command = Command::new(&program);
        command.env_clear().envs(credentials).env("SSL_CERT_FILE", trusted);
        command.env("PATH", version.program("")).env("TMPDIR", tool.folder());
        command.args(["verify", "--latest", "--level", "load", "--output", "json"]);
        command.args(["--source-name", "journey", "--store", &store]);
        Run::of(&command.output().unwrap())
    };
    let run = verify(&copy);
    assert_eq!(run.report["backups"][0]["proven"], true, "{run:#?}");
    // As in an image that has none.
    let run = verify("/nowhere");
    assert_eq!(run.exit, Some(11), "{run:#?}");
    let error = run.report["error"].as_str().unwrap();
    assert!(error.contains("this machine trusts no authority"), "{error}");
    // Without TLS nobody need be trusted.
    let plain = S3Server::start(false);
    plain.create_bucket("plain", false);
    let store =
        format!("s3://plain/p?endpoint={}&region={REGION}&pathStyle=true", plain.endpoint());
    let tool = tool.with_environment("SSL_CERT_FILE", "/nowhere").with_store(&store);
    tool.back_up(&server.url());
}

#[test]
fn what_is_no_older_copy_is_refused_with_2_and_nothing_is_installed() {
    let tool = Tool::new(&Version::usual());
    let config = tool.folder().join("config.yaml");
    fs::write(&config, "sources: {}").unwrap();
    let program = tool.folder().join("program");
    let nowhere = tool.folder().join("nowhere/authorities.crt");
    let trusted = tool.folder().join("trusted.crt");
    fs::write(&trusted, "-----BEGIN CERTIFICATE-----").unwrap();
    let with_authorities =
        tool.clone().with_environment("SSL_CERT_FILE", trusted.to_str().unwrap());
    let flag = Path::new("--authorities");
    let run = with_authorities.run_anywhere("install", &[program.as_path(), flag, &nowhere]);
    assert_eq!(run.exit, Some(2), "{run:#?}");
    assert!(!program.exists(), "one of two was installed");
    let run = tool.run_anywhere("install", &[&config]);
    assert_eq!(run.exit, Some(2), "{run:#?}");
    let error = run.report["error"].as_str().unwrap();
    assert!(error.contains("config.yaml: another file is there"), "{error}");
    assert_eq!(fs::read(&config).unwrap(), b"sources: {}");
}
