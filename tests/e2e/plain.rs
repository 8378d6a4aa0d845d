//! One Redis by its URL: our image backs it up from a pod of its own, lists and proves what it stored.

use crate::{installation::PLAIN, namespace::Namespace, product, s3};

const KEYS: u32 = 5000;
const KEYS_AS_TOLD: &str = "5 000";

#[test]
fn our_image_backs_a_redis_up_from_a_pod_and_proves_every_byte_of_it() {
    let namespace = Namespace::create("plain");
    let store = s3::store_of(&namespace);
    namespace.install(&PLAIN);
    namespace.fill("redis-0", KEYS);

    let run = |name, secret, arguments: &[&str]| {
        let place = ["--source-name", "plain", "--store", &store];
        product::run(&namespace, name, secret, &[arguments, &place].concat())
    };
    let source = [
        "backup",
        "--source-url",
        "redis://redis:6379",
        "--password-from",
        "file:/secret/password",
    ];
    run("backup", Some("redis-password"), &source).well();

    let listed = run("list", None, &["list", "--long"]).well();
    assert!(listed.contains("-manual-") && listed.contains(KEYS_AS_TOLD), "{listed}");
    let verified = run("verify", None, &["verify", "--latest", "--level", "content"]).well();
    assert!(verified.contains("proven"), "{verified}");
}

#[test]
fn our_image_is_the_program_of_these_sources() {
    let namespace = Namespace::create("image");
    s3::store_of(&namespace);
    for document in ["schema", "man"] {
        let in_a_pod = product::run(&namespace, document, None, &[document]).well();
        assert_eq!(
            in_a_pod,
            product::run_here(&[document]).well(),
            "{document}: `tests/cluster/build-product` builds the image"
        );
    }
}

#[test]
fn a_wrong_password_ends_the_job_with_the_exit_code_of_an_unreachable_source() {
    let namespace = Namespace::create("wrong-password");
    let store = s3::store_of(&namespace);
    namespace.install(&PLAIN);
    namespace.secret("wrong", &[("password", "not-this-one")]);

    let ended = product::run(
        &namespace,
        "backup",
        Some("wrong"),
        &[
            "backup",
            "--source-url",
            "redis://redis:6379",
            "--password-from",
            "file:/secret/password",
            "--source-name",
            "plain",
            "--store",
            &store,
        ],
    );
    assert_eq!(ended.exit, 10, "{}", ended.log);
    assert!(!ended.log.contains("not-this-one"), "{}", ended.log);
}
