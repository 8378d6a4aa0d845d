//! When the append-only files of a live server may be opened, and whether those that were are its own. Decides; opens nothing.
//!
//! What a server does to them: `rewriteAppendOnlyFileBackground`, `startAppendOnly` and `flushAppendOnlyFile` in `aof.c`.

use crate::domain::persistence::Persistence;

/// Whether the files on disk are all that the server knows, and stay so for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// It passes by itself.
    Wait(&'static str),
    /// Until somebody acts, the files are not worth copying.
    Closed(&'static str),
}

pub fn gate(seen: &Persistence) -> Gate {
    let aof = &seen.aof;
    if !aof.enabled {
        Gate::Closed("it keeps no append-only file (aof_enabled:0)")
    } else if !aof.last_write_ok {
        Gate::Closed("it could not write its append-only file (aof_last_write_status:err)")
    } else if seen.loading {
        Gate::Wait("it is loading its dataset")
    } else if seen.sync_in_progress {
        Gate::Wait("it is in the middle of a full synchronisation")
    } else if aof.rewrite_in_progress || aof.rewrite_scheduled {
        Gate::Wait("it rewrites its append-only file")
    } else if aof.fsync_pending {
        // Only then may it have answered a client before it wrote.
        Gate::Wait("it waits for its disk")
    } else if !aof.last_rewrite_ok {
        // Whoever switched the file on gets no list of it before a rewrite succeeds.
        Gate::Closed("its last rewrite failed (aof_last_bgrewrite_status:err)")
    } else {
        Gate::Open
    }
}

/// What two looks say of files that were opened between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sound,
    /// Something happened meanwhile: open them again.
    Disturbed,
    /// Nothing happened, and yet it is not what the server wrote.
    OfAnother {
        least: u64,
        most: u64,
    },
}

/// Bytes of the files that were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub base: u64,
    pub increments: u64,
}

/// A server counts what it wrote, so with nothing but appends between the looks the files' bytes lie
/// between the two counts. The empty base that it makes at its very first start it does not count
/// (seen on 7.0 and Valkey 9; `aofOpenIfNeededOnServerStart`).
pub fn judge(before: &Persistence, sizes: Sizes, after: &Persistence) -> Verdict {
    let (least, most) = (before.aof.bytes.unwrap_or(0), after.aof.bytes.unwrap_or(u64::MAX));
    let is_undisturbed = before.run_id == after.run_id
        && before.aof.rewrites == after.aof.rewrites
        && matches!(gate(before), Gate::Open)
        && !after.aof.rewrite_in_progress
        && !after.aof.rewrite_scheduled
        && after.aof.enabled
        && least <= most;
    if !is_undisturbed {
        Verdict::Disturbed
    } else if [sizes.base + sizes.increments, sizes.increments]
        .iter()
        .any(|bytes| (least..=most).contains(bytes))
    {
        Verdict::Sound
    } else {
        Verdict::OfAnother { least, most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Persistence);

    fn seen(change: impl FnOnce(&mut Persistence)) -> Persistence {
        let mut seen = Persistence { run_id: "aa".to_owned(), ..Persistence::default() };
        let aof = &mut seen.aof;
        (aof.enabled, aof.last_write_ok, aof.last_rewrite_ok) = (true, true, true);
        (aof.rewrites, aof.bytes) = (Some(2), Some(100));
        change(&mut seen);
        seen
    }

    #[test]
    fn files_are_opened_only_while_nothing_is_done_to_them() {
        assert_eq!(gate(&seen(|_| {})), Gate::Open);
        let waits: [Change; 5] = [
            |it| it.loading = true,
            |it| it.sync_in_progress = true,
            |it| it.aof.rewrite_in_progress = true,
            |it| it.aof.rewrite_scheduled = true,
            |it| it.aof.fsync_pending = true,
        ];
        for change in waits {
            assert!(matches!(gate(&seen(change)), Gate::Wait(_)));
        }
        let closed: [Change; 3] = [
            |it| it.aof.enabled = false,
            |it| it.aof.last_write_ok = false,
            |it| it.aof.last_rewrite_ok = false,
        ];
        for change in closed {
            assert!(matches!(gate(&seen(change)), Gate::Closed(_)));
        }
    }

    #[test]
    fn what_lies_between_the_two_counts_is_its_own() {
        let after = seen(|it| it.aof.bytes = Some(130));
        for bytes in [100, 115, 130] {
            let base = bytes / 3;
            let sizes = Sizes { base, increments: bytes - base };
            assert_eq!(judge(&seen(|_| {}), sizes, &after), Verdict::Sound);
            let uncounted = Sizes { base: 89, increments: bytes };
            assert_eq!(judge(&seen(|_| {}), uncounted, &after), Verdict::Sound);
        }
        for bytes in [0, 99, 131] {
            let other = Verdict::OfAnother { least: 100, most: 130 };
            let sizes = Sizes { base: 0, increments: bytes };
            assert_eq!(judge(&seen(|_| {}), sizes, &after), other);
        }
        let changes: [Change; 5] = [
            |it| "bb".clone_into(&mut it.run_id),
            |it| it.aof.rewrites = Some(3),
            |it| it.aof.rewrite_in_progress = true,
            |it| it.aof.rewrite_scheduled = true,
            |it| it.aof.bytes = Some(90),
        ];
        for change in changes {
            let sizes = Sizes { base: 0, increments: 100 };
            assert_eq!(judge(&seen(|_| {}), sizes, &seen(change)), Verdict::Disturbed);
        }
    }
}
