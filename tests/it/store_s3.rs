//! S3 on a real server: the contract, over lines that break, with credentials and certificates that are wrong.

use std::{fs, sync::Arc, time::Duration};

use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use redis_backup::{
    edge::store::{Checksums, Encryption, Error, PART_BYTES, Part, S3, S3Settings, Store},
    failure::chain,
};
use tokio::sync::Semaphore;

use crate::{
    servers::s3::{ACCESS_KEY, S3Server, SECRET_KEY},
    store_contract::{Traits, contract, digests, forget_all, get, key, noise, put, write_all},
    tcp_proxy::{Fault, TcpProxy},
};

pub(crate) const BUCKET: &str = "backups";

pub(crate) fn settings(endpoint: String) -> S3Settings {
    S3Settings {
        prefix: "some/prefix".to_owned(),
        endpoint: Some(endpoint),
        force_path_style: true,
        run: "run-1".to_owned(),
        attempts_max: 4,
        backoff_max: Duration::from_millis(50),
        ..S3Settings::new(BUCKET)
    }
}

pub(crate) async fn open(settings: S3Settings) -> S3 {
    open_as(settings, ACCESS_KEY, SECRET_KEY).await
}

async fn open_as(settings: S3Settings, access_key: &str, secret_key: &str) -> S3 {
    let credentials = Credentials::new(access_key, secret_key, None, None, "tests");
    let credentials = SharedCredentialsProvider::new(credentials);
    S3::connect_as(settings, Some(credentials)).await.unwrap()
}

