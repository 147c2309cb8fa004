//! Every target in one binary, which takes a twentieth of the time to build: `WARDLOCK_FUZZ_TARGET` names the one
//! that is fuzzed.
#![no_main]

use std::sync::OnceLock;

use wardlock_fuzz::{Target, begin};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("WARDLOCK_FUZZ_TARGET").expect("WARDLOCK_FUZZ_TARGET names a target");
        TARGET.get_or_init(|| begin(&name));
    },
    |data: &[u8]| {
        (TARGET.get().expect("begun").run)(data)
    }
);
