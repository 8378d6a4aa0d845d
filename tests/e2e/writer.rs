//! A pod that writes through the service of an installation until it is stopped, as its clients do.

use serde_json::{Value, json};

use crate::{installation::Password, namespace::Namespace};

/// Counters and lists that grow together, in one script each time; some are of each shard.
pub const TAGS: u32 = 16;

/// What expires does so in a moment, or in the year 2100 at a whole multiple of ten seconds: Redis 6.2 tells only roughly
/// when. `dial` is a shell function that sends commands to whoever is the primary. In the words of awk, `i` is the round.
const SCRIPT: &str = r#"
n=0
while true; do
  awk -v n=$n 'BEGIN {
    for (i = n; i < n + 40; i++) {
      t = "through:{" i % 16 "}:"
      print "eval \"redis.call(\\\"INCR\\\", KEYS[1]) redis.call(\\\"RPUSH\\\", KEYS[2], ARGV[1])\" 2 " t "count " t "list " i
      print "set through:text:" i % 2000 " \"text of round " i "\" pxat 41024448" i % 10 "0000"
      print "hset through:hash:" i % 30 " field:" i % 70 " " i
      print "zadd through:zset:" i % 20 " " i % 200 / 8 " member:" i % 150
      print "del through:text:" (i * 7) % 2000
      print "set through:gone:" i % 50 " soon px 500"
    }
  }' | dial >/dev/null 2>&1
  n=$((n + 40))
  sleep 0.1
done
"#;

#[derive(Debug)]
pub struct Writer<'a> {
    namespace: &'a Namespace,
}

impl<'a> Writer<'a> {
    /// `dial` is the body of the function; a Secret `client` of the namespace, if it wants one, lies in /secret.
    pub fn start(
        namespace: &'a Namespace,
        image: &str,
        dial: &str,
        password: Option<&Password>,
        with_secret: bool,
    ) -> Self {
        let of_password = |password: &Password| {
            let from = json!({"secretKeyRef": {"name": password.secret, "key": password.key}});
            json!({"name": "REDISCLI_AUTH", "valueFrom": from})
        };
        let secret = |value: Value| with_secret.then_some(value).into_iter().collect::<Vec<_>>();
        let container = json!({
            "name": "writer",
            "image": image,
            "command": ["sh", "-c", format!("dial() {{ {dial}; }}\n{SCRIPT}")],
            "env": password.map(of_password).into_iter().collect::<Vec<_>>(),
            "volumeMounts": secret(json!({"name": "secret", "mountPath": "/secret"})),
        });
        namespace.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "writer", "labels": {"redis-client": "true"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                "volumes": secret(json!({"name": "secret", "secret": {"secretName": "client"}})),
            },
        }).to_string());
        Self { namespace }
    }

    /// Returns when nothing writes any more.
    pub fn stop(self) {
        self.namespace.ask(&["delete", "pod", "writer", "--grace-period=1"]);
    }
}
