//! What `jobs/` tells Kubernetes, held against the program: its arguments, its config, its exit codes.

use std::{fs, path::Path};

use clap::Parser as _;
use redis_backup::{
    cli::{Cli, Verb},
    failure::Exit,
    settings::Settings,
};
use serde_json::{Value, json};

#[test]
fn every_job_calls_the_verb_of_its_name_with_arguments_that_the_program_knows() {
    let files = workloads();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["backup-daily", "backup-hourly", "check", "prune", "verify"]);
    let settings = config();
    for (name, workload) in &files {
        let verb = parsed(&container(workload)["args"]);
        let is_the_verb = if let Verb::Backup(backup) = &verb {
            let schedule = backup.schedule.clone().unwrap();
            settings.schedule(&schedule).unwrap();
            *name == format!("backup-{schedule}")
        } else {
            matches!((name.as_str(), &verb), ("check", Verb::Check(_)) | ("prune", Verb::Prune(_)))
                || matches!(&verb, Verb::Verify(verify) if name == "verify" && verify.which.latest)
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
        let container = container(&workload);
        let security = json!({
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container["securityContext"], security, "{name}");
        let requests = json!({"cpu": "100m", "memory": "128Mi"});
        assert_eq!(container["resources"]["requests"], requests, "{name}");
        // A root file system that cannot be written has no room for a lock or a spool.
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/tmp"), "{name}");
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
    names.retain(|name| name != "config");
    names.sort();
    names.into_iter().map(|name| (name.clone(), workload(&name))).collect()
}

fn workload(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap()
}

fn text(name: &str) -> String {
    fs::read_to_string(format!("jobs/{name}.yaml")).unwrap()
}
