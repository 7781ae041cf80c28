//! What holds for every text: no panic, the same answer each time, and a plan that is sound whenever there is one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use mesh::{Placement, Plan, Rule, resolve};
use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;

const SHOP: &str = include_str!("../../../mesh.toml");
const PLACEMENTS: [Placement; 2] = [Placement::Nodes, Placement::Loopback { block: [127, 42, 7], public_port: 18443 }];

/// Resolves for every placement, twice, and checks whatever comes out.
fn examine(text: &str) -> Vec<Plan> {
    let mut plans = Vec::new();
    for placement in PLACEMENTS {
        match (resolve("mesh.toml", text, &placement), resolve("mesh.toml", text, &placement)) {
            (Ok(plan), Ok(again)) => {
                assert_eq!(plan, again, "resolved twice, and differently");
                check(&plan, placement);
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
    assert_eq!(&Plan::from_json(&plan.to_json()).unwrap(), plan, "the lock does not survive its own JSON");

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

/// One service of a random mesh.
#[derive(Debug, Clone)]
struct Draft {
    nodes: Vec<bool>,
    replicas: Option<(u16, u16, u16)>,
    memory_mib: u32,
    port: u16,
    calls: Vec<bool>,
    route: bool,
    database: bool,
    emits: bool,
    consumes: Option<prop::sample::Index>,
    java: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let replicas = prop::option::of(
        (1..4_u16, 0..3_u16, 0..4_u16).prop_map(|(min, more, most)| (min, min + more, min + more + most)),
    );
    let places = (prop::collection::vec(any::<bool>(), 3), replicas, 16..600_u32, 8000..8040_u16);
    let links = (
        prop::collection::vec(prop::bool::weighted(0.2), 8),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(any::<prop::sample::Index>()),
        any::<bool>(),
    );
    (places, links).prop_map(
        |((nodes, replicas, memory_mib, port), (calls, route, database, emits, consumes, java))| Draft {
            nodes,
            replicas,
            memory_mib,
            port,
            calls,
            route,
            database,
            emits,
            consumes,
            java,
        },
    )
}

/// The text of a mesh of these services. Calls go to earlier services only; ports, memory and places are left to chance.
fn declaration(drafts: &[Draft], counts: &[u16], spread: bool) -> String {
    let mut text = "[mesh]\nname = \"random\"\n[sizes]\nbig = { cpus = 8, memory = \"4GiB\" }\n".to_owned();
    let emitters: Vec<usize> = (0..drafts.len()).filter(|index| drafts[*index].emits).collect();
    for (node, count) in counts.iter().enumerate() {
        let runs: Vec<String> =
            (0..drafts.len()).filter(|index| drafts[*index].nodes[node]).map(|index| format!("\"s{index}\"")).collect();
        writeln!(text, "[nodes.n{node}]\nsize = \"big\"\ncount = {count}\nruns = [{}]", runs.join(", ")).unwrap();
    }
    let databases: Vec<String> =
        (0..drafts.len()).filter(|index| drafts[*index].database).map(|index| format!("\"d{index}\"")).collect();
    let bus = if emitters.is_empty() { "" } else { "\"nats\", " };
    writeln!(
        text,
        "[nodes.core]\nsize = \"big\"\nruns = [{bus}\"gateway\", \"identity\"{}{}]",
        if databases.is_empty() { "" } else { ", " },
        databases.join(", ")
    )
    .unwrap();
    text.push_str(
        "[services.gateway]\nport = 443\n[services.identity]\nroute = { prefix = \"/identity\", auth = \"none\" }\n",
    );
    if !emitters.is_empty() {
        text.push_str("[events]\n");
    }
    for (index, draft) in drafts.iter().enumerate() {
        let port = if spread { 20_000 + u16::try_from(index).unwrap() * 100 } else { draft.port };
        writeln!(text, "[services.s{index}]\nport = {port}\nmemory = \"{}MiB\"", draft.memory_mib).unwrap();
        if draft.java {
            text.push_str("runtime = \"java\"\nartifact = \"build/app.jar\"\nargs = [\"--port=${PORT}\"]\n");
        }
        if let Some((min, start, max)) = draft.replicas {
            writeln!(text, "replicas = {{ min = {min}, start = {start}, max = {max} }}").unwrap();
        }
        let calls: Vec<String> =
            (0..index.min(8)).filter(|callee| draft.calls[*callee]).map(|callee| format!("\"s{callee}\"")).collect();
        writeln!(text, "calls = [{}]", calls.join(", ")).unwrap();
        if draft.route {
            writeln!(text, "route = {{ prefix = \"/s{index}\" }}").unwrap();
        }
        if draft.database {
            writeln!(text, "database = \"d{index}\"").unwrap();
        }
        if draft.emits {
            writeln!(text, "emits = [\"e{index}.>\"]").unwrap();
        }
        if let (Some(consumed), false) = (&draft.consumes, emitters.is_empty()) {
            writeln!(text, "consumes = [\"e{}.thing.*\"]", emitters[consumed.index(emitters.len())]).unwrap();
        }
    }
    for (index, _) in drafts.iter().enumerate().filter(|(_, draft)| draft.database) {
        writeln!(text, "[databases.d{index}]\nport = {}", 5000 + index).unwrap();
    }
    text
}

/// A small change of a text, as a slip of the hand or a hostile one might make it.
#[derive(Debug, Clone)]
enum Slip {
    Delete(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    SwapLines(prop::sample::Index, prop::sample::Index),
    RepeatLine(prop::sample::Index),
    ReplaceWord(prop::sample::Index, String),
}

fn slip() -> impl Strategy<Value = Slip> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "\"\"",
            "0",
            "-1",
            "1e400",
            "nan",
            "true",
            "[]",
            "{}",
            "{ min = 0 }",
            "65536",
            "0x1F",
            "99999999999999999999",
            "1979-05-27",
            "\"nats\"",
            "\"gateway\"",
            "\"identity\"",
            "\">\"",
            "\"/\"",
            "\"a-1\"",
            "\"ü\"",
            "\"\\u0000\"",
            "[mesh]",
            "[[mesh]]",
            "services",
            "calls = [\"gateway\", \"identity\"]",
            "replicas = 256",
            "count = 256",
            "\"1KiB\"",
            "\"9TiB\"",
            "runtime = \"wine\"",
            "environment = { PATH = \"x\" }",
            "secrets = [\"s\"]",
            "args = [\"${X}\"]",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ];
    prop_oneof![
        (any::<prop::sample::Index>(), 1..30_usize).prop_map(|(at, length)| Slip::Delete(at, length)),
        (any::<prop::sample::Index>(), word.clone()).prop_map(|(at, text)| Slip::Insert(at, text)),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(a, b)| Slip::SwapLines(a, b)),
        any::<prop::sample::Index>().prop_map(Slip::RepeatLine),
        (any::<prop::sample::Index>(), word).prop_map(|(at, text)| Slip::ReplaceWord(at, text)),
    ]
}

fn slipped(text: &str, slip: &Slip) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut lines: Vec<&str> = text.split('\n').collect();
    match slip {
        Slip::Delete(at, length) if !characters.is_empty() => {
            let at = at.index(characters.len());
            characters[..at].iter().chain(characters.iter().skip(at + length)).collect()
        }
        Slip::Insert(at, more) => {
            let at = at.index(characters.len() + 1);
            characters[..at].iter().copied().chain(more.chars()).chain(characters[at..].iter().copied()).collect()
        }
        Slip::SwapLines(a, b) => {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
            lines.join("\n")
        }
        Slip::RepeatLine(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines[at]);
            lines.join("\n")
        }
        Slip::ReplaceWord(at, word) => {
            let mut words: Vec<&str> = text.split(' ').collect();
            let at = at.index(words.len());
            words[at] = word;
            words.join(" ")
        }
        Slip::Delete(..) => String::new(),
    }
}

