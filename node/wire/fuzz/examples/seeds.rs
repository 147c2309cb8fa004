//! Writes the seeds of every target to `DIR/<target>/`, beside what is there.

use std::{env, path::PathBuf, process::ExitCode};

use wardlock_fuzz::{TARGETS, write_seeds};

fn main() -> ExitCode {
    let Some(dir) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIR");
        return ExitCode::from(2);
    };
    let written: std::io::Result<usize> =
        TARGETS.iter().map(|target| write_seeds(&dir, target.name, target.seeds)).sum();
    match written {
        Ok(count) => {
            println!("{count} seeds in {}", dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}
