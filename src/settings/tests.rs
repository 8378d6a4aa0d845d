//! Each mistake in a config file gets one clear error.

use super::*;
use crate::cli::IdentityFrom;

const GOOD: &str = "
sources:
  sessions:
    nodes: ['redis://10.0.0.5:6379']
    auth: {username: backup, passwordFrom: {env: REDIS_PASSWORD}}
    tls: {caFile: /etc/ca.crt}
    spool: {path: /var/tmp, bytesMax: 2GiB}
    compression: {codec: gzip, level: 6}
  cache:
    nodes: ['sentinel://a,b,c/mymaster']
    primary: never
stores:
  disk: {directory: {path: /backups}}
  s3: {s3: {bucket: redis-backups, prefix: prod, region: eu-west-1, serverSideEncryption: {sseKms: {keyId: k}}}}
schedules:
  daily: {source: sessions, cron: '0 2 * * *', timezone: Europe/Berlin, capture: [rdb], stores: [s3]}
";

fn parse(text: &str) -> Result<Settings, Error> {
    Settings::parse(Path::new("redis-backup.yaml"), text)
}

fn no_environment(_: &str) -> Option<String> {
    None
}

#[test]
fn a_good_config_is_read() {
    let settings = parse(GOOD).unwrap();
    let environment = |name: &str| (name == "REDIS_PASSWORD").then(|| "hunter2".to_owned());
    let source = settings.source(&"sessions".parse().unwrap(), &environment).unwrap();
    assert_eq!(source.access.username.as_deref(), Some("backup"));
    assert_eq!(source.access.password.as_ref().unwrap().expose(), "hunter2");
    assert!(source.access.tls.is_some());
    assert_eq!((source.codec, source.level), (Codec::Gzip, 6));
    assert!(matches!(&source.spool, Spool::Configured(limits) if limits.bytes_max == 2 << 30));
    assert!(!format!("{source:?}").contains("hunter2"));
    let schedule = settings.schedule(&"daily".parse().unwrap()).unwrap();
    assert_eq!(schedule.stores[0].store.as_str(), "s3");
    assert!(matches!(settings.store("s3").unwrap().kind, StoreKind::S3(_)));
    assert!(matches!(settings.store("./x").unwrap().kind, StoreKind::Directory(_)));
}

#[test]
fn limits_are_those_of_the_config_or_the_defaults() {
    let text = GOOD.replace("primary: never", "timeouts: {reply: 30s, capture: 2h}");
    let text = text.replace("/backups}", "/backups, uploadMaxPerSecond: 50MiB}");
    let settings = parse(&text.replace("bucket:", "uploadMaxPerSecond: 1 MB, bucket:")).unwrap();
    let limit = |store: &str| settings.store(store).unwrap().upload_max_per_second;
    assert_eq!((limit("disk"), limit("s3"), limit("./x")), (Some(50 << 20), Some(1_000_000), None));
    assert_eq!(limit("s3://b/p?uploadMaxPerSecond=2MiB"), Some(2 << 20));
    let source = settings.source(&"cache".parse().unwrap(), &no_environment).unwrap();
    let Timeouts { connect, reply, begin, silence, capture } = source.timeouts;
    let texts = [connect, reply, begin, silence, capture].map(|limit| limit.to_string());
    assert_eq!(texts, ["5s", "30s", "4h", "1m", "2h"]);
}

#[test]
fn a_schedule_keeps_what_it_says_unless_a_store_says_otherwise() {
    let keep = |stores: &str| {
        let text = GOOD.replace("stores: [s3]", &format!("stores: [{stores}], keep: {{last: 3}}"));
        let settings = parse(&text).unwrap();
        settings.schedule(&"daily".parse().unwrap()).unwrap().stores[0].keep.clone().unwrap()
    };
    assert_eq!(keep("s3").last, Some(3));
    let own = keep("{store: s3, keep: {within: 7d, monthly: 12}}");
    assert_eq!((own.last, own.within, own.monthly), (None, "7d".parse().ok(), Some(12)));
}

