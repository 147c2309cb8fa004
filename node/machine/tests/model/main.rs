//! Random histories against a reference model that was written from the promises alone.
//!
//! A history is some hundreds of commands of few sessions about few locks, so that they are in each other's
//! way. After every command the model and the machine must agree on the outcome, on the effects and on all
//! that can be seen; and the machine must come to the same state however the commands are packed into
//! batches, as a leader's, as a follower's, and after any restore from a snapshot. See `model` for what the
//! promises leave open, and `lanes` for the four ways.
//!
//! `PROPTEST_CASES=100000 cargo test --release -p wardlock-machine --test model` is a campaign; a failing
//! history is cut down and printed. `.ci/planted` shows that mistakes are found, and after how many
//! histories.
//!
//! What is *not* compared here: work that comes in pages and bounds of thousands, which `limits` has.

#![allow(clippy::disallowed_methods, reason = "the test reads its environment; the machine does not")]

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

mod answers;
mod author;
mod census;
mod configs;
mod deadlocks;
mod events;
mod hooks;
mod lanes;
mod locks;
mod model;
mod ops;
mod services;
mod window;

use census::Census;

/// How many histories are tried where the environment does not say.
const CASES: u32 = 140;

/// How many are counted, always the same.
const COUNTED: u32 = 100;

fn config() -> ProptestConfig {
    let said = |name| std::env::var_os(name).is_some();
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if said("PROPTEST_CASES") { default.cases } else { CASES },
        max_shrink_iters: if said("PROPTEST_MAX_SHRINK_ITERS") { default.max_shrink_iters } else { 5_000 },
        // To cut a history down to what matters takes this long at the most, in milliseconds.
        max_shrink_time: if said("PROPTEST_MAX_SHRINK_TIME") { default.max_shrink_time } else { 60_000 },
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_machine_does_what_the_model_says(history in ops::history()) {
        lanes::run(&history, &mut Census::default())?;
    }
}

/// The same histories each time: what they reach is a property of the generator.
#[test]
fn the_histories_reach_every_kind_of_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut census = Census::default();
    for _ in 0..COUNTED {
        let history = ops::history().new_tree(&mut runner).expect("every history is one").current();
        lanes::run(&history, &mut census).expect("the machine does what the model says");
    }
    println!("{census}");
    assert_eq!(census.missing(), Vec::<String>::new(), "too seldom in {COUNTED} histories");
}
