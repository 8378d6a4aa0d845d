//! TLS with client certificates and a user that may do nothing but be followed; its password from a file or the environment.

use std::fs;

use super::{Forms, Tool, configure, into, restore_forms_and_compare, start, wipe};
use crate::servers::{
    Certificates, Version,
    cluster::ClusterGroup,
    dataset::{Digest, assert_same, fill},
    redis::Options,
};

const KEYS: usize = 500;
const PASSWORD: &str = "a-password";
const USER: &str = "resetkeys resetchannels -@all +psync +replconf +ping +info +time";

fn config(url: &str, password_from: &str, certificates: &Certificates) -> String {
    let [ca, certificate, key] =
        ["ca.crt", "client.crt", "client.key"].map(|name| certificates.file(name));
    format!(
        "sources:\n  journey:\n    nodes: ['{url}']\n    \
         auth: {{username: backup, passwordFrom: {password_from}}}\n    \
         tls: {{caFile: {}, certFile: {}, keyFile: {}}}\n",
        ca.display(),
        certificate.display(),
        key.display()
    )
}

fn a_minimal_user_suffices(name: &str, forms: Forms) {
    let version = Version::named(name);
    let certificates = Certificates::new();
    let mut server = forms
        .options(&version)
        .tls(&certificates)
        .config(format!("user backup on >{PASSWORD} {USER}"))
        .start();
    fill(&mut server.connection(), 41, KEYS);
    forms.settle(&server);
    let source = Digest::of(&mut server.connection());
    let tool = Tool::new(&version);
    let secret = tool.folder().join("password");
    let from = format!("{{file: {}}}", secret.display());
    let tool = tool.with_config(&format!(
        "{}{}",
        config(&server.url(), &from, &certificates),
        forms.directories([&server])
    ));

    fs::write(&secret, "another").unwrap();
    let said = tool.fails("backup", &[] as &[&str], 10);
    assert!(!said.contains("another"), "{said}");
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    tool.done("backup", forms.capture());
    tool.verify_by_load();
    server.kill9();
    restore_forms_and_compare(&tool, &mut server, &source, forms);
}

#[test]
fn a_minimal_user_with_mutual_tls_backs_up() {
    a_minimal_user_suffices("redis-7.0", Forms::Rdb);
}

#[test]
fn a_minimal_user_with_mutual_tls_backs_up_both_forms_of_the_newest_valkey() {
    a_minimal_user_suffices("valkey-newest", Forms::Both);
}

#[test]
fn a_minimal_user_with_mutual_tls_backs_up_a_cluster() {
    let version = Version::named("redis-8.0");
    let certificates = Certificates::new();
    let options = Options::new(&version)
        .tls(&certificates)
        .config(format!("tls-client-cert-file {}", certificates.file("client.crt").display()))
        .config(format!("tls-client-key-file {}", certificates.file("client.key").display()))
        .config(format!("user backup on >{PASSWORD} {USER} +cluster|nodes"));
    let mut cluster = ClusterGroup::of(&options);
    for primary in &cluster.primaries {
        fill(&mut primary.connection(), 42, KEYS);
    }
    let source = cluster.digest();
    let config = config(&cluster.primaries[2].url(), "{env: SECRET}", &certificates);
    let tool = Tool::new(&version).with_config(&config);
    let said = tool.fails("backup", &[] as &[&str], 2);
    assert!(said.contains("SECRET"), "{said}");
    let tool = tool.with_environment("SECRET", PASSWORD);
    tool.done("backup", &[] as &[&str]);
    tool.verify_by_load();
    assert_eq!(tool.manifest()["shards"].as_array().unwrap().len(), 3);

    // All three together are the dataset; each is loaded by a server that is no node of a Cluster.
    let primary = &mut cluster.primaries[0];
    primary.kill9();
    configure(primary, "cluster-enabled no");
    let mut restored: Option<Digest> = None;
    for shard in ["0", "1", "2"] {
        wipe(primary);
        tool.done("restore", &into(primary, &["--latest", "--shard", shard]));
        start(primary);
        let digest = Digest::portable(&mut primary.connection());
        restored = Some(match restored.take() {
            None => digest,
            Some(others) => others.with(digest),
        });
        primary.kill9();
    }
    assert_same(&source, &restored.unwrap());
}