#[test]
fn a_service_listens_on_the_loopback_and_proves_what_is_stored_unless_told_otherwise() {
    let daily = |settings: &Settings| settings.schedule(&"daily".parse().unwrap()).unwrap().clone();
    let settings = parse(GOOD).unwrap();
    assert_eq!(settings.serve(), &Serve::default());
    assert!(settings.serve().listen.ip().is_loopback());
    assert_eq!(daily(&settings).verify, Some(Level::Stored));
    assert_eq!(daily(&settings).jitter, SignedDuration::ZERO);
    let more = "stores: [s3], jitter: 5m, startDeadline: 1h, verify: none";
    let serve = "\nserve: {listen: '[::]:9000', backupsAtOnce: 3}\n";
    let settings = parse(&(GOOD.replace("stores: [s3]", more) + serve)).unwrap();
    let daily = daily(&settings);
    assert_eq!((daily.jitter, daily.verify), (SignedDuration::from_mins(5), None));
    assert_eq!(daily.start_deadline, Some(SignedDuration::from_hours(1)));
    assert_eq!(settings.serve().listen, "[::]:9000".parse().unwrap());
    assert_eq!(settings.serve().backups_at_once, 3);
}

#[test]
fn a_policy_is_that_of_one_source_in_one_store() {
    let text = GOOD.replace("stores: [s3]", "stores: [s3], keep: {last: 3}");
    let settings = parse(&format!("{text}\nkeepManual: 30d\n")).unwrap();
    let policy = |source: &str, store| settings.policy(&source.parse().unwrap(), store);
    let daily = "daily".parse().unwrap();
    assert_eq!(policy("sessions", "s3").keep_manual, "30d".parse().ok());
    let rule = &policy("sessions", "s3").schedules[&daily];
    assert_eq!(rule.keep.as_ref().and_then(|keep| keep.last), Some(3));
    assert!(policy("sessions", "disk").schedules.is_empty());
    assert!(policy("others", "s3").schedules.is_empty());
}

#[test]
fn a_schedule_and_a_manual_backup_may_have_several_stores() {
    let settings = parse(&GOOD.replace("stores: [s3]", "stores: [disk, s3]")).unwrap();
    let schedule = settings.schedule(&"daily".parse().unwrap()).unwrap();
    assert_eq!(schedule.store_names(), ["disk", "s3"]);
    let names = |named: &[&str]| -> Result<Vec<String>, Error> {
        let named: Vec<String> = named.iter().map(|&name| name.to_owned()).collect();
        Ok(settings.stores_to_write(&named)?.into_iter().map(|store| store.name).collect())
    };
    assert_eq!(names(&[]).unwrap(), ["disk", "s3"]);
    assert_eq!(names(&["s3", "./x"]).unwrap(), ["s3", "./x"]);
    assert!(matches!(names(&["disk", "/backups"]), Err(Error::StoreTwice { .. })));
    assert!(matches!(names(&["./a", "./b", "./c", "./d"]), Err(Error::TooManyStores { .. })));
}

