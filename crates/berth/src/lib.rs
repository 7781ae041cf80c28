//! `berth`, the command line: runs a declared mesh on this machine and speaks to it while it runs.
//!
//! `cli` says what can be asked for, `commands` does it. `running` is a mesh that runs, from `project` (where things
//! lie), `local` (its addresses), `secrets`, `mesh_units` (from the plan to units) and `supervisor` (which keeps units
//! running); `compose` writes the same mesh as containers, `contained` is what runs inside of them, `engine` speaks to them, and
//! `plan_servers` says for both what the databases and the event bus are. Other commands reach a mesh through `control`, and its services through `operator`. `picture` and
//! `graph` show a plan; `detect` and `starter` make the first `mesh.toml` of a folder. A library only so that tests can reach its rooms.

pub mod called;
pub mod cli;
pub mod commands;
pub mod compose;
pub mod contained;
pub mod control;
pub mod detect;
pub mod engine;
pub mod exec;
pub mod failure;
pub mod graph;
pub mod local;
pub mod lock;
pub mod login;
pub mod mesh_units;
pub mod operator;
pub mod picture;
pub mod plan_servers;
pub mod project;
pub mod running;
pub mod secrets;
pub mod socket_folder;
pub mod starter;
pub mod supervisor;
pub mod usage;
pub mod view;
pub mod walkthrough;
