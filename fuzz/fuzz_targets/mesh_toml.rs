//! Any text as `mesh.toml`.
#![no_main]

#[path = "../../crates/mesh/tests/soundness/mod.rs"]
mod soundness;

libfuzzer_sys::fuzz_target!(|text: &str| {
    soundness::examine(text);
});
