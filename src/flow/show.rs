//! `show`: one manifest and the notes beside it.

use super::{
    Context,
    catalog::{self, Newest},
};
use crate::{
    cli::Show,
    failure::Failure,
    report::{FailedStore, Outcome, ShowReport},
    settings::Settings,
};

pub(super) async fn run(
    arguments: &Show,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Show { which, place, past } = arguments;
    let catalog::Found { located, others, failure: _, unanswered } =
        catalog::find(which, Newest::Any, place, *past, settings, context).await?;
    let manifest = catalog::read_manifest(&located).await?;
    let records = catalog::records(&located).await?;
    let store = located.opened.name;
    let other_stores = others.into_iter().map(|other| other.opened.name).collect();
    let unanswered = unanswered.into_iter().map(FailedStore::from).collect();
    let (kind, version) = ("show", 1);
    let report = ShowReport { kind, version, store, other_stores, unanswered, manifest, records };
    Ok(Outcome::done(report))
}
