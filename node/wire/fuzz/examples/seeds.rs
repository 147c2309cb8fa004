//! Writes the seeds of every target to `DIR/<target>/`, beside what is there.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(dir) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIR");
        return ExitCode::from(2);
    };
    match write(&dir) {
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

fn write(dir: &std::path::Path) -> io::Result<usize> {
    let mut count = 0;
    for target in wardlock_fuzz::TARGETS {
        let own = dir.join(target.name);
        fs::create_dir_all(&own)?;
        for (at, seed) in (target.seeds)().iter().enumerate() {
            fs::write(own.join(format!("seed-{at:03}")), seed)?;
            count += 1;
        }
    }
    Ok(count)
}