/// What is written instead of what, and what is said of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "nodes: ['redis",
        "node: ['redis",
        "redis-backup.yaml:4:5: unknown key `node`; did you mean `nodes`?",
    ),
    ("codec: gzip", "codec: gzp", "unknown value `gzp`; did you mean `gzip`?"),
    ("level: 6", "level: 12", "sources.sessions.compression.level: gzip has levels 1 to 9, not 12"),
    (
        "compression:",
        "shrinkGuard: {percentMin: 101}\n    compression:",
        "sources.sessions.shrinkGuard.percentMin: a share is 1 to 100 percent",
    ),
    ("  daily:", "  manual:", "the name `manual` is that of backups without a schedule"),
    ("0 2 * * *", "0 25 * * *", "schedules.daily.cron: cron expression \"0 25 * * *\""),
    ("Europe/Berlin", "Europe/Berlinn", "schedules.daily.timezone: time zone \"Europe/Berlinn\""),
    ("stores: [s3]", "stores: [s4]", "schedules.daily.stores: store `s4` is not in the config"),
    (
        "source: sessions",
        "source: sesions",
        "schedules.daily.source: source `sesions` is not in the config; did you mean `sessions`?",
    ),
    ("redis://10", "redis://u:hunter2@10", "must not hold a password"),
    (
        "redis://10.0.0.5:6379",
        "http://10.0.0.5",
        "sources.sessions.nodes: scheme \"http\" is not known",
    ),
    (
        "stores: [s3]",
        "stores: [s3, {store: s3}]",
        "schedules.daily.stores: store `s3` is named twice",
    ),
    (
        "stores: [s3]",
        "stores: []",
        "schedules.daily.stores: 0 stores are named; a schedule has 1 to 3",
    ),
    ("stores: [s3]", "stores: [a, b, c, d]", "schedules.daily.stores: 4 stores are named"),
    ("bytesMax: 2GiB", "bytesMax: plenty", "redis-backup.yaml:7:"),
    (
        "directory: {path",
        "directroy: {path",
        "unknown value `directroy`; did you mean `directory`?",
    ),
    ("bucket: redis-backups, ", "", "redis-backup.yaml:14:"),
    ("capture: [rdb]", "capture: rdb", "redis-backup.yaml:16:"),
    ("stores: [s3]", "stores: [{store: s3, keep: {}}]", "schedules.daily.stores: `keep` names no"),
    ("stores: [s3]", "stores: [{stor: s3}]", "unknown key `stor`; did you mean `store`?"),
    ("stores: [s3]", "stores: [s3], keep: {within: soon}", "\"soon\" is no length of time"),
    ("stores: [s3]", "stores: [s3], jitter: 5", "\"5\" is no length of time of at most a day"),
    ("stores: [s3]", "stores: [s3], startDeadline: 2d", "redis-backup.yaml:16:"),
    ("stores: [s3]", "stores: [s3], verify: all", "unknown value `all`"),
    ("stores:\n", "serve: {listen: '8080'}\nstores:\n", "serve.listen: \"8080\" is no address"),
    ("stores:\n", "serve: {backupsAtOnce: 0}\nstores:\n", "serve.backupsAtOnce: 0 backs up"),
    ("stores:\n", "stores: 5\nstore:\n", "redis-backup.yaml:12:"),
    (
        "disk: {directory: {path: /backups",
        "disk: {directory: {path: /backups, uploadMaxPerSecond: 50",
        "stores.disk.directory.uploadMaxPerSecond: less than 64KiB a second",
    ),
    (
        "bucket: redis-backups",
        "uploadMaxPerSecond: 1KiB, bucket: redis-backups",
        "stores.s3.s3.uploadMaxPerSecond: less than 64KiB a second",
    ),
    ("primary: never", "timeouts: {reply: 30}", "redis-backup.yaml:11:"),
    ("primary: never", "timeouts: {reply: soon}", "\"soon\" is no limit of time: write `30s`"),
    ("primary: never", "timeouts: {replies: 3s}", "did you mean `reply`?"),
    ("  cache:", "  Cache:", "source name \"Cache\""),
];

