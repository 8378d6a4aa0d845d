//! A namespace for one test: fresh, and deleted with the value that stands for it. What went wrong in it is told first.

use std::{process, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    cluster::{apply, ask, get, kubectl, told, wait_for},
    installation::Installation,
};

/// Longer than anything that starts takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(3);

#[derive(Debug)]
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    /// A namespace of the strictest Pod Security.
    pub fn create(purpose: &str) -> Self {
        Self::create_as(purpose, "restricted")
    }

    /// A namespace that asks nothing of its pods, as most are.
    pub fn create_lenient(purpose: &str) -> Self {
        Self::create_as(purpose, "privileged")
    }

    fn create_as(purpose: &str, security: &str) -> Self {
        let namespace = Self { name: format!("e2e-{purpose}-{}", process::id()) };
        let labels = json!({
            "app.kubernetes.io/part-of": "redis-backup-e2e",
            "pod-security.kubernetes.io/enforce": security,
        });
        let metadata = json!({"name": namespace.name, "labels": labels});
        apply(
            None,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).to_string(),
        );
        let account =
            || kubectl(&["-n", &namespace.name, "get", "serviceaccount", "default"]).output();
        wait_for("the default service account", PATIENCE, || {
            account().unwrap().status.success().then_some(())
        });
        namespace
    }

    /// As administrators set it where small containers are not wanted.
    pub fn limit_range(&self) {
        let least = json!({"type": "Container", "min": {"cpu": "100m", "memory": "128Mi"}});
        self.apply(&json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "least"}, "spec": {"limits": [least]},
        }).to_string());
    }

    pub fn secret(&self, name: &str, entries: &[(&str, &str)]) {
        let entries: Value =
            entries.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries,
        }).to_string());
    }

    #[track_caller]
    pub fn apply(&self, objects: &str) {
        apply(Some(&self.name), objects);
    }

    /// Applies an installation and waits until all of it is ready.
    #[track_caller]
    pub fn install(&self, installation: &Installation) {
        self.apply(&installation.objects());
        for workload in installation.workloads {
            wait_for(workload, PATIENCE, || {
                let found = self.try_ask(&["get", workload, "-o", "json"])?;
                let found: Value = serde_json::from_str(&found).unwrap();
                (found["status"]["readyReplicas"] == found["spec"]["replicas"]).then_some(())
            });
        }
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        for job in installation.jobs {
            self.ask(&["wait", "--for=condition=Complete", job, &limit]);
        }
    }

    /// The pod among these whose Redis calls itself the primary of two linked replicas.
    #[track_caller]
    pub fn primary<'a>(&self, pods: &[&'a str]) -> &'a str {
        wait_for("a primary with two replicas", PATIENCE, || {
            pods.iter().copied().find(|pod| {
                let ask = ["exec", pod, "--", "redis-cli", "info", "replication"];
                let replication = self.try_ask(&ask).unwrap_or_default();
                replication.contains("role:master")
                    && replication.matches("state=online").count() == 2
            })
        })
    }

    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> String {
        ask(&[&["--namespace", &self.name], arguments].concat())
    }

    /// What kubectl printed, where it ended well.
    pub fn try_ask(&self, arguments: &[&str]) -> Option<String> {
        let output = kubectl(&[&["--namespace", &self.name], arguments].concat()).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[track_caller]
    pub fn get(&self, arguments: &[&str]) -> Value {
        get(&[&["--namespace", &self.name], arguments].concat())
    }

    /// What redis-cli says in a pod, which knows its own password.
    #[track_caller]
    pub fn redis(&self, pod: &str, arguments: &[&str]) -> String {
        let command = [&["exec", pod, "--", "redis-cli", "-e"], arguments].concat();
        self.ask(&command).trim_end().to_owned()
    }

    /// Fills a Redis with `keys` strings, a tenth of them with an end far away.
    #[track_caller]
    pub fn fill(&self, pod: &str, keys: u32) {
        let script = "for i = 1, ARGV[1] do redis.call('SET', 'key:' .. i, string.rep('value ' .. i, 20)) \
                      if i % 10 == 0 then redis.call('EXPIRE', 'key:' .. i, 864000) end end return 'filled'";
        assert_eq!(self.redis(pod, &["eval", script, "0", &keys.to_string()]), "filled");
    }

    /// Fills a Redis with strings of two kilobytes, which it is told not to compress, in pieces that it takes at once.
    #[track_caller]
    pub fn fill_with_noise(&self, pod: &str, pieces: u32, keys_of_a_piece: u32) {
        self.redis(pod, &["config", "set", "rdbcompression", "no"]);
        let script = "math.randomseed(ARGV[1]) for i = 1, ARGV[2] do local part = {} for j = 1, 16 do \
                      part[j] = string.format('%08x%08x', math.random(0, 2147483647), math.random(0, 2147483647)) end \
                      redis.call('SET', ARGV[1] .. ':' .. i, string.rep(table.concat(part), 8)) end return 'filled'";
        for piece in 1..=pieces {
            let (piece, keys) = (piece.to_string(), keys_of_a_piece.to_string());
            assert_eq!(self.redis(pod, &["eval", script, "0", &piece, &keys]), "filled");
        }
    }

    fn tell(&self) {
        for what in [&["get", "all,pvc", "-o", "wide"][..], &["get", "events"]] {
            let output = kubectl(&[&["--namespace", &self.name], what].concat()).output();
            eprintln!(
                "--- {}: {}\n{}",
                self.name,
                what.join(" "),
                output.map_or_else(|e| e.to_string(), |o| told(&o))
            );
        }
        let logs =
            ["logs", "--selector=app.kubernetes.io/name=redis-backup", "--tail=40", "--prefix"];
        if let Ok(output) = kubectl(&[&["--namespace", &self.name], &logs[..]].concat()).output() {
            eprintln!("{}", told(&output));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
        }
        let _ = kubectl(&["delete", "namespace", &self.name, "--wait=false"]).output();
    }
}
