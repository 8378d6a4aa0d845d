//! The identities with which a backup is read, asked for only where it is encrypted, and tried before anything is done.

use super::{Context, catalog::Located, examine};
use crate::{cli::IdentityFrom, domain::manifest::Manifest, failure::Failure, settings::Settings};

/// A context that opens the archives of this backup. Fails where no identity that is given does.
pub(super) async fn unlock(
    located: &Located,
    manifest: &Manifest,
    identity: &IdentityFrom,
    settings: &Settings,
    context: &Context,
) -> Result<Context, Failure> {
    if !manifest.is_encrypted() {
        return Ok(context.clone());
    }
    let identities = settings.identities(identity, context.environment())?;
    let context = Context { identities, ..context.clone() };
    match examine::read_installation(located, manifest, &context).await {
        Err(failure) if failure.is_of_the_identity() => Err(failure),
        // What else may be wrong is for whoever reads it to judge.
        Ok(_) | Err(_) => Ok(context),
    }
}
