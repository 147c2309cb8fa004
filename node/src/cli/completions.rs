//! `wardlock completions`: for shells.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{failure::Failure, output};

/// Print the completions for a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock completions bash > /etc/bash_completion.d/wardlock")]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "wardlock", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
