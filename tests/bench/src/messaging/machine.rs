//! What it was measured on, and under which settings; without those that make a commit mean something, nothing is measured.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use database::{Database, Statements as _};
use serde_json::Value;

use super::Servers;

/// What PostgreSQL must say of each.
const WANTED: [(&str, &str); 3] = [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")];
/// What is told beside them.
const TOLD: [&str; 3] = ["server_version", "wal_sync_method", "shared_buffers"];

/// What the servers run under.
///
/// # Errors
/// One of them does not wait for the disk: nothing that is measured then could be compared.
pub(super) async fn settings(servers: &Servers) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for (name, wanted) in WANTED {
        for database in [&servers.documents, &servers.items] {
            let value = show(database, name).await?;
            ensure!(value == wanted, "PostgreSQL runs with {name} = {value}: the figures would mean nothing");
            settings.insert(format!("PostgreSQL {name}"), value);
        }
    }
    for name in TOLD {
        settings.insert(format!("PostgreSQL {name}"), show(&servers.documents, name).await?);
    }
    let configuration: Value = serde_json::from_slice(&fs::read(servers.nats.configuration())?)?;
    let sync = configuration.pointer("/jetstream/sync_interval").and_then(Value::as_str).context("no sync_interval")?;
    ensure!(sync == "always", "JetStream runs with sync_interval = {sync}: the figures would mean nothing");
    settings.insert("JetStream sync_interval".into(), sync.into());
    settings.insert("JetStream server_version".into(), servers.client.server_info().version);
    Ok(settings)
}

async fn show(database: &Database, name: &str) -> Result<String> {
    Ok(database.get().await?.one(&format!("SHOW {name}"), &[]).await?.get(0))
}

/// The machine, and how busy it was.
pub(super) fn describe() -> BTreeMap<&'static str, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    BTreeMap::from([
        ("processor", model.unwrap_or("unknown").to_owned()),
        ("cores", cores.to_string()),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load average", read("/proc/loadavg").trim().to_owned()),
    ])
}
