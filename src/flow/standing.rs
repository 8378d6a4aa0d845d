//! What the records beside backups say, by the names of their keys alone. Reads none of them.

use std::collections::BTreeMap;

use super::{catalog::Located, stores::Opened};
use crate::{
    domain::{
        catalog::{self, Key},
        identity::{BackupId, SourceName},
        record::{Mark, Standing},
    },
    failure::Failure,
};

/// Of every backup that has records, by one listing.
pub(super) async fn standings(
    opened: &Opened,
    source: &SourceName,
) -> Result<BTreeMap<BackupId, Standing>, Failure> {
    let prefix = catalog::all_records_prefix(source);
    let listed = opened.store.list(&prefix).await.map_err(|error| Failure::Store {
        attempt: format!("list the records of {source} in {}", opened.name),
        source: error,
    })?;
    let mut marks: BTreeMap<BackupId, Vec<Mark>> = BTreeMap::new();
    // Listings are sorted, and names begin with their time.
    for listed in listed {
        if let Some(backup) = catalog::backup_of_record(source, &listed.key) {
            marks.entry(backup).or_default().push(mark_of(&listed.key));
        }
    }
    Ok(marks.into_iter().map(|(backup, marks)| (backup, Standing::of(marks))).collect())
}

/// Of one backup.
pub(super) async fn standing(located: &Located) -> Result<Standing, Failure> {
    let Located { opened, source, backup } = located;
    let prefix = catalog::records_prefix(source, backup);
    let listed = opened.store.list(&prefix).await.map_err(|source| Failure::Store {
        attempt: format!("list the records of {backup}"),
        source,
    })?;
    Ok(Standing::of(listed.iter().map(|listed| mark_of(&listed.key))))
}

fn mark_of(key: &Key) -> Mark {
    catalog::kind_of(key).map_or(Mark::Unknown, Mark::of_word)
}
