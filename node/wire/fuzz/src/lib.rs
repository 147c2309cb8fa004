//! What any bytes may do to Wardlock's decoders: nothing but be refused.
//!
//! Each [`Target`] is a function of bytes that panics where something does not hold. libFuzzer calls it with
//! bytes that it makes up (`fuzz_targets/`, one line each); an ordinary test (`tests/inputs.rs`) calls it with the
//! seeds, with changed seeds, and with every input that once failed.
//!
//! ```text
//! node/wire/fuzz/run 60                           every target for a minute
//! cargo test --manifest-path node/wire/fuzz/Cargo.toml --no-default-features
//! cargo run  --manifest-path node/wire/fuzz/Cargo.toml --no-default-features --example seeds -- DIR
//! ```
//!
//! # Promises that are held to
//! 1. Nothing panics: an error or a value, whatever the bytes.
//! 2. What is held meanwhile is bounded by the length of the input, see [`within`].
//! 3. What was taken can be given back: decoding, encoding and decoding again gives the same.
//! 4. What a checksum or a bound should refuse is refused.
//! 5. What was taken does no harm later: a state that was restored, a log that was opened is used.
//!
//! An input that failed stands in `regressions/<target>/` for good.

#![forbid(unsafe_code)]

pub mod edge;
pub mod http;
pub mod image;
pub mod log;
pub mod machine;
pub mod placement;
pub mod random;
pub mod seeds;
pub mod snapshot;
pub mod wire;

/// One thing that is fed bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// As the binary, the corpus and the regressions are called.
    pub name: &'static str,
    /// Panics where something does not hold.
    pub run: fn(&[u8]),
    /// What is worth beginning with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident: $run:path, $seeds:path;)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $run, seeds: $seeds },)*];
    };
}

targets! {
    frames: wire::frames, seeds::frames;
    messages: wire::messages, seeds::messages;
    raft_messages: wire::raft_messages, seeds::raft_messages;
    log_rows: log::rows, seeds::log_rows;
    log_marks: log::marks, seeds::log_marks;
    log_replay: log::replay, seeds::log_replay;
    log_images: log::images, seeds::log_images;
    snapshot_records: log::snapshot_records, seeds::snapshot_records;
    batches: machine::batches, seeds::batches;
    commands: machine::commands, seeds::commands;
    queries: machine::queries, seeds::queries;
    machine_snapshots: snapshot::snapshots, seeds::machine_snapshots;
    changes: placement::changes, seeds::changes;
    maps: placement::maps, seeds::maps;
    http_paths: http::paths, seeds::http_paths;
    http_calls: http::calls, seeds::http_calls;
    http_streams: http::streams, seeds::http_streams;
    names: edge::names, seeds::names;
    config: edge::config, seeds::config;
    certificates: edge::certificates, seeds::certificates;
}

/// Before the first execution: the seeds are put into `DIR/<name>/`, where the environment's `WARDLOCK_FUZZ_SEEDS`
/// says `DIR`. A binary says here what it is for, and links nothing else: libFuzzer looks at all of a binary's
/// counters after every execution.
pub fn begin(name: &str, seeds: fn() -> Vec<Vec<u8>>) {
    if let Some(dir) = std::env::var_os("WARDLOCK_FUZZ_SEEDS") {
        write_seeds(dir.as_ref(), name, seeds).expect("the directory of the corpora can be written");
    }
}

/// Writes seeds to `dir/<name>/`, beside what is there; how many there are.
pub fn write_seeds(dir: &std::path::Path, name: &str, seeds: fn() -> Vec<Vec<u8>>) -> std::io::Result<usize> {
    let own = dir.join(name);
    std::fs::create_dir_all(&own)?;
    let seeds = seeds();
    for (at, seed) in seeds.iter().enumerate() {
        std::fs::write(own.join(format!("seed-{at:03}")), seed)?;
    }
    Ok(seeds.len())
}

/// Does the work and makes sure that it never held more than `most` bytes of the heap at once.
pub fn within<T>(most: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let mut done = None;
    let held = allocation_counter::measure(|| done = Some(work()));
    assert!(held.bytes_max <= most as u64, "{what} held {} bytes at once, of {most} that it may", held.bytes_max);
    done.expect("the work was done")
}
