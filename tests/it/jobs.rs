//! What `jobs/` tells Kubernetes, held against the program: its arguments, its config, its exit codes.

use std::{fs, path::Path};

use clap::Parser as _;
use redis_backup::{
    cli::{Cli, Verb, VerifyLevel},
    failure::Exit,
    settings::Settings,
};
use serde_json::{Value, json};

#[test]
fn every_job_calls_the_verb_of_its_name_with_arguments_that_the_program_knows() {
    let files = workloads();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["backup-daily", "backup-hourly", "check", "prune", "verify", "verify-load"];
    assert_eq!(names, expected);
    let settings = config();
    for (name, workload) in &files {
        let verb = parsed(&container(workload)["args"]);
        let is_the_verb = if let Verb::Backup(backup) = &verb {
            let schedule = backup.schedule.clone().unwrap();
            settings.schedule(&schedule).unwrap();
            *name == format!("backup-{schedule}")
        } else {
            let level = match name.as_str() {
                "verify" => Some(VerifyLevel::Content),
                "verify-load" => Some(VerifyLevel::Load),
                _ => None,
            };
            matches!((name.as_str(), &verb), ("check", Verb::Check(_)) | ("prune", Verb::Prune(_)))
                || matches!(&verb, Verb::Verify(it) if it.which.latest && Some(it.level) == level)
        };
        assert!(is_the_verb, "{name} calls {verb:?}");
    }
}

#[test]
fn a_cronjob_is_due_when_its_schedule_of_the_config_is() {
    let settings = config();
    for name in ["hourly", "daily"] {
        let workload = workload(&format!("backup-{name}"));
        let schedule = settings.schedule(&name.parse().unwrap()).unwrap();
        assert_eq!(workload["spec"]["timeZone"], "Etc/UTC");
        let cron = workload["spec"]["schedule"].as_str().unwrap();
        assert!(
            text("config")
                .contains(&format!("{name}: {{source: sessions, cron: \"{cron}\", timezone: UTC"))
        );
        assert_eq!(schedule.name.as_str(), name);
    }
}

#[test]
fn no_job_overlaps_itself_or_outlives_its_turn() {
    for (name, workload) in workloads() {
        let seconds = |field: &Value| field.as_u64().unwrap_or_else(|| panic!("{name}: {field}"));
        assert!(seconds(&job(&workload)["activeDeadlineSeconds"]) > 0);
        if workload["kind"] == "CronJob" {
            assert_eq!(workload["spec"]["concurrencyPolicy"], "Forbid", "{name}");
            assert!(seconds(&workload["spec"]["startingDeadlineSeconds"]) > 0);
        }
    }
    let hourly = workload("backup-hourly");
    assert!(job(&hourly)["activeDeadlineSeconds"].as_u64().unwrap() < 3600);
}

#[test]
fn a_job_is_given_up_for_the_exit_codes_that_another_attempt_does_not_mend() {
    let lasting: Vec<u8> =
        Exit::ALL.into_iter().filter(|exit| is_lasting(*exit)).map(|exit| exit as u8).collect();
    for (name, workload) in workloads() {
        let rules = &job(&workload)["podFailurePolicy"]["rules"];
        let codes = json!({"containerName": "redis-backup", "operator": "In", "values": lasting});
        assert_eq!(rules[0], json!({"action": "FailJob", "onExitCodes": codes}), "{name}");
        assert_eq!(rules[1]["action"], "Ignore", "{name}");
        assert_eq!(rules[1]["onPodConditions"][0]["type"], "DisruptionTarget", "{name}");
        // Without it Kubernetes refuses the policy.
        assert_eq!(job(&workload)["template"]["spec"]["restartPolicy"], "Never", "{name}");
    }
}

#[test]
fn every_job_keeps_to_restricted_pod_security_and_asks_for_what_a_limit_range_wants() {
    for (name, workload) in workloads() {
        let pod = &job(&workload)["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let security = json!({
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
        });
        let first = pod["initContainers"].as_array().cloned().unwrap_or_default();
        for container in first.iter().chain([container(&workload)]) {
            assert_eq!(container["securityContext"], security, "{name}");
            let requests = &container["resources"]["requests"];
            assert_eq!(requests["cpu"], "100m", "{name}");
            assert!(["128Mi", "1Gi"].contains(&requests["memory"].as_str().unwrap()), "{name}");
        }
        // A root file system that cannot be written has no room for a lock or a spool.
        let mounts = container(&workload)["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/tmp"), "{name}");
    }
}

/// Whoever reaches no pod has no token that could be stolen, and no way into Redis.
#[test]
fn only_the_jobs_that_reach_redis_are_somebody_to_kubernetes_and_a_client() {
    let account = of_yaml(&text("account"));
    assert_eq!(account["kind"], "ServiceAccount");
    let rights = fs::read_to_string("deploy/rbac.yaml").unwrap();
    let rights: Vec<Value> = rights.split("\n---\n").map(of_yaml).collect();
    let in_rights = rights.iter().find(|it| it["kind"] == "ServiceAccount").unwrap();
    assert_eq!(in_rights["metadata"]["name"], account["metadata"]["name"]);
    for (name, workload) in workloads() {
        let reaches_redis = name.starts_with("backup-") || name == "check";
        let template = &job(&workload)["template"];
        let pod = &template["spec"];
        assert_eq!(pod["automountServiceAccountToken"], reaches_redis, "{name}");
        let expected = if reaches_redis { &account["metadata"]["name"] } else { &Value::Null };
        assert_eq!(&pod["serviceAccountName"], expected, "{name}");
        let is_client = template["metadata"]["labels"]["redis-client"] == "true";
        assert_eq!(is_client, reaches_redis, "{name}");
    }
}

