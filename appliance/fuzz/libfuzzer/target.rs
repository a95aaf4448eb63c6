//! One target, by the name of its program.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdnsd_fuzz::Target;

static TARGET: LazyLock<&Target> =
    LazyLock::new(|| Target::named(env!("CARGO_BIN_NAME")).expect("it is named after a target"));

fuzz_target!(|bytes: &[u8]| {
    (TARGET.run)(bytes);
});
