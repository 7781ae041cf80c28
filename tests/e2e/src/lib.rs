//! A whole mesh for a test: the real `berth`, the real services, PostgreSQL and NATS, in a folder of the test's own.
//!
//! Here lives how a test brings a mesh up, speaks to it as a user would, and reaches its processes to do harm. What is
//! tested stands in `tests/`, one file a subject. Nothing here knows how the mesh is built inside: it goes through the
//! command line, the gateway, and process ids that `berth status --json` tells.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot have its mesh is to fail at once, loudly"
)]

mod caller;
pub mod example;
mod mesh;
mod shop;

pub use caller::{Answer, Caller};
pub use mesh::{Mesh, Unit, program, repository};
pub use shop::Shop;
