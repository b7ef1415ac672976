//! One target under libFuzzer: `RINGFENCE_FUZZ_TARGET=policy ringfence-fuzz CORPUS`. `cargo xtask fuzz` builds and starts it.
#![no_main]
#![expect(
    clippy::expect_used,
    reason = "without a target there is nothing to do"
)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name =
        std::env::var("RINGFENCE_FUZZ_TARGET").expect("RINGFENCE_FUZZ_TARGET names no target");
    ringfence_fuzz::find(&name).expect("RINGFENCE_FUZZ_TARGET names an unknown target")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
