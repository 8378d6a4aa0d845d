//! What is generated from our own types: schema, completions, manual page.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    cli::Cli,
    failure::Failure,
    report::{Outcome, PlainText},
    settings::Config,
};

pub(super) fn schema() -> Result<Outcome, Failure> {
    let schema = schemars::schema_for!(Config);
    let text = serde_json::to_string_pretty(&schema).map_err(|error| Failure::Local {
        attempt: "print the schema".to_owned(),
        source: error.into(),
    })?;
    Ok(Outcome::done(PlainText { text }))
}

pub(super) fn completions(shell: Shell) -> Outcome {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Outcome::done(PlainText { text: String::from_utf8_lossy(&script).into_owned() })
}

/// The page of the program and, below it, of every verb.
pub(super) fn manual() -> Result<Outcome, Failure> {
    let failed = |source| Failure::Local { attempt: "print the manual page".to_owned(), source };
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let man = clap_mangen::Man::new(verb.clone());
        man.render_name_section(&mut page).map_err(failed)?;
        man.render_synopsis_section(&mut page).map_err(failed)?;
        man.render_description_section(&mut page).map_err(failed)?;
        man.render_options_section(&mut page).map_err(failed)?;
    }
    Ok(Outcome::done(PlainText { text: String::from_utf8_lossy(&page).into_owned() }))
}
