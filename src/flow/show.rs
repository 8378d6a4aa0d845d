//! `show`: one manifest and the notes beside it.

use super::{
    Context,
    catalog::{self, Newest},
};
use crate::{
    cli::Show,
    failure::Failure,
    report::{Outcome, ShowReport},
    settings::Settings,
};

pub(super) async fn run(
    arguments: &Show,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Show { which, place, past } = arguments;
    let located = catalog::locate(which, Newest::Any, place, *past, settings, context).await?;
    let manifest = catalog::read_manifest(&located).await?;
    let records = catalog::records(&located).await?;
    let store = located.opened.name;
    Ok(Outcome::done(ShowReport { kind: "show", version: 1, store, manifest, records }))
}
