//! One backup into another store under other keys: what `copy --recipient` stores. Never goes on with what an earlier try left, and removes what its own left.

use jiff::Timestamp;

use super::{
    Job,
    catalog::Located,
    names,
    one::{check_in_time, claim},
};
use crate::{
    cli::IdentityFrom,
    domain::{
        archive::{Identities, Recipients},
        catalog::Key,
        manifest::{Archive, Manifest},
    },
    failure::Failure,
    flow::{
        backup::commit,
        sweep,
        transfer::{Keys, Relay, reseal},
        unlock::unlock,
    },
    settings::Settings,
};

/// To whom the copies are encrypted, and what opens the backups until now.
#[derive(Clone, Copy)]
pub(super) struct Reseal<'a> {
    pub(super) recipients: &'a Recipients,
    pub(super) identity: &'a IdentityFrom,
    pub(super) settings: &'a Settings,
}

impl Reseal<'_> {
    /// What opens the backup. Fails, before anything is done, where nothing that is given does.
    pub(super) async fn identities(
        self,
        from: &Located,
        manifest: &Manifest,
        job: &Job<'_>,
    ) -> Result<Identities, Failure> {
        let unlocked = unlock(from, manifest, self.identity, self.settings, job.context).await?;
        Ok(unlocked.identities)
    }
}

/// A backup that is there is never changed, so that what is there must not be what is to be left behind.
pub(super) fn check_there(there: &Manifest, from: &Manifest, to: &Located) -> Result<(), Failure> {
    if there.is_encrypted() && !there.is_stored_as(from) {
        return Ok(());
    }
    let held = if there.is_encrypted() { "under its present keys" } else { "in clear" };
    let (store, backup) = (&to.opened.name, &to.backup);
    Err(Failure::Refused {
        finding: format!("{store} holds {backup} {held}, and no backup is changed in place"),
        hint: "copy to another store, or to another prefix of this one; nothing was changed"
            .to_owned(),
    })
}

/// Brings every archive over and has the other store confirm it. Returns the manifest of the copy, and the
/// prefix of all that it stored.
pub(super) async fn reseal_archives(
    from: &Located,
    to: &Located,
    manifest: &Manifest,
    keys: Keys<'_>,
    begun: Timestamp,
    job: &Job<'_>,
) -> Result<(Manifest, String), Failure> {
    claim(to, manifest, job).await?;
    let prefix = names::resealed_prefix(&to.source, &to.backup, job.context.chance());
    let confirmed = async {
        let resealed = store_all(from, to, manifest, keys, &prefix, job).await?;
        commit::confirm(&*to.opened.store, &resealed).await?;
        check_in_time(to, begun, None, job).await?;
        Ok(resealed)
    };
    match confirmed.await {
        Ok(resealed) => Ok((resealed, prefix)),
        Err(failure) => {
            sweep::discard_resealed(&to.opened, &prefix).await;
            Err(failure)
        }
    }
}

async fn store_all(
    from: &Located,
    to: &Located,
    manifest: &Manifest,
    keys: Keys<'_>,
    prefix: &str,
    job: &Job<'_>,
) -> Result<Manifest, Failure> {
    let relay = Relay {
        from: &*from.opened.store,
        to: &*to.opened.store,
        backup: &from.backup,
        budget: &job.budget,
        pace: &to.opened.pace,
        context: job.context,
    };
    let mut resealed = manifest.clone();
    for shard in &mut resealed.shards {
        for archive in &mut shard.archives {
            *archive = store_one(relay, archive, keys, (prefix, Some(shard.shard)), job).await?;
        }
    }
    resealed.installation =
        store_one(relay, &manifest.installation, keys, (prefix, None), job).await?;
    let attempt = || format!("encrypt {} anew", to.backup);
    resealed.check().map_err(|source| Failure::Manifest { attempt: attempt(), source })?;
    Ok(resealed)
}

async fn store_one(
    relay: Relay<'_>,
    archive: &Archive,
    keys: Keys<'_>,
    (prefix, shard): (&str, Option<u32>),
    job: &Job<'_>,
) -> Result<Archive, Failure> {
    let form = (archive.codec, keys.recipients.encryption());
    let key_of = |index| -> Result<Key, Failure> {
        let key = names::resealed_key(prefix, shard, &archive.name, form, index);
        key.map_err(|error| Failure::Usage { finding: error.to_string(), hint: String::new() })
    };
    let bar = job.context.progress.bar(archive.name.clone(), Some(archive.stored_bytes()));
    let resealed = reseal(relay, archive, keys, &key_of, &bar).await?;
    bar.finish();
    Ok(resealed)
}
