//! Backups in S3, with TLS of a private authority, with and without versions, in several parts.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Tool, restore_and_compare};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
    s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY},
};

const KEYS: usize = 400;
const INCOMPRESSIBLE: usize = 33;

fn fill_big(server: &Server) -> Digest {
    let mut connection = server.connection();
    fill(&mut connection, 51, KEYS);
    let mut random = StdRng::seed_from_u64(51);
    for number in 0..INCOMPRESSIBLE {
        let mut value = vec![0_u8; 1 << 20];
        random.fill(&mut value[..]);
        let mut set = redis::cmd("SET");
        let () = set.arg(format!("big:{number}")).arg(value).query(&mut connection).unwrap();
    }
    Digest::of(&mut connection)
}

#[test]
fn a_backup_of_several_parts_comes_back_from_s3() {
    let version = Version::named("valkey-8.1");
    let mut server = Server::start(&version, &[]);
    let source = fill_big(&server);
    let s3 = S3Server::start(true);
    let ca_file = s3.ca_file().unwrap();
    let tool = Tool::new(&version)
        .with_environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .with_environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    for is_versioned in [false, true] {
        let bucket = if is_versioned { "versioned" } else { "unversioned" };
        s3.create_bucket(bucket, is_versioned);
        let tool = tool.clone().with_store(&format!(
            "s3://{bucket}/some/prefix?endpoint={}&region={REGION}&pathStyle=true&caFile={}",
            s3.endpoint(),
            ca_file.display()
        ));
        let report = tool.back_up(&server.url());
        assert!(report["storedBytes"].as_u64().unwrap() > 32 << 20, "{report:#}");
        let object = &tool.manifest()["shards"][0]["archives"][0]["objects"][0];
        assert_eq!(object["versionId"].is_string(), is_versioned, "{object:#}");
        assert_eq!(tool.backups().len(), 1);
        tool.done("verify", &["--latest", "--level", "stored"]);
        if is_versioned {
            tool.verify_by_load();
            server.kill9();
            restore_and_compare(&tool, &mut server, &source);
        } else {
            tool.done("verify", &["--latest"]);
        }
    }
}
