//! Any text as `mesh.lock.json`.
#![no_main]

#[path = "../../crates/mesh/tests/soundness/mod.rs"]
mod soundness;

libfuzzer_sys::fuzz_target!(|text: &str| {
    soundness::examine_plan(text);
});