#[test]
fn the_load_runs_our_program_in_the_image_of_redis_and_has_what_it_needs_there() {
    let workload = workload("verify-load");
    let pod = &job(&workload)["template"]["spec"];
    let (first, main) = (&pod["initContainers"][0], container(&workload));
    let Verb::Install(install) = parsed(&first["args"]) else { panic!("{first}") };
    assert_eq!(main["command"], json!([install.path]));
    let variable = |name: &str| {
        let all = main["env"].as_array().unwrap().iter();
        all.clone().find(|it| it["name"] == name).map(|it| it["value"].clone())
    };
    assert_eq!(variable("SSL_CERT_FILE"), Some(json!(install.authorities)));
    assert_eq!(variable("TMPDIR"), Some(json!("/tmp")));
    let volumes = pod["volumes"].as_array().unwrap();
    for name in ["programs", "temporary"] {
        let volume = volumes.iter().find(|it| it["name"] == name).unwrap();
        assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{volume}");
    }
    let Verb::Verify(verify) = parsed(&main["args"]) else { panic!("{main}") };
    let source = verify.place.source_name.unwrap();
    assert!(config().source_names().contains(&source), "{source}");

    // What opens backups lies nowhere else.
    let identity = "redis-backup-identity";
    assert!(verify.identity.identity_from[0].starts_with("file:/etc/redis-backup/identity/"));
    for (name, workload) in workloads() {
        let has_it = job(&workload).to_string().contains(identity);
        assert_eq!(has_it, name == "verify-load", "{name}");
    }
}

#[test]
fn the_network_policies_are_of_the_pods_of_the_jobs_and_open_no_way_in() {
    let policies = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(format!("deploy/{name}.yaml")).unwrap();
        text.split("\n---\n").map(of_yaml).collect()
    };
    let ours = policies("network-policy");
    let names: Vec<_> = ours.iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["redis-backup", "redis-backup-client"]);
    assert_eq!(ours[0]["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(ours[0]["spec"]["ingress"], Value::Null);
    let selects = |selector: &Value, labels: &Value| {
        let wanted = selector["matchLabels"].as_object().unwrap();
        wanted.iter().all(|(key, value)| labels[key] == *value)
    };
    let into_redis = policies("network-policy-redis");
    for (name, workload) in workloads() {
        let labels = &job(&workload)["template"]["metadata"]["labels"];
        let is_client = labels["redis-client"] == "true";
        assert!(selects(&ours[0]["spec"]["podSelector"], labels), "{name}");
        assert_eq!(selects(&ours[1]["spec"]["podSelector"], labels), is_client, "{name}");
        for policy in &into_redis {
            let from = &policy["spec"]["ingress"][0]["from"][0]["podSelector"];
            assert_eq!(selects(from, labels), is_client, "{name}");
        }
    }
}

fn is_lasting(exit: Exit) -> bool {
    match exit {
        Exit::Usage
        | Exit::Partial
        | Exit::Corrupt
        | Exit::Suspect
        | Exit::Incompatible
        | Exit::Refused
        | Exit::RestoreRolledBack
        | Exit::RestoreNeedsPerson
        | Exit::DrillFailed => true,
        Exit::Done
        | Exit::Unexpected
        | Exit::SourceUnavailable
        | Exit::StoreUnavailable
        | Exit::KubernetesUnavailable
        | Exit::Locked
        | Exit::Interrupted
        | Exit::Terminated => false,
    }
}

fn parsed(arguments: &Value) -> Verb {
    let arguments = arguments.as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    Cli::try_parse_from(["redis-backup"].into_iter().chain(arguments)).unwrap().verb
}

fn config() -> Settings {
    let map: Value = serde_saphyr::from_str(&text("config")).unwrap();
    let config = map["data"]["redis-backup.yaml"].as_str().unwrap();
    Settings::parse(Path::new("jobs/config.yaml"), config).unwrap()
}

/// The spec of the Job, also where a `CronJob` makes it.
fn job(workload: &Value) -> &Value {
    if workload["kind"] == "CronJob" {
        &workload["spec"]["jobTemplate"]["spec"]
    } else {
        &workload["spec"]
    }
}

fn container(workload: &Value) -> &Value {
    &job(workload)["template"]["spec"]["containers"][0]
}

fn workloads() -> Vec<(String, Value)> {
    let entries = fs::read_dir("jobs").unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> =
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.retain(|name| !["account", "config"].contains(&name.as_str()));
    names.sort();
    names.into_iter().map(|name| (name.clone(), workload(&name))).collect()
}

fn workload(name: &str) -> Value {
    of_yaml(&text(name))
}

fn of_yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn text(name: &str) -> String {
    fs::read_to_string(format!("jobs/{name}.yaml")).unwrap()
}
