//! Which node is captured and how, decided for made-up installations.

use super::*;
use crate::domain::{observation::Seen, rdb::SlotRange};

const NONE: Directories = Directories::new();

fn node(port: u16, change: impl FnOnce(&mut NodeObservation)) -> Seen {
    let role = if port == 1 { "master" } else { "slave" };
    let text = format!(
        "redis_version:7.0.15\r\nserver_time_usec:1\r\nrun_id:{port}\r\nrole:{role}\r\nmaster_link_status:up\r\n\
         master_replid:aa\r\nmaster_repl_offset:1000\r\nslave_repl_offset:1000\r\n\
         master_last_io_seconds_ago:1\r\n",
    );
    let address = NodeAddress::new("10.0.0.1", port);
    let mut node = NodeObservation::of_info(&address, &text).unwrap();
    change(&mut node);
    Seen { address, outcome: Ok(node) }
}

fn healthy(port: u16) -> Seen {
    node(port, |_| {})
}

fn topology(kind: TopologyKind, shards: Vec<Vec<Seen>>) -> Topology {
    let shard = |nodes| Shard { slots: vec![SlotRange::ALL], nodes };
    let shards = shards.into_iter().map(shard).collect();
    Topology { kind, shards, identities: Vec::new(), slot_map: None, sentinel: None }
}

