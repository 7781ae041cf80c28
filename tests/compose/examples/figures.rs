//! Measures the shop in containers and prints tables of Markdown: `./berth bench containers`.
//!
//! Images are built as for a registry, so the first run takes its time. Sizes are those of `docker save`, compressed by gzip as a
//! registry keeps layers. Memory is looked at when the shop has been up, and idle, for a minute.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails is to fail loudly, and to print"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use compose::Stack;

const IDLE: Duration = Duration::from_secs(60);
const MEBIBYTE: f64 = 1_048_576.0;

#[tokio::main]
async fn main() {
    let stack = Stack::shop_of_this_repository().await;
    stack.build(&[]);
    machine(&stack);
    sizes(&stack);
    let start = Instant::now();
    stack.up().await;
    println!("\nFrom `up` to every container healthy: {:.0} s", start.elapsed().as_secs_f64());
    tokio::time::sleep(IDLE).await;
    memory(&stack);
}

fn machine(stack: &Stack) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    let engine = stack.engine(&["version", "--format", "{{.Server.Version}}"]);
    println!("Linux {}, {cores} cores, engine {}", release.trim(), engine.trim());
}

fn sizes(stack: &Stack) {
    println!("\n| image | compressed, MiB | on disk, MiB |\n|---|--:|--:|");
    let services = stack.plan().services.iter().map(|service| stack.image(&service.name));
    let others = ["berth", "events", "database"].map(|image| stack.image(image));
    for image in services.chain(others).chain(stack.base_images()) {
        println!(
            "| {} | {:.1} | {:.1} |",
            image,
            stack.compressed_size(&image) / MEBIBYTE,
            stack.size(&image) / MEBIBYTE
        );
    }
}

/// Resident: the one process of a service, or the first of a database. Whole: what the engine counts for the container, page cache
/// that could be dropped aside.
fn memory(stack: &Stack) {
    let whole = stack.memory();
    let mut containers = stack.containers();
    containers.sort_by_key(|container| container.text("/Name").to_owned());
    println!("\n| container | resident, MiB | whole, MiB | limit, MiB |\n|---|--:|--:|--:|");
    let mut sum = 0.0;
    for (container, resident) in containers.iter().zip(stack.resident(&containers)) {
        let used = whole.get(container.id()).copied().unwrap();
        sum += used;
        let limit = container.number("/HostConfig/Memory") >> 20;
        let name = container.text("/Name").trim_start_matches('/');
        println!("| {name} | {:.1} | {:.1} | {limit} |", resident / MEBIBYTE, used / MEBIBYTE);
    }
    println!("| together | | {:.0} | |", sum / MEBIBYTE);
}