async fn behind_proxy() -> (S3Server, TcpProxy, S3) {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let proxy = TcpProxy::start(server.port).await;
    let store = open(settings(proxy.endpoint())).await;
    (server, proxy, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_with_and_without_versions_over_tls() {
    let server = S3Server::start(true);
    for versions in [false, true] {
        let bucket = if versions { "versioned" } else { "plain" };
        server.create_bucket(bucket, versions);
        let store = open(S3Settings {
            bucket: bucket.to_owned(),
            ca_file: server.ca_file(),
            ..settings(server.endpoint())
        });
        contract(&store.await, Traits { versions, checksums: true }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_without_checksums_and_without_a_prefix() {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let store = open(S3Settings {
        prefix: String::new(),
        checksums: Checksums::WhenRequired,
        ..settings(server.endpoint())
    });
    contract(&store.await, Traits { versions: false, checksums: false }).await;
}

#[tokio::test]
async fn a_store_sees_nothing_beside_its_prefix() {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let store = async |prefix: &str| {
        open(S3Settings { prefix: prefix.to_owned(), ..settings(server.endpoint()) }).await
    };
    let (inner, outer, beside) =
        (store("/p/inner/").await, store("p").await, store("p/inner2").await);
    let object = key("s/object");
    for one in [&inner, &outer, &beside] {
        one.create(&object, Bytes::from(one.address())).await.unwrap();
        drop(put_half(one).await);
    }
    assert_eq!(inner.address(), format!("s3://{BUCKET}/p/inner"));
    assert_eq!(inner.list("").await.unwrap().len(), 1);
    assert_eq!(inner.unfinished("").await.unwrap().len(), 1);
    assert_eq!(outer.list("s/").await.unwrap().len(), 1);
    assert_eq!(outer.list("").await.unwrap().len(), 3);
    assert_eq!(&inner.read(&object, 99).await.unwrap()[..], inner.address().as_bytes());
}

async fn put_half(store: &S3) -> Box<dyn redis_backup::edge::store::Upload> {
    let mut upload = store.upload(&key("s/half")).await.unwrap();
    write_all(&mut *upload, &noise(PART_BYTES)).await.unwrap();
    upload
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_transient_is_tried_again() {
    for status in [500, 502, 503, 429] {
        let (_server, proxy, store) = behind_proxy().await;
        let body = noise(2 * PART_BYTES + 1);
        for line_part in ["uploads", "partNumber=2", "uploadId=", "GET", "HEAD", "list-type"] {
            proxy.add(line_part, 2, Fault::Answer(status));
        }
        let object = key("s/object");
        put(&store, &object, &body).await.unwrap();
        assert!(get(&store, &object, None).await.unwrap() == body, "{status}");
        assert_eq!(store.attributes(&object, None).await.unwrap().bytes, body.len() as u64);
        assert_eq!(store.list("").await.unwrap().len(), 1);
        assert_eq!(proxy.count("HEAD"), 3, "two refused, one answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_broken_is_unavailable_after_the_last_attempt() {
    let (_server, proxy, store) = behind_proxy().await;
    proxy.add("", usize::MAX, Fault::Answer(503));
    let object = key("s/object");
    let errors = [
        put(&store, &object, &noise(9)).await.unwrap_err(),
        put(&store, &object, &noise(PART_BYTES)).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.clock().await.unwrap_err(),
    ];
    for error in errors {
        let text = chain(&error);
        assert!(matches!(error, Error::Unavailable { .. }), "{text}");
        assert!(text.contains(BUCKET) && text.contains("503"), "{text}");
    }
    assert_eq!(proxy.heads().len(), 4 * 4);
    proxy.heal();
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_breaking_line_arrives_whole() {
    let (_server, proxy, store) = behind_proxy().await;
    let body = noise(4 * PART_BYTES + 5);
    proxy.add("partNumber=1", 1, Fault::CutRequest(3 << 20));
    proxy.add("partNumber=2", 2, Fault::CutRequest(0));
    proxy.add("partNumber=3", 1, Fault::LoseReply);
    proxy.add("partNumber=4", 1, Fault::Slow);
    let object = key("s/object");
    put(&store, &object, &body).await.unwrap();
    assert!(get(&store, &object, None).await.unwrap() == body);
    assert_eq!(proxy.count("partNumber=2"), 3);
    assert_eq!(store.unfinished("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_a_success_if_the_object_is_ours() {
    let (_server, proxy, store) = behind_proxy().await;
    for length in [0, 77] {
        let (object, body) = (key(&format!("s/{length}")), noise(length));
        let looks = proxy.count("HEAD");
        proxy.add("PUT", 1, Fault::LoseReply);
        put(&store, &object, &body).await.unwrap();
        assert_eq!(proxy.count("HEAD"), looks + 1, "it looked whose the object is");
        assert!(get(&store, &object, None).await.unwrap() == body, "{length}");
        let again = put(&store, &object, &body).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{length}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_does_not_hide_that_somebody_else_was_faster() {
    let (server, proxy, store) = behind_proxy().await;
    let (object, body) = (key("s/object"), noise(77));
    open(settings(server.endpoint())).await.create(&object, body.clone()).await.unwrap();
    proxy.add("PUT", 1, Fault::LoseReply);
    let second = store.create(&object, body).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lost_reply_to_a_completion_is_found_out() {
    let (_server, proxy, store) = behind_proxy().await;
    let (object, body) = (key("s/object"), noise(2 * PART_BYTES));
    let mut upload = store.upload(&object).await.unwrap();
    write_all(&mut *upload, &body).await.unwrap();
    proxy.add("POST", 1, Fault::LoseReply);
    upload.finish(digests(&body)).await.unwrap();
    assert!(proxy.count("uploadId=") >= 4, "two parts and two completions");
    assert!(get(&store, &object, None).await.unwrap() == body);
    assert_eq!(store.unfinished("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_somebody_aborted_is_an_error_and_no_object() {
    let (_server, _proxy, store) = behind_proxy().await;
    let mut upload = store.upload(&key("s/object")).await.unwrap();
    let body = noise(2 * PART_BYTES);
    write_all(&mut *upload, &body).await.unwrap();
    for unfinished in store.unfinished("").await.unwrap() {
        store.forget(&unfinished).await.unwrap();
    }
    assert!(upload.finish(digests(&body)).await.is_err());
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.unfinished("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_the_line_broke() {
    let (_server, proxy, store) = behind_proxy().await;
    let (object, body) = (key("s/object"), noise(3 * PART_BYTES + 11));
    put(&store, &object, &body).await.unwrap();
    for cut in [300, 5000, 1 << 20, PART_BYTES, 3 * PART_BYTES] {
        proxy.add("GET", 3, Fault::CutReply(cut));
        assert!(get(&store, &object, None).await.unwrap() == body, "cut after {cut} bytes");
        proxy.heal();
    }
    let ranges = proxy.heads().iter().filter(|head| head.contains("range: bytes=")).count();
    assert!(ranges >= 10, "{ranges} resumes");

    proxy.add("GET", usize::MAX, Fault::CutReply(40_000));
    let error = get(&store, &object, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_stands_still_goes_on_too() {
    let (_server, proxy, _) = behind_proxy().await;
    let store =
        open(S3Settings { stall_timeout: Duration::from_secs(1), ..settings(proxy.endpoint()) });
    let (store, object, body) = (store.await, key("s/object"), noise(PART_BYTES));
    put(&store, &object, &body).await.unwrap();
    proxy.add("GET", 1, Fault::StallReply(1 << 20));
    assert!(get(&store, &object, None).await.unwrap() == body);
    assert_eq!(proxy.count("GET"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_while_it_is_read_is_told() {
    let (server, proxy, store) = behind_proxy().await;
    let object = key("s/object");
    put(&store, &object, &noise(PART_BYTES)).await.unwrap();
    proxy.add("GET", 1, Fault::CutReply(1 << 20));
    let mut download = store.download(&object, None).await.unwrap();
    let path = "some/prefix/s/object";
    let replace = server.client().put_object().bucket(BUCKET).key(path);
    replace.body(vec![7; PART_BYTES].into()).send().await.unwrap();
    let error = loop {
        match download.next().await {
            Ok(piece) => assert!(piece.is_some(), "the end came without an error"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_in_mid_upload_leaves_nothing_but_a_leftover() {
    let mut server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let impatient = S3Settings {
        attempts_max: 2,
        response_timeout: Duration::from_secs(2),
        ..settings(server.endpoint())
    };
    let store = open(impatient).await;
    let (object, body) = (key("s/object"), noise(3 * PART_BYTES));

    let mut upload = put_half(&store).await;
    server.stop();
    let rest = write_all(&mut *upload, &body).await.err();
    let error = match rest {
        Some(error) => error,
        None => upload.finish(digests(&body)).await.unwrap_err(),
    };
    assert!(matches!(error, Error::Corrupt { .. } | Error::Unavailable { .. }), "{error:?}");
    let error = put(&store, &object, &body).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    server.start_again();
    assert_eq!(store.list("").await.unwrap(), []);
    forget_all(&store).await;

    server.freeze();
    let error = store.create(&object, Bytes::from_static(b"body")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    server.thaw();
    store.list("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_give_their_budget_back() {
    let (_server, proxy, store) = behind_proxy().await;
    proxy.add("partNumber", usize::MAX, Fault::Slow);
    let budget = Arc::new(Semaphore::new(4));
    let body = noise(PART_BYTES);
    let whole: Bytes = body.repeat(6).into();
    let mut upload = store.upload(&key("s/object")).await.unwrap();
    for _ in 0..6 {
        let permit = || Arc::clone(&budget).acquire_owned();
        let share = [permit().await.unwrap(), permit().await.unwrap()];
        upload.write(Part { body: body.clone(), budget: Some(share) }).await.unwrap();
    }
    upload.finish(digests(&whole)).await.unwrap();
    assert_eq!(budget.available_permits(), 4);
    assert!(get(&store, &key("s/object"), None).await.unwrap() == whole);
}

#[tokio::test]
async fn what_is_configured_is_asked_for() {
    let (_server, proxy, _) = behind_proxy().await;
    let store = open(S3Settings {
        storage_class: Some("STANDARD_IA".to_owned()),
        encryption: Some(Encryption::SseKms { key_id: Some("key-7".to_owned()) }),
        ..settings(proxy.endpoint())
    });
    let store = store.await;
    put(&store, &key("s/small"), &noise(9)).await.unwrap();
    put(&store, &key("s/large"), &noise(PART_BYTES)).await.unwrap();
    let heads = proxy.heads();
    for begins in ["PUT /backups/some/prefix/s/small", "POST /backups/some/prefix/s/large?uploads"]
    {
        let head = heads.iter().find(|head| head.starts_with(begins)).unwrap();
        for header in [
            "x-amz-storage-class: STANDARD_IA",
            "x-amz-server-side-encryption: aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id: key-7",
            "x-amz-meta-redis-backup-run: run-1",
        ] {
            assert!(head.contains(header), "{header} is missing: {head}");
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_without_the_secret() {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let secret = "a-very-wrong-secret";
    for access_key in [ACCESS_KEY, "somebody-else"] {
        let store = open_as(settings(server.endpoint()), access_key, secret).await;
        let errors = [
            store.list("").await.unwrap_err(),
            put(&store, &key("s/object"), &noise(9)).await.unwrap_err(),
            store.read(&key("s/object"), 9).await.unwrap_err(),
        ];
        for error in errors {
            let text = format!("{} {error:?} {store:?}", chain(&error));
            assert!(matches!(error, Error::Denied { .. }), "{text}");
            assert!(text.contains(BUCKET) && !text.contains(secret), "{text}");
            assert!(text.contains("key or its secret is wrong"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_told_by_name() {
    let server = S3Server::start(false);
    let store = open(settings(server.endpoint())).await;
    let error = store.list("").await.unwrap_err();
    let text = chain(&error);
    assert!(matches!(error, Error::Permanent { .. }), "{text}");
    assert!(text.contains(BUCKET) && text.contains("NoSuchBucket"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_told_with_the_fix() {
    let (server, stranger) = (S3Server::start(true), S3Server::start(true));
    for ca_file in [None, stranger.ca_file()] {
        let store = open(S3Settings { ca_file, ..settings(server.endpoint()) }).await;
        let error = store.list("").await.unwrap_err();
        let text = chain(&error);
        assert!(matches!(error, Error::Permanent { .. }), "{text}");
        assert!(text.contains("caFile"), "{text}");
    }
}

#[tokio::test]
async fn a_wrong_certificate_file_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for content in ["", "no certificate", broken] {
        fs::write(&file, content).unwrap();
        let settings =
            S3Settings { ca_file: Some(file.clone()), ..settings("https://127.0.0.1:1".into()) };
        let error = S3::connect(settings).await.unwrap_err();
        assert!(chain(&error).contains("ca.crt"), "{content:?}: {}", chain(&error));
    }
}

#[test]
fn credentials_come_from_the_usual_places() {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let home = tempfile::tempdir().unwrap();
    let profile = home.path().join("credentials");
    let content =
        format!("[ours]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    fs::write(&profile, content).unwrap();
    let program = home.path().join("program");
    let json = format!(
        r#"{{"Version": 1, "AccessKeyId": "{ACCESS_KEY}", "SecretAccessKey": "{SECRET_KEY}"}}"#
    );
    fs::write(&program, json).unwrap();
    let config = home.path().join("config");
    let process = format!("[profile asked]\ncredential_process = cat {}\n", program.display());
    fs::write(&config, process).unwrap();

    // A process of its own, for the environment belongs to a whole process.
    let store = format!("s3://{BUCKET}?region=us-east-1&endpoint={}", server.endpoint());
    let child = |variables: &[(&str, &str)]| {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_redis-backup"));
        child.args(["list", "--store", &store]).env_clear().env("HOME", home.path());
        child.env("AWS_EC2_METADATA_DISABLED", "true");
        let output = child.envs(variables.iter().copied()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let (profile, config) = (profile.to_str().unwrap(), config.to_str().unwrap());
    for variables in [
        vec![("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)],
        vec![("AWS_SHARED_CREDENTIALS_FILE", profile), ("AWS_PROFILE", "ours")],
        vec![("AWS_CONFIG_FILE", config), ("AWS_PROFILE", "asked"), ("PATH", "/usr/bin:/bin")],
    ] {
        let output = child(&variables);
        assert!(output.contains("no backup"), "{variables:?}: {output}");
    }
    let output = child(&[]);
    assert!(output.contains("denied") && output.contains("AWS_ACCESS_KEY_ID"), "{output}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let store = open(settings("http://127.0.0.1:1".to_owned())).await;
    let error = store.list("").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{}", chain(&error));
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answered_is_given_up_soon_and_one_that_did_is_not() {
    let mut server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let proxy = TcpProxy::start(server.port).await;
    let impatient = S3Settings { reach_patience: Duration::ZERO, ..settings(proxy.endpoint()) };
    let store = open(impatient).await;
    for (answered, tries) in [(false, 1), (true, 4)] {
        if answered {
            server.start_again();
            store.list("").await.unwrap();
        }
        server.stop();
        let before = proxy.heads().len();
        let error = store.list("").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(proxy.heads().len() - before, tries, "answered: {answered}");
    }
}