fn ports(primary: PrimaryUse, nodes: Vec<Seen>) -> Vec<u16> {
    let preference = Preference { primary, ..Preference::default() };
    match plan(&topology(TopologyKind::Standalone, vec![nodes]), &preference, &NONE) {
        Ok(plan) => plan.shards[0].candidates.iter().map(|c| c.address.port()).collect(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn the_healthiest_replica_comes_first_and_the_primary_as_the_policy_says() {
    let nodes = || {
        vec![
            healthy(1),
            node(2, |node| node.replication.offset = 900),
            node(3, |node| node.replication.last_io_seconds = Some(5)),
            healthy(4),
        ]
    };
    assert_eq!(ports(PrimaryUse::Fallback, nodes()), [4, 3, 2, 1]);
    assert_eq!(ports(PrimaryUse::Never, nodes()), [4, 3, 2]);
    assert_eq!(ports(PrimaryUse::Prefer, nodes()), [1, 4, 3, 2]);
}

#[test]
fn a_sick_replica_is_passed_over_with_every_reason() {
    type Change = fn(&mut NodeObservation);
    let faults: [(Change, &str); 6] = [
        (|node| node.loading = true, "loading"),
        (|node| node.replication.link_up = false, "link to its primary is down"),
        (|node| node.replication.sync_in_progress = true, "full synchronisation"),
        (|node| node.replication.last_io_seconds = Some(31), "31 s ago"),
        (|node| node.replication.id = "bb".to_owned(), "another history"),
        (|node| (node.loading, node.replication.link_up) = (true, false), " and "),
    ];
    for (fault, expected) in faults {
        let nodes = vec![healthy(1), node(2, fault)];
        let plan =
            plan(&topology(TopologyKind::Standalone, vec![nodes]), &Preference::default(), &NONE);
        let shard = plan.unwrap().shards.remove(0);
        assert_eq!(shard.candidates[0].address.port(), 1);
        assert!(shard.passed_over[0].reason.contains(expected), "{:?}", shard.passed_over);
    }
    let lagging = |node: &mut NodeObservation| node.replication.offset = 1 << 40;
    let behind = vec![node(1, lagging), healthy(2)];
    assert_eq!(ports(PrimaryUse::Fallback, behind), [1]);
}

#[test]
fn a_primary_watched_by_sentinels_is_never_captured_by_replication() {
    for primary in [PrimaryUse::Fallback, PrimaryUse::Prefer] {
        let preference = Preference { primary, ..Preference::default() };
        let down = node(2, |node| node.replication.link_up = false);
        let nodes = vec![healthy(1), down.clone()];
        let refusal =
            plan(&topology(TopologyKind::Sentinel, vec![nodes]), &preference, &NONE).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("watched by sentinels") && text.contains("is down"), "{text}");
        let told = node(1, |node| node.sentinel_watched = Some(true));
        assert!(ports(primary, vec![told, down]).is_empty());
    }
}

#[test]
fn a_refusal_names_every_shard() {
    let shards = vec![vec![healthy(1)], vec![healthy(2)], vec![]];
    let preference = Preference { primary: PrimaryUse::Never, ..Preference::default() };
    let refusal = plan(&topology(TopologyKind::Cluster, shards), &preference, &NONE).unwrap_err();
    assert_eq!(refusal.reasons.len(), 2);
    assert!(refusal.reasons[0].starts_with("shard 0 (10.0.0.1:1: "), "{refusal}");
    assert!(refusal.reasons[1].starts_with("shard 2"), "{refusal}");
}

fn at_hand(room: Result<Room, String>) -> Directories {
    let directory = Directory { access: FileAccess::Mounted, room };
    [(NodeAddress::new("10.0.0.1", 1), directory)].into()
}

fn room(disk_bytes: u64) -> Room {
    Room { disk_bytes, last_dump_bytes: 1000, memory_bytes: None }
}

/// The methods of a lone primary in their order, or why there is none.
fn methods(
    kind: TopologyKind,
    directories: &Directories,
    preference: &Preference,
    change: impl FnOnce(&mut NodeObservation),
) -> Result<Vec<Option<Method>>, String> {
    let topology = topology(kind, vec![vec![node(1, change)]]);
    plan(&topology, preference, directories)
        .map(|plan| plan.shards[0].candidates.iter().map(|it| it.method).collect())
        .map_err(|refusal| refusal.to_string())
}

const AUTO: Preference = Preference {
    primary: PrimaryUse::Fallback,
    method: MethodChoice::Auto,
    forms: Forms::RDB,
    lag_bytes_max: 0,
    exec_bytes_max: 2000,
    last_io_seconds_max: 30,
};

#[test]
fn a_data_directory_with_room_means_bgsave_and_replication_should_it_not_be_permitted() {
    let (bgsave, replication) = (Some(Method::Bgsave), Some(Method::Replication));
    let standalone = TopologyKind::Standalone;
    let found = methods(standalone, &at_hand(Ok(room(1200))), &AUTO, |_| {});
    assert_eq!(found.unwrap(), [bgsave, replication]);
    assert_eq!(methods(standalone, &NONE, &AUTO, |_| {}).unwrap(), [replication]);
    let unreadable = at_hand(Err("it cannot be read".to_owned()));
    assert_eq!(methods(standalone, &unreadable, &AUTO, |_| {}).unwrap(), [replication]);
    let only = |method| Preference { method, ..AUTO };
    let found = methods(standalone, &at_hand(Ok(room(1200))), &only(MethodChoice::Bgsave), |_| {});
    assert_eq!(found.unwrap(), [bgsave]);
    let found =
        methods(standalone, &at_hand(Ok(room(1200))), &only(MethodChoice::Replication), |_| {});
    assert_eq!(found.unwrap(), [replication]);
    let refused = methods(standalone, &unreadable, &only(MethodChoice::Bgsave), |_| {});
    assert!(refused.unwrap_err().contains("it cannot be read"));
}

#[test]
fn a_full_disk_is_spared_by_replication_only_where_the_server_surely_needs_none() {
    let full = at_hand(Ok(room(1199)));
    let standalone = TopologyKind::Standalone;
    let diskless = |node: &mut NodeObservation| node.settings.repl_diskless_sync = Some(true);
    assert_eq!(methods(standalone, &full, &AUTO, diskless).unwrap(), [Some(Method::Replication)],);
    for unsure in [None, Some(false)] {
        let refused = methods(standalone, &full, &AUTO, |node| {
            node.settings.repl_diskless_sync = unsure;
        });
        assert!(refused.unwrap_err().contains("may write its RDB there"));
    }
}

#[test]
fn a_primary_watched_by_sentinels_is_captured_by_bgsave_alone() {
    let sentinel = TopologyKind::Sentinel;
    let found = methods(sentinel, &at_hand(Ok(room(1200))), &AUTO, |_| {});
    assert_eq!(found.unwrap(), [Some(Method::Bgsave)]);
    assert!(methods(sentinel, &at_hand(Ok(room(0))), &AUTO, |_| {}).is_err());
}

#[test]
fn append_only_files_are_taken_only_from_where_they_are_kept_and_at_hand() {
    let both = Preference { forms: Forms { rdb: true, aof: true }, ..AUTO };
    let alone = Preference { forms: Forms { rdb: false, aof: true }, ..AUTO };
    let on = |node: &mut NodeObservation| node.persistence.aof.enabled = true;
    let standalone = TopologyKind::Standalone;
    let here = at_hand(Ok(room(1200)));
    assert_eq!(methods(standalone, &here, &both, on).unwrap()[0], Some(Method::Bgsave));
    assert_eq!(methods(standalone, &here, &alone, on).unwrap(), [None]);
    assert!(methods(standalone, &here, &alone, |_| {}).unwrap_err().contains("aof_enabled:0"));
    assert!(methods(standalone, &NONE, &both, on).unwrap_err().contains("dataDir"));
}

#[test]
fn what_is_too_large_for_exec_goes_by_replication_and_says_so() {
    let by_exec = |bytes| {
        let room = Room { disk_bytes: 1 << 20, last_dump_bytes: bytes, memory_bytes: None };
        let directory = Directory { access: FileAccess::Exec, room: Ok(room) };
        Directories::from([(NodeAddress::new("10.0.0.1", 1), directory)])
    };
    let standalone = TopologyKind::Standalone;
    let found = methods(standalone, &by_exec(2000), &AUTO, |_| {});
    assert_eq!(found.unwrap(), [Some(Method::Bgsave), Some(Method::Replication)]);
    let found = methods(standalone, &by_exec(2001), &AUTO, |_| {});
    assert_eq!(found.unwrap(), [Some(Method::Replication)]);
    let only = Preference { method: MethodChoice::Bgsave, ..AUTO };
    let refused = methods(standalone, &by_exec(2001), &only, |_| {});
    assert!(refused.unwrap_err().contains("`execBytesMax`"));
    let alone = Preference { forms: Forms { rdb: false, aof: true }, ..AUTO };
    let kept = |bytes| {
        methods(standalone, &by_exec(0), &alone, move |node| {
            (node.persistence.aof.enabled, node.persistence.aof.bytes) = (true, Some(bytes));
        })
    };
    assert_eq!(kept(2000).unwrap(), [None]);
    assert!(kept(2001).unwrap_err().contains("too much for exec"));
}
