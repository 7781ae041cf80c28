//! How long a large mesh takes: 1,000 services on 200 nodes. The goal is 50 ms; what parsing the same text as TOML takes is the floor.
//!
//! `cargo bench -p mesh --bench resolve`

#![allow(clippy::print_stdout, reason = "the result is what it is for")]

use std::{
    fmt::{Error, Write as _},
    hint::black_box,
    time::Instant,
};

use mesh::{Placement, resolve};
use toml::de::DeTable;

const SERVICES: usize = 1_000;
const NODES: usize = 200;
/// All the databases are on the last of the nodes, the gateway, identity and the event bus with them.
const DATABASES: usize = 100;
const RUNS: usize = 21;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = declaration()?;
    let plan =
        resolve("mesh.toml", &text, &Placement::Nodes).map_err(|found| format!("{:?}", miette::Report::new(found)))?;
    let instances = plan.instances().count();
    println!(
        "{} services ({instances} instances) on {} nodes, {} KiB of text",
        plan.services.len(),
        plan.nodes.len(),
        text.len() >> 10
    );
    let resolving = median(|| drop(black_box(resolve("mesh.toml", black_box(&text), &Placement::Nodes))));
    let parsing = median(|| drop(black_box(DeTable::parse(black_box(&text)))));
    println!("resolve     {resolving:8.2} ms");
    println!("toml parse  {parsing:8.2} ms");
    println!("ratio       {:8.1}", resolving / parsing);
    Ok(())
}

/// Milliseconds of the middle one of several runs.
fn median(work: impl Fn()) -> f64 {
    let mut runs: Vec<f64> = std::iter::repeat_with(|| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1000.0
    })
    .take(RUNS)
    .collect();
    runs.sort_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}

fn declaration() -> Result<String, Error> {
    let mut text =
        "[mesh]\nname = \"large\"\n[sizes]\nlarge = { cpus = 16, memory = \"64GiB\", disk = \"1TiB\" }\n".to_owned();
    for node in 0..NODES - 1 {
        let runs: Vec<String> = (0..SERVICES)
            .filter(|service| service % (NODES - 1) == node)
            .map(|service| format!("\"{}\"", name(service)))
            .collect();
        writeln!(text, "[nodes.{}]\nsize = \"large\"\nruns = [{}]", word("n", node), runs.join(", "))?;
    }
    let databases: Vec<String> = (0..DATABASES).map(|database| format!("\"{}\"", word("d", database))).collect();
    writeln!(
        text,
        "[nodes.core]\nsize = \"large\"\nruns = [\"gateway\", \"identity\", \"nats\", {}]",
        databases.join(", ")
    )?;
    text.push_str("[events]\n[services.gateway]\n[services.identity]\nport = 8100\nroute = { prefix = \"/identity\", auth = \"none\" }\n");
    for service in 0..SERVICES {
        self::service(&mut text, service)?;
    }
    for database in 0..DATABASES {
        writeln!(text, "[databases.{}]\nport = {}", word("d", database), 20_000 + database)?;
    }
    Ok(text)
}

fn service(text: &mut String, service: usize) -> Result<(), Error> {
    let name = name(service);
    writeln!(text, "[services.{name}]\nport = {}\nreplicas = {{ min = 1, start = 2, max = 3 }}", 9_000 + service * 4)?;
    writeln!(text, "route = {{ prefix = \"/{name}\" }}\nemits = [\"{name}.>\"]")?;
    if service < DATABASES {
        writeln!(text, "database = \"{}\"", word("d", service))?;
    }
    if let Some(before) = service.checked_sub(7) {
        writeln!(text, "calls = [\"{}\"]\nconsumes = [\"{}.order.*\"]", self::name(before), self::name(before))?;
    }
    Ok(())
}

fn name(service: usize) -> String {
    word("s", service)
}

/// No hyphen: a number after one is an instance's.
fn word(prefix: &str, number: usize) -> String {
    format!("{prefix}{number}")
}
