//! The targets in front of libFuzzer: VSND_FUZZ_TARGET names one, the arguments are libFuzzer's. See `run.sh`.
#![no_main]
#![allow(unsafe_code)] // libFuzzer calls in by names of its own

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vsnd_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn target() -> &'static Target {
    let name = std::env::var("VSND_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("VSND_FUZZ_TARGET is {name:?}, and not one of {}", names.join(", "));
    })
}

fuzz_target!(|input: &[u8]| {
    TARGET.get_or_init(target).run(input);
});
