//! `./berth chaos`: one run, or one for each fault.
#![allow(clippy::print_stdout, reason = "a command speaks on standard output")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use chaos::{
    fault::Fault,
    run::{Counts, Order, Report, run},
};
use clap::{Parser, ValueEnum as _};

/// Torments a whole mesh, then counts what it has lost.
#[derive(Debug, Parser)]
#[command(
    name = "berth chaos",
    after_help = "Ends with 0 if everything holds, with 1 if something does not; then it says which command repeats the run."
)]
struct Options {
    /// Decides what is asked and what goes wrong when [default: drawn, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// What may go wrong, separated by commas [default: all that the shop promises to survive]
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// A run for each fault alone, instead of one with all of them
    #[arg(long)]
    each: bool,
    /// How many runs, with seeds counting up
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How long clients ask and faults strike, in minutes
    #[arg(long, default_value_t = 2.0, conflicts_with = "seconds")]
    minutes: f64,
    /// The same in seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// How many clients ask at once
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Writes what came out as JSON, an array of runs
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keeps the mesh's folder, with logs and data; it is kept anyway when something does not hold
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let mut reports = Vec::new();
    for order in orders(&options) {
        let names: Vec<String> = order.faults.iter().map(|fault| fault.name()).collect();
        println!("seed {}, {} s, {} clients: {}", order.seed, order.span.as_secs(), order.clients, names.join(", "));
        let report = run(&order, |line| println!("{line}")).await?;
        show(&report);
        reports.push(report);
        // After each run: a long series may be ended early.
        if let Some(file) = &options.report {
            std::fs::write(file, serde_json::to_string_pretty(&reports)?)?;
        }
    }
    println!("{}", table(&reports));
    Ok(if reports.iter().all(Report::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn orders(options: &Options) -> Vec<Order> {
    let seed = options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let faults = if options.faults.is_empty() { available() } else { options.faults.clone() };
    let sets: Vec<Vec<Fault>> =
        if options.each { faults.into_iter().map(|fault| vec![fault]).collect() } else { vec![faults] };
    let span = options.seconds.map_or(Duration::from_secs_f64(options.minutes * 60.0), Duration::from_secs);
    let order = |seed, faults: &Vec<Fault>| {
        let (faults, clients, keep) = (faults.clone(), options.clients, options.keep);
        Order { seed, faults, span, clients, keep }
    };
    (seed..seed + options.runs).flat_map(|seed| sets.iter().map(move |faults| order(seed, faults))).collect()
}

/// Everything that the shop promises to survive, but for what this machine has no means to do.
fn available() -> Vec<Fault> {
    let promised = Fault::value_variants().iter().copied().filter(|fault| fault.is_survivable());
    let (possible, impossible): (Vec<_>, Vec<_>) = promised.partition(|fault| fault.lacks().is_none());
    for fault in impossible {
        println!("skipped: {}: {}", fault.name(), fault.lacks().unwrap_or_default());
    }
    possible
}

/// All runs, as documents show them.
fn table(reports: &[Report]) -> String {
    let mut lines = vec![
        "| faults | struck | seed | orders acknowledged | unknown | confirmed, rejected, cancelled | events | result | again |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(reports.iter().map(|report| {
        let faults = if report.faults.len() > 4 { format!("{} mixed", report.faults.len()) } else { report.names() };
        let broken: Vec<_> = report.findings.iter().filter(|finding| !finding.holds()).map(|found| found.invariant).collect();
        let result = if broken.is_empty() { "all hold".to_owned() } else { format!("**broken**: {}", broken.join("; ")) };
        let Counts { acknowledged, unknown, confirmed, rejected, cancelled, events, .. } = report.counts;
        format!(
            "| {faults} | {} | {} | {acknowledged} | {unknown} | {confirmed}, {rejected}, {cancelled} | {events} | {result} | `{}` |",
            report.strikes.values().sum::<u32>(),
            report.seed,
            report.command()
        )
    }));
    lines.join("\n")
}

fn show(report: &Report) {
    let counts = &report.counts;
    println!(
        "{} orders of {} requests: {} acknowledged, {} unknown; {} confirmed, {} rejected, {} cancelled; {} events; quiet after {:.1} s",
        counts.orders,
        counts.requests,
        counts.acknowledged,
        counts.unknown,
        counts.confirmed,
        counts.rejected,
        counts.cancelled,
        counts.events,
        report.quiet_after_seconds
    );
    for finding in &report.findings {
        println!("{} {}", if finding.holds() { "holds " } else { "BROKEN" }, finding.invariant);
        for contradiction in &finding.contradictions {
            println!("         {contradiction}");
        }
    }
    if let Some(folder) = &report.kept {
        println!("the mesh lies in {}", folder.display());
    }
    if !report.holds() {
        println!("again: {}", report.command());
    }
}
