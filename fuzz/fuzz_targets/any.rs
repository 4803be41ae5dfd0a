//! All targets in one program, since each is the whole driver: `FUZZ_TARGET` says which.

#![no_main]

use std::sync::OnceLock;

static NAME: OnceLock<String> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let name = NAME.get_or_init(|| std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target"));
    nix_csi::fuzz::run(name, data);
});
