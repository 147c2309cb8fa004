//! Every target holds for its seeds, for seeds that were changed, and for each input that once failed.

use std::{collections::BTreeSet, env, fs, path::Path};

use wardlock_fuzz::{TARGETS, random::Random};

/// How often seeds are changed and tried, for each target; `WARDLOCK_FUZZ_TRIES` says another number.
const TRIES: usize = 1_500;

fn regressions() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions"))
}

#[test]
fn every_seed_holds() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        for seed in seeds {
            (target.run)(&seed);
        }
        (target.run)(&[]);
    }
}

#[test]
fn every_input_that_once_failed_holds() {
    let mut count = 0;
    for target in TARGETS {
        let Ok(dir) = fs::read_dir(regressions().join(target.name)) else { continue };
        for file in dir {
            let path = file.unwrap().path();
            println!("{}", path.display());
            (target.run)(&fs::read(path).unwrap());
            count += 1;
        }
    }
    assert!(count > 0, "there are regressions, and they are found");
}

#[test]
fn each_regression_is_of_a_target_and_each_target_has_a_binary() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    let listed = |path: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert!(listed(regressions()).iter().all(|name| names.contains(name.as_str())));
    let binaries = listed(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz_targets")));
    assert_eq!(binaries.iter().map(String::as_str).collect::<BTreeSet<_>>(), names);
}

/// A failure prints the target and the bytes.
#[test]
fn changed_seeds_hold() {
    let tries = env::var("WARDLOCK_FUZZ_TRIES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(TRIES);
    for target in TARGETS {
        let seeds = (target.seeds)();
        // What opens whole files takes a hundred times as long.
        let tries = if target.name.starts_with("log_i") || target.name == "log_replay" { tries / 20 } else { tries };
        for number in 0..tries {
            let mut random = Random::new(number as u64);
            let mut bytes = seeds[random.below(seeds.len())].clone();
            random.mutate(&mut bytes);
            let shown = Shown(target.name, &bytes);
            (target.run)(&bytes);
            drop(shown);
        }
    }
}

/// Says what was tried, where it is dropped by a panic.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} failed with {:?}", self.0, self.1);
        }
    }
}