#[test]
fn each_mistake_is_named_with_its_place() {
    for (from, to, expected) in MISTAKES {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn recipients_are_checked_at_the_start_and_their_file_when_it_is_needed() {
    let encrypted = |encryption: &str| {
        parse(&GOOD.replace("primary: never", &format!("encryption: {encryption}")))
    };
    let finding = |encryption: &str| encrypted(encryption).unwrap_err().to_string();
    let place = "redis-backup.yaml:11:17: sources.cache.encryption: it names nobody";
    assert!(finding("{}").starts_with(place), "{}", finding("{}"));
    let said = finding("{recipients: [age1nobody]}");
    assert!(said.contains("sources.cache.encryption.recipients: recipient 1: "), "{said}");
    assert!(finding("{recipient: [x]}").contains("did you mean `recipients`?"));

    let name = "cache".parse().unwrap();
    let settings = encrypted("{recipientsFile: tests/fixtures/keys/ed25519.pub}").unwrap();
    let source = settings.source(&name, &no_environment).unwrap();
    assert_eq!(source.recipients.len(), 1);
    // A machine that only restores need not have it.
    let settings = encrypted("{recipientsFile: /is/not/there}").unwrap();
    let error = settings.source(&name, &no_environment).unwrap_err().to_string();
    assert!(error.contains("read the recipients file /is/not/there"), "{error}");
    let settings = encrypted("{recipientsFile: tests/fixtures/keys/ed25519}").unwrap();
    let error = settings.source(&name, &no_environment).unwrap_err();
    assert_eq!(error.to_string(), "tests/fixtures/keys/ed25519:1");
}

#[test]
fn an_identity_is_read_only_when_it_is_asked_for() {
    let text = format!("{GOOD}encryption: {{identityFrom: {{env: IDENTITY}}}}\n");
    let settings = parse(&text).unwrap();
    let none = IdentityFrom::default();
    let error = settings.identities(&none, &no_environment).unwrap_err();
    assert!(error.to_string().contains("encryption.identityFrom"), "{error}");
    let environment = |name: &str| {
        (name == "IDENTITY").then(|| include_str!("../../tests/fixtures/keys/x25519").to_owned())
    };
    assert!(!settings.identities(&none, &environment).unwrap().is_empty());
    assert!(parse(GOOD).unwrap().identities(&none, &environment).unwrap().is_empty());
    let flag = IdentityFrom { identity_from: vec!["AGE-SECRET-KEY-1HUNTER2".to_owned()] };
    let error = settings.identities(&flag, &environment).unwrap_err();
    assert!(matches!(error, Error::IdentityFrom), "{error}");
    assert!(!format!("{error:?}").contains("HUNTER2"), "{error:?}");
}

#[test]
fn a_missing_secret_is_named() {
    let settings = parse(GOOD).unwrap();
    let error = settings.source(&"sessions".parse().unwrap(), &no_environment).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("REDIS_PASSWORD"), "{cause}");
    assert!(error.to_string().contains("redis-backup.yaml:5:"), "{error}");
}

#[test]
fn the_password_on_argv_is_refused_and_not_repeated() {
    let flags = AdHocSource {
        source_url: vec!["redis://:hunter2@localhost".to_owned()],
        ..AdHocSource::default()
    };
    let name = "x".parse().unwrap();
    let error = Settings::default().ad_hoc_source(&flags, &name, &no_environment).unwrap_err();
    assert!(error.to_string().contains("--password-from"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_data_directory_belongs_to_one_node_and_append_only_files_need_one() {
    let with = |nodes: &str, more: &str, capture: &str| {
        format!(
            "sources:\n  a:\n    nodes: {nodes}\n{more}stores:\n  disk: {{directory: {{path: /b}}}}\n\
             schedules:\n  daily: {{source: a, cron: '@daily', capture: {capture}, stores: [disk]}}\n"
        )
    };
    let directory = "    dataDir: /data\n";
    let settings = parse(&with("['redis://h:7']", directory, "[rdb, aof]")).unwrap();
    let source = settings.source(&"a".parse().unwrap(), &no_environment).unwrap();
    assert_eq!(source.data_dirs, [(NodeAddress::new("h", 7), "/data".into())].into());
    assert_eq!(settings.forms_of(&source.name), Forms { rdb: true, aof: true });
    let several = "    dataDirs: {'h:7': /one, 'i:6379': /two}\n";
    let settings = parse(&with("['sentinel://s/m']", several, "[aof]")).unwrap();
    let source = settings.source(&"a".parse().unwrap(), &no_environment).unwrap();
    assert_eq!(source.data_dirs.len(), 2);
    for (nodes, more, capture, expected) in [
        ("['redis://h,i']", directory, "[rdb]", "sources.a.dataDir"),
        ("['sentinel://s/m']", directory, "[rdb]", "sources.a.dataDir"),
        ("['redis://h']", "    dataDir: /d\n    dataDirs: {'h:1': /d}\n", "[rdb]", "not both"),
        ("['redis://h']", "    method: bgsave\n", "[rdb]", "sources.a.method"),
        ("['redis://h']", "", "[rdb, aof]", "schedules.daily.capture"),
    ] {
        let error = parse(&with(nodes, more, capture)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_source_is_nodes_or_pods_and_what_is_wrong_with_either_has_its_line() {
    let with = |keys: &str| parse(&format!("sources:\n  a:\n{keys}"));
    let pods = "    kubernetes: {namespace: shop, statefulSet: redis}\n";
    let settings = with(pods).unwrap();
    let source = settings.source(&"a".parse().unwrap(), &no_environment).unwrap();
    assert_eq!(source.location.identities(), ["kubernetes/shop/StatefulSet/redis"]);
    for (keys, expected) in [
        ("    primary: never\n".to_owned(), "write `nodes` or `kubernetes`"),
        (format!("{pods}    nodes: ['redis://h']\n"), ":4:12: sources.a.nodes: write `nodes` or"),
        (
            format!("{pods}    dataDir: /data\n"),
            ":4:14: sources.a.dataDir: the data directories of pods",
        ),
        (
            "    kubernetes: {namespace: shop}\n".to_owned(),
            ":3:17: sources.a.kubernetes: which pods is missing",
        ),
        (
            "    kubernetes: {namespace: shop, statefulset: redis}\n".to_owned(),
            "did you mean `statefulSet`?",
        ),
        (
            "    kubernetes: {namespace: S, statefulSet: redis}\n".to_owned(),
            ":3:29: sources.a.kubernetes.namespace: \"S\" is no name",
        ),
    ] {
        let error = with(&keys).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
