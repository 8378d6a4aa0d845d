//! What a server says of its files: saves, rewrites, their outcome. Reads it from INFO; judges nothing.
//!
//! Field names are those of the persistence section of `genRedisInfoString` in `server.c`.

use jiff::Timestamp;
use serde::Serialize;

use super::observation::Info;

/// The persistence section of INFO at one moment, and what of other sections goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "they are independent fields of INFO")]
pub struct Persistence {
    /// Changes with every start of the process.
    pub run_id: String,
    /// By the server's own clock.
    pub clock: Timestamp,
    /// As the server's own namespace numbers it.
    pub process_id: Option<u32>,
    pub loading: bool,
    /// It takes its dataset from its primary.
    pub sync_in_progress: bool,
    pub save_in_progress: bool,
    pub last_save_ok: bool,
    /// Seconds since 1970, by the server's clock. A save that was killed does not move it.
    pub last_save_seconds: u64,
    /// Without the server's own overhead and the memory of clients.
    pub dataset_bytes: Option<u64>,
    /// Of the machine, whatever limit the server itself runs under.
    pub machine_memory_bytes: Option<u64>,
    pub replication_id: String,
    pub replication_offset: u64,
    pub aof: AofState,
}

/// The append-only file, as the server tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "they are independent fields of INFO")]
pub struct AofState {
    pub enabled: bool,
    pub rewrite_in_progress: bool,
    pub rewrite_scheduled: bool,
    pub last_rewrite_ok: bool,
    pub last_write_ok: bool,
    /// A write may wait for it, up to two seconds.
    pub fsync_pending: bool,
    /// Rewrites that began since the start; none before 7.0.
    pub rewrites: Option<u64>,
    /// Bytes of the base and of all increments.
    pub bytes: Option<u64>,
}

impl Persistence {
    pub fn of_info(text: &str) -> Self {
        Self::of(&Info::parse(text))
    }

    pub(super) fn of(info: &Info<'_>) -> Self {
        let is_ok = |name| info.text(name).is_none_or(|value| value == "ok");
        let is_primary = info.text("role") == Some("master");
        let offset = if is_primary { "master_repl_offset" } else { "slave_repl_offset" };
        Self {
            clock: info
                .text("server_time_usec")
                .and_then(|text| Timestamp::from_microsecond(text.parse().ok()?).ok())
                .unwrap_or_default(),
            run_id: info.text("run_id").unwrap_or_default().to_owned(),
            process_id: info.number("process_id").and_then(|id| u32::try_from(id).ok()),
            loading: info.flag("loading") || info.flag("async_loading"),
            sync_in_progress: info.flag("master_sync_in_progress"),
            save_in_progress: info.flag("rdb_bgsave_in_progress"),
            last_save_ok: is_ok("rdb_last_bgsave_status"),
            last_save_seconds: info.number("rdb_last_save_time").unwrap_or_default(),
            dataset_bytes: info.number("used_memory_dataset"),
            machine_memory_bytes: info.number("total_system_memory"),
            replication_id: info.text("master_replid").unwrap_or_default().to_owned(),
            replication_offset: info.number(offset).unwrap_or_default(),
            aof: AofState {
                enabled: info.flag("aof_enabled"),
                rewrite_in_progress: info.flag("aof_rewrite_in_progress"),
                rewrite_scheduled: info.flag("aof_rewrite_scheduled"),
                last_rewrite_ok: is_ok("aof_last_bgrewrite_status"),
                last_write_ok: is_ok("aof_last_write_status"),
                fsync_pending: info.number("aof_pending_bio_fsync").is_some_and(|count| count > 0),
                rewrites: info.number("aof_rewrites"),
                bytes: info.number("aof_current_size"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saves_and_rewrites_are_told_apart() {
        let text = "run_id:aa\r\nprocess_id:7\r\nloading:0\r\nrdb_bgsave_in_progress:1\r\nrdb_last_bgsave_status:err\r\n\
            rdb_last_save_time:1700000000\r\naof_enabled:1\r\naof_rewrite_scheduled:1\r\naof_last_bgrewrite_status:ok\r\n\
            aof_rewrites:3\r\naof_current_size:99\r\nrole:master\r\nmaster_repl_offset:14\r\nslave_repl_offset:9\r\n";
        let found = Persistence::of_info(text);
        assert_eq!((found.run_id.as_str(), found.process_id), ("aa", Some(7)));
        assert!(found.save_in_progress && !found.last_save_ok);
        assert_eq!((found.last_save_seconds, found.replication_offset), (1_700_000_000, 14));
        let aof = &found.aof;
        assert!(aof.enabled && aof.rewrite_scheduled && !aof.rewrite_in_progress);
        assert!(aof.last_rewrite_ok && aof.last_write_ok);
        assert_eq!((aof.rewrites, aof.bytes), (Some(3), Some(99)));
    }
}
