//! `./berth bench messaging`.
#![allow(clippy::print_stdout, reason = "a command speaks on standard output")]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use bench::messaging;
use clap::{Parser, Subcommand};

/// Measures this machine, and what we make of it.
#[derive(Debug, Parser)]
#[command(name = "berth bench", after_help = "Ends with 0 if every goal is met, with 1 if one is not.")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Outbox, relay, inbox and order sagas, over PostgreSQL and JetStream that wait for the disk
    Messaging {
        /// How many times raw and ours take turns
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Measures these alone
        #[arg(long, value_name = "PART")]
        only: Vec<messaging::Part>,
        /// Writes the figures as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let What::Messaging { rounds, only, json } = Options::parse().what;
    ensure!(!cfg!(debug_assertions), "built without optimization, which measures nothing: use `./berth bench`");
    let report = messaging::run(rounds.max(1), &only, |line| println!("{line}")).await?;
    println!("{}", report.table());
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
