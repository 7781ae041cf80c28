//! A plan for the eye: what stands where and how full it is, what runs, how it is reached.

use std::fmt::Display;

use comfy_table::Table;
use mesh::{
    Bytes, Plan,
    plan::{Database, Events, Node, Replicas, Route, RouteAuth, Runtime},
};

use crate::view::empty_table;

/// Upstreams of a route that are listed one by one.
const MOST_UPSTREAMS: usize = 8;

/// The plan as tables, `width` columns wide where that is known.
pub fn of(plan: &Plan, width: Option<u16>) -> String {
    let mut parts = vec![
        format!("{}: {} at {}", plan.name, plan.domain, plan.gateway.public_url),
        titled("Nodes, with all instances up to `max`", nodes(plan, width)),
        titled("Services, in start order", services(plan, width)),
        titled("Routes", routes(plan, width)),
    ];
    if !plan.databases.is_empty() {
        parts.push(titled("Databases", databases(&plan.databases, width)));
    }
    if let Some(events) = &plan.events {
        let bus = format!(
            "Events: {} on {}, {}, {} of disk",
            events.server, events.node, events.memory_bytes, events.storage_bytes
        );
        parts.push(titled(&bus, streams(events, width)));
    }
    parts.join("\n\n") + "\n"
}

fn titled(title: &str, table: Table) -> String {
    let text = table.to_string();
    // Padding at the end of a line would only wrap.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{title}\n{}", lines.join("\n"))
}

fn nodes(plan: &Plan, width: Option<u16>) -> Table {
    let mut table = empty_table(width);
    table.set_header(["node", "size", "memory", "", "cpu limits", "disk", "runs"]);
    for node in &plan.nodes {
        let load = Load::of(plan, node);
        table.add_row([
            node.name.to_string(),
            node.size.to_string(),
            format!("{} of {}", load.memory, node.memory_bytes),
            format!("{} %", load.memory_percent),
            format!("{} on {} cores", cores(load.cpu_millis), node.cpu_millis),
            node.disk_bytes.to_string(),
            joined(&load.runs),
        ]);
    }
    table
}

/// What may be used of a node when everything on it is scaled up and uses all it may.
#[derive(Debug, PartialEq, Eq)]
struct Load {
    /// The system's part included.
    memory: Bytes,
    memory_percent: u64,
    /// The sum of the limits; above the node's cores they share.
    cpu_millis: u64,
    runs: Vec<String>,
}

impl Load {
    fn of(plan: &Plan, node: &Node) -> Self {
        let instances = plan.instances().filter(|(_, instance)| instance.node == node.name);
        let mut tenants: Vec<_> = instances
            .map(|(service, instance)| (instance.name.to_string(), service.memory_bytes, service.cpu_millis))
            .collect();
        let databases = plan.databases.iter().filter(|database| database.node == node.name);
        tenants.extend(databases.map(|own| (own.name.to_string(), own.memory_bytes, own.cpu_millis)));
        let bus = plan.events.iter().filter(|events| events.node == node.name);
        tenants.extend(bus.map(|own| (own.server.to_string(), own.memory_bytes, own.cpu_millis)));
        let memory = node.reserved_bytes.get() + tenants.iter().map(|(_, memory, _)| memory.get()).sum::<u64>();
        Self {
            memory: Bytes::new(memory),
            memory_percent: memory.saturating_mul(100).checked_div(node.memory_bytes.get()).unwrap_or_default(),
            cpu_millis: tenants.iter().map(|(_, _, cpu)| u64::from(cpu.get())).sum(),
            runs: tenants.into_iter().map(|(name, ..)| name).collect(),
        }
    }
}

/// Thousandths of a core as a person writes cores.
fn cores(millis: u64) -> String {
    // Display only: far below what a double holds exactly.
    (millis as f64 / 1000.0).to_string()
}

fn services(plan: &Plan, width: Option<u16>) -> Table {
    let mut table = empty_table(width);
    table.set_header([
        "service",
        "runtime",
        "instances",
        "memory",
        "cpu",
        "route",
        "calls",
        "database",
        "emits",
        "consumes",
    ]);
    for service in &plan.services {
        table.add_row([
            service.name.to_string(),
            runtime(service.runtime).to_owned(),
            replicas(service.replicas),
            service.memory_bytes.to_string(),
            service.cpu_millis.to_string(),
            maybe(service.route.as_ref()),
            joined(&service.calls),
            maybe(service.database.as_ref()),
            joined(&service.emits),
            joined(&service.consumes),
        ]);
    }
    table
}

fn runtime(runtime: Runtime) -> &'static str {
    mesh::Template::of(runtime).name
}

/// `2`, or `2 (1 to 4)` when it can be scaled.
pub(crate) fn replicas(replicas: Replicas) -> String {
    let (min, start, max) = (replicas.min(), replicas.start(), replicas.max());
    if min == max { start.to_string() } else { format!("{start} ({min} to {max})") }
}

fn routes(plan: &Plan, width: Option<u16>) -> Table {
    let mut table = empty_table(width);
    table.set_header(["prefix", "token", "service", "upstreams"]);
    for route in &plan.gateway.routes {
        table.add_row([
            route.prefix.to_string(),
            auth(route.auth).to_owned(),
            route.service.to_string(),
            upstreams(route),
        ]);
    }
    table
}

fn auth(auth: RouteAuth) -> &'static str {
    match auth {
        RouteAuth::None => "none",
        RouteAuth::Optional => "optional",
        RouteAuth::Required => "required",
    }
}

fn upstreams(route: &Route) -> String {
    let mut lines: Vec<String> = route
        .upstreams
        .iter()
        .take(MOST_UPSTREAMS)
        .map(|upstream| format!("{} {}:{}", upstream.instance, upstream.host, upstream.port))
        .collect();
    if let Some(more @ 1..) = route.upstreams.len().checked_sub(MOST_UPSTREAMS) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn databases(databases: &[Database], width: Option<u16>) -> Table {
    let mut table = empty_table(width);
    table.set_header(["database", "owner", "memory", "cpu", "address"]);
    for database in databases {
        table.add_row([
            database.name.to_string(),
            database.owner.to_string(),
            database.memory_bytes.to_string(),
            database.cpu_millis.to_string(),
            format!("{}:{}", database.host, database.port),
        ]);
    }
    table
}

fn streams(events: &Events, width: Option<u16>) -> Table {
    let mut table = empty_table(width);
    table.set_header(["from", "subjects", "to"]);
    for stream in &events.streams {
        let consumers =
            stream.consumers.iter().map(|consumer| format!("{}: {}", consumer.name, joined(&consumer.filters)));
        table.add_row([stream.name.to_string(), joined(&stream.subjects), consumers.collect::<Vec<_>>().join("\n")]);
    }
    table
}

fn joined<T: Display>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn maybe<T: Display>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use mesh::Placement;

    const SHOP: &str = include_str!("../../../mesh.toml");

    #[test]
    fn the_shop_is_shown() {
        let plan = mesh::resolve("mesh.toml", SHOP, &Placement::Nodes).unwrap();
        insta::assert_snapshot!(super::of(&plan, None));
    }
}
