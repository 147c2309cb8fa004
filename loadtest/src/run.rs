//! `run`: one measurement.

use std::process::ExitCode;

use crate::target::{Place, Target};

/// Loads a cluster for a while and says how it bore it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Runs it.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let target = Target::connect(&options.place, 1).await?;
    println!("{:?}", target.about());
    Ok(ExitCode::SUCCESS)
}