proptest! {
    #[test]
    fn any_text_is_resolved_or_refused(text in "\\PC{0,200}") {
        examine(&text);
    }

    #[test]
    fn any_toml_is_resolved_or_refused(lines in prop::collection::vec("(\\[\\[?[a-z]{1,8}(\\.[a-z-]{1,9}){0,2}\\]\\]?|[a-z]{1,9} = (\"[a-z0-9/.-]{0,9}\"|-?[0-9]{1,20}|\\[\\]|\\{ [a-z]{1,5} = 1 \\}|true|1\\.5))", 0..30)) {
        examine(&lines.join("\n"));
    }

    #[test]
    fn a_slip_in_the_shop_is_resolved_or_refused(slips in prop::collection::vec(slip(), 1..6)) {
        let text = slips.iter().fold(SHOP.to_owned(), |text, slip| slipped(&text, slip));
        examine(&text);
    }

    #[test]
    fn a_random_mesh_resolves_soundly_or_for_a_reason_is_refused(drafts in prop::collection::vec(draft(), 0..8), counts in prop::collection::vec(1..4_u16, 3)) {
        let text = declaration(&drafts, &counts, false);
        examine(&text);
    }

    #[test]
    fn a_mesh_that_fits_resolves(drafts in prop::collection::vec(draft(), 0..8), counts in prop::collection::vec(1..4_u16, 3)) {
        let text = declaration(&drafts, &counts, true).replace("memory = \"4GiB\"", "memory = \"1TiB\"");
        // Chance may put a service on no node at all; nothing else is left that could be wrong.
        let homeless = drafts.iter().any(|draft| !draft.nodes.contains(&true));
        match resolve("mesh.toml", &text, &Placement::Nodes) {
            Ok(_) => prop_assert!(!homeless),
            Err(diagnostics) => prop_assert!(homeless && diagnostics.findings().iter().all(|finding| finding.rule() == Rule::Unplaced), "{diagnostics:?}\n{text}"),
        }
        examine(&text);
    }
}
