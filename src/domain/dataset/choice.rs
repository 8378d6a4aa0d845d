//! Which of a backup's captures a restore takes. Decides; never reads one.

use super::Form;
use crate::domain::manifest::{AofCapture, RdbCapture, ReplicationPoint};

/// What to restore, and why that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub form: Form,
    pub reason: String,
}

/// The capture that reaches further, unless a person chose. None if that is not there.
pub fn choose(
    rdb: Option<&RdbCapture>,
    aof: Option<&AofCapture>,
    told: Option<Form>,
) -> Option<Chosen> {
    let chosen = |form, reason: &str| Some(Chosen { form, reason: reason.to_owned() });
    match (rdb, aof, told) {
        (Some(_), _, Some(Form::Rdb)) => chosen(Form::Rdb, "as was asked for"),
        (_, Some(_), Some(Form::Aof)) => chosen(Form::Aof, "as was asked for"),
        (_, _, Some(Form::Rdb | Form::Aof)) | (None, None, None) => None,
        (Some(_), None, None) => chosen(Form::Rdb, "the backup holds nothing else"),
        (None, Some(_), None) => chosen(Form::Aof, "the backup holds nothing else"),
        (Some(rdb), Some(aof), None) => Some(newer(rdb, aof)),
    }
}

/// Offsets of one history are exact; of two, only the clock compares. Equal ones mean the RDB, which loads faster.
fn newer(rdb: &RdbCapture, aof: &AofCapture) -> Chosen {
    let ReplicationPoint { id, offset: of_rdb } = &rdb.replication;
    let of_aof = aof.replication.offset;
    if *id == aof.replication.id {
        let (form, reason) = if of_aof > *of_rdb {
            (Form::Aof, format!("it reaches to offset {of_aof}, the RDB to {of_rdb}"))
        } else {
            (Form::Rdb, format!("it reaches to offset {of_rdb}, the append-only files to {of_aof}"))
        };
        return Chosen { form, reason };
    }
    let (of_rdb, of_aof) = (rdb.captured_at, aof.captured_at);
    let (form, reason) = if of_aof > of_rdb {
        (Form::Aof, format!("it was captured at {of_aof}, the RDB at {of_rdb}"))
    } else {
        (Form::Rdb, format!("it was captured at {of_rdb}, the append-only files at {of_aof}"))
    };
    Chosen { form, reason: reason + ", and they are of different replication histories" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        manifest::{Method, NodeRole},
        rdb::{Checksum, Content, Magic, Unread},
    };

    fn rdb(id: &str, offset: u64, second: i64) -> RdbCapture {
        let unread =
            Unread { magic: Magic::Redis, version: 99, bytes: 1, checksum: Checksum::Verified };
        RdbCapture {
            method: Method::Replication,
            captured_at: jiff::Timestamp::from_second(second).unwrap(),
            captured_from: NodeRole::Replica,
            replication: ReplicationPoint { id: id.to_owned(), offset },
            content: Content::Unread(unread),
        }
    }

    fn aof(id: &str, offset: u64, second: i64) -> AofCapture {
        AofCapture {
            captured_at: jiff::Timestamp::from_second(second).unwrap(),
            captured_from: NodeRole::Replica,
            replication: ReplicationPoint { id: id.to_owned(), offset },
            files: Vec::new(),
        }
    }

    #[test]
    fn what_reaches_further_in_one_history_is_newer_whatever_the_clock_says() {
        let form = |of_rdb, of_aof| {
            choose(Some(&rdb("a", of_rdb, 9)), Some(&aof("a", of_aof, 1)), None).unwrap().form
        };
        assert_eq!(form(10, 11), Form::Aof);
        assert_eq!(form(11, 10), Form::Rdb);
        assert_eq!(form(10, 10), Form::Rdb);
    }

    #[test]
    fn of_two_histories_the_later_capture_is_newer() {
        let chosen = |of_rdb, of_aof| {
            choose(Some(&rdb("a", 99, of_rdb)), Some(&aof("b", 1, of_aof)), None).unwrap()
        };
        assert_eq!(chosen(1, 2).form, Form::Aof);
        assert_eq!(chosen(2, 1).form, Form::Rdb);
        assert!(chosen(2, 1).reason.contains("different replication histories"));
    }

    #[test]
    fn who_chooses_gets_that_or_nothing() {
        let (rdb, aof) = (rdb("a", 1, 1), aof("a", 2, 2));
        let form = |told| choose(Some(&rdb), Some(&aof), told).map(|chosen| chosen.form);
        assert_eq!(form(Some(Form::Rdb)), Some(Form::Rdb));
        assert_eq!(form(Some(Form::Aof)), Some(Form::Aof));
        assert_eq!(choose(Some(&rdb), None, Some(Form::Aof)), None);
        assert_eq!(choose(None, Some(&aof), Some(Form::Rdb)), None);
        assert_eq!(choose(None, Some(&aof), None).map(|chosen| chosen.form), Some(Form::Aof));
    }
}
