//! How long a source is waited for, phase by phase. Waits for nothing itself.

use std::time::Duration;

use super::config::Timeouts;
use crate::{
    domain::time_limit::TimeLimit,
    edge::redis_node::{Access, bgsave, replication},
};

/// A backup must be committed within a day: half of it is for one shard, the rest for the others.
const CAPTURE_MAX: Duration = Duration::from_hours(12);

impl Default for Timeouts {
    fn default() -> Self {
        let (access, replication) = (Access::default(), replication::Limits::default());
        Self {
            connect: TimeLimit::new(access.connect_timeout),
            reply: TimeLimit::new(access.response_timeout),
            begin: TimeLimit::new(replication.begin_max),
            silence: TimeLimit::new(replication.silence_max),
            capture: TimeLimit::new(CAPTURE_MAX),
        }
    }
}

impl Timeouts {
    pub fn of_replication(&self) -> replication::Limits {
        replication::Limits { silence_max: self.silence.get(), begin_max: self.begin.get() }
    }

    pub fn of_save(&self) -> bgsave::Limits {
        bgsave::Limits { save_max: self.begin.get(), ..bgsave::Limits::default() }
    }
}
