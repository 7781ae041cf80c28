//! What resolving promises, checked for any text whatever: by the tests of this crate for some, by the fuzzers in `fuzz/` for many.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken promise is to be a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use mesh::{Placement, Plan, resolve};
use miette::{GraphicalReportHandler, GraphicalTheme};

const PLACEMENTS: [Placement; 3] =
    [Placement::Nodes, Placement::Loopback { block: [127, 42, 7], public_port: 18443 }, Placement::Containers];

/// Resolves for every placement, twice, and checks whatever comes out.
pub(crate) fn examine(text: &str) -> Vec<Plan> {
    let mut plans = Vec::new();
    for placement in PLACEMENTS {
        match (resolve("mesh.toml", text, &placement), resolve("mesh.toml", text, &placement)) {
            (Ok(plan), Ok(again)) => {
                assert_eq!(plan, again, "resolved twice, and differently");
                assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan, "the lock does not survive its own JSON");
                // Containers of one service share a name, so that nothing of a plan for them tells them apart.
                if placement != Placement::Containers {
                    check(&plan, placement);
                }
                assert_described(text);
                plans.push(plan);
            }
            (Err(diagnostics), Err(again)) => {
                assert_eq!(diagnostics.findings(), again.findings());
                assert!(!diagnostics.findings().is_empty(), "refused for no reason");
                let lines = text.split('\n').count();
                for finding in diagnostics.findings() {
                    assert!((1..=lines).contains(&finding.line()), "line {} of {lines}", finding.line());
                    assert!(!finding.message().contains("cannot be resolved"), "a gap that no rule told of");
                }
                let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
                handler.render_report(&mut String::new(), &diagnostics).unwrap();
            }
            (first, second) => panic!("resolved once and refused once: {first:?} {second:?}"),
        }
    }
    plans
}

/// Reads a plan; whether it was one. What it says may be nonsense, as nobody resolved it, but it can be asked.
pub(crate) fn examine_plan(text: &str) -> bool {
    let Ok(plan) = Plan::from_json(text) else { return false };
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan, "it does not survive its own JSON");
    for (service, instance) in plan.instances() {
        let _ = service.command_line(instance, |name| Some(name.to_owned()));
        assert!(plan.service(&service.name).is_some());
    }
    true
}

/// What resolves is valid by the schema, so that no editor complains of what is right.
fn assert_described(text: &str) {
    static SCHEMA: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::draft7::new(&mesh::schema()).unwrap());
    let document: serde_json::Value = toml::from_str(text).unwrap();
    let complaints: Vec<String> = SCHEMA.iter_errors(&document).map(|error| error.to_string()).collect();
    assert_eq!(complaints, Vec::<String>::new(), "{text}");
}

/// What every plan promises whoever reads it.
fn check(plan: &Plan, placement: Placement) {
    let instances: BTreeMap<&str, _> =
        plan.instances().map(|(service, instance)| (instance.name.as_str(), (service, instance))).collect();
    let mut units: Vec<&str> =
        instances.keys().copied().chain(plan.databases.iter().map(|database| database.name.as_str())).collect();
    units.extend(plan.events.as_ref().map(|events| events.server.as_str()));
    assert_eq!(units.iter().collect::<BTreeSet<_>>().len(), units.len(), "two units of one name");

    let mut listeners: Vec<(&str, u16)> =
        instances.values().map(|(_, instance)| (instance.host.as_str(), instance.port.get())).collect();
    listeners.extend(plan.databases.iter().map(|database| (database.host.as_str(), database.port.get())));
    listeners.extend(plan.events.iter().map(|events| (events.host.as_str(), events.port.get())));
    assert_eq!(listeners.iter().collect::<BTreeSet<_>>().len(), listeners.len(), "two listeners in one place");

    for route in &plan.gateway.routes {
        let service = plan.service(&route.service).unwrap();
        assert_eq!(service.route.as_ref(), Some(&route.prefix));
        assert_eq!(
            route.upstreams.len(),
            usize::from(service.replicas.max()),
            "a route reaches every instance there may be"
        );
        for upstream in &route.upstreams {
            let (owner, instance) = instances[upstream.instance.as_str()];
            assert_eq!((&owner.name, &instance.host, instance.port), (&route.service, &upstream.host, upstream.port));
        }
        assert!(
            !plan.gateway.routes.iter().any(|other| other != route && other.prefix.covers(&route.prefix)),
            "routes overlap"
        );
    }

    let mut started: BTreeSet<&str> = plan
        .databases
        .iter()
        .map(|database| database.name.as_str())
        .chain(plan.events.as_ref().map(|events| events.server.as_str()))
        .collect();
    for service in &plan.services {
        assert!(
            service.after.iter().all(|name| started.contains(name.as_str())),
            "{} waits for what starts later",
            service.name
        );
        started.insert(&service.name);
        assert_eq!(service.instances.len(), usize::from(service.replicas.max()));
        assert_eq!(
            service.instances.iter().filter(|instance| instance.start).count(),
            usize::from(service.replicas.start())
        );
        for instance in &service.instances {
            let runner = |name: &str| mesh::plan::COMMAND_VARIABLES.contains(&name).then(|| format!("/{name}"));
            assert!(!service.command_line(instance, runner).unwrap().is_empty());
            assert!(instance.environment["BERTH_LISTEN"].ends_with(&format!(":{}", instance.port)));
            for callee in &service.calls {
                let variable = format!("BERTH_PEER_{}", callee.to_uppercase().replace('-', "_"));
                let expected =
                    plan.service(callee).unwrap().instances.iter().map(|peer| format!("{}:{}", peer.host, peer.port));
                assert_eq!(instance.environment[&variable], expected.collect::<Vec<_>>().join(","));
            }
        }
    }

    let placed: usize = plan.nodes.iter().map(|node| node.instances.len()).sum();
    assert_eq!(placed, instances.len(), "every instance is on one node");
    for node in &plan.nodes {
        let mut memory = node.reserved_bytes.get();
        for name in &node.instances {
            let (service, instance) = instances[name.as_str()];
            assert_eq!(instance.node, node.name);
            assert!(service.cpu_millis <= node.cpu_millis);
            memory += service.memory_bytes.get();
        }
        memory += node.databases.iter().map(|name| plan.database(name).unwrap().memory_bytes.get()).sum::<u64>();
        memory += plan.events.iter().filter(|_| node.events).map(|events| events.memory_bytes.get()).sum::<u64>();
        assert!(memory <= node.memory_bytes.get(), "{} is overfull", node.name);
        if placement == Placement::Nodes {
            assert_eq!(node.host, format!("{}.{}", node.name, plan.domain));
        }
    }
    for database in &plan.databases {
        assert_eq!(plan.service(&database.owner).unwrap().database.as_ref(), Some(&database.name));
    }
}
