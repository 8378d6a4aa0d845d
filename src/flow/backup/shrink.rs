//! What is usual for a source, so that a backup that holds far less is seen. Never fails a backup.

use crate::{
    domain::{
        record::Standing,
        shrink_guard::{Baseline, Size},
    },
    failure::{Failure, chain},
    flow::{
        Context,
        catalog::{self, Located},
        standing::standing,
    },
};

/// Enough to find a few good ones also after a bad week.
const LOOKED_AT_MAX: usize = 20;

/// The recent good backups of the source in this store, by whatever schedule.
pub(super) async fn baseline(located: &Located, context: &Context) -> Baseline {
    match try_baseline(located, context).await {
        Ok(baseline) => baseline,
        Err(failure) => {
            tracing::warn!("the shrink guard does not know what is usual: {}", chain(&failure));
            Baseline::default()
        }
    }
}

async fn try_baseline(located: &Located, context: &Context) -> Result<Baseline, Failure> {
    let Located { opened, source, backup: _ } = located;
    let now = context.now();
    let backups = catalog::backups(opened, source).await?;
    let present = backups.into_iter().filter(|backup| backup.begun() <= now);
    let mut baseline = Baseline::default();
    for backup in present.take(LOOKED_AT_MAX) {
        let before = Located { opened: opened.clone(), source: source.clone(), backup };
        let standing = standing(&before).await?;
        let Standing { accepted, .. } = standing;
        if !standing.is_good() {
            continue;
        }
        match catalog::read_manifest(&before).await {
            Ok(manifest) => baseline.sizes.push(Size::of(&manifest)),
            // It says nothing of what is usual.
            Err(Failure::Manifest { .. } | Failure::Corrupt { .. }) => continue,
            Err(failure) => return Err(failure),
        }
        baseline.ends_with_accepted = accepted;
        if baseline.is_complete() {
            break;
        }
    }
    Ok(baseline)
}
