//! What holds for every text: no panic, the same answer each time, and a plan that is sound whenever there is one. `fuzz/` runs the same
//! checks under a fuzzer, for as long as somebody lets it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod soundness;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use mesh::{Placement, Rule, resolve};
use proptest::prelude::*;
use soundness::{examine, examine_plan};

const SHOP: &str = include_str!("../../../mesh.toml");
/// What the fuzzers begin with.
struct Seeds {
    declarations: Vec<String>,
    plans: Vec<String>,
}

static SEEDS: LazyLock<Seeds> =
    LazyLock::new(|| Seeds { declarations: corpus("mesh_toml"), plans: corpus("plan_json") });

fn corpus(target: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn the_seeds_of_the_fuzzers_are_what_they_are_for() {
    let resolves = |text: &&String| !examine(text).is_empty();
    assert!(
        SEEDS.declarations.iter().filter(resolves).count() >= 3,
        "they resolve, or the fuzzer never gets past reading"
    );
    for plan in &SEEDS.plans {
        assert!(examine_plan(plan), "not a plan any more: write it anew with `berth plan --json`");
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
    fn a_slip_in_a_seed_is_resolved_or_refused(seed in any::<prop::sample::Index>(), slips in prop::collection::vec(slip(), 1..6)) {
        examine(&slips.iter().fold(seed.get(&SEEDS.declarations).clone(), |text, slip| slipped(&text, slip)));
    }

    #[test]
    fn a_slip_in_a_plan_is_read_or_refused(seed in any::<prop::sample::Index>(), slips in prop::collection::vec(slip(), 1..4)) {
        examine_plan(&slips.iter().fold(seed.get(&SEEDS.plans).clone(), |text, slip| slipped(&text, slip)));
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
