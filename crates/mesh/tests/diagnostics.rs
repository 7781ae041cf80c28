//! What a person sees who declared something that cannot work: one bad declaration for each rule, and how it is told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mesh::{Diagnostics, Placement, Rule, resolve};
use miette::{Diagnostic as _, GraphicalReportHandler, GraphicalTheme};

/// A mesh that resolves, and fills its one node to the last byte.
const BASE: &str = r#"[mesh]
name = "demo"

[sizes]
small = { cpus = 1, memory = "1GiB" }

[nodes.edge]
size = "small"
runs = ["gateway", "identity", "stock", "stock-db", "nats"]

[services.gateway]
port = 8000

[services.identity]
port = 8100
route = { prefix = "/identity", auth = "none" }

[services.stock]
port = 8200
route = { prefix = "/stock" }
emits = ["stock.>"]

[databases.stock-db]
owner = "stock"

[events]
"#;

/// What is wrong, the rule it breaks, and the edits of [`BASE`] that make it so.
type Case = (&'static str, Rule, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    ("an unclosed text", Rule::Syntax, &[("name = \"demo\"", "name = \"demo")]),
    ("a key twice", Rule::Syntax, &[("name = \"demo\"", "name = \"demo\"\nname = \"other\"")]),
    ("a port in quotes", Rule::WrongType, &[("port = 8200", "port = \"8200\"")]),
    ("a truth value in quotes", Rule::WrongType, &[("port = 8200", "port = 8200\njit = \"true\"")]),
    ("a number among names", Rule::WrongType, &[("\"nats\"]", "7]")]),
    (
        "a text where a list should be",
        Rule::WrongType,
        &[("[\"gateway\", \"identity\", \"stock\", \"stock-db\", \"nats\"]", "\"gateway\"")],
    ),
    (
        "a section that is no table",
        Rule::WrongType,
        &[("[databases.stock-db]\nowner = \"stock\"\n", "[databases]\nstock-db = \"stock\"\n")],
    ),
    ("a misspelt field", Rule::UnknownField, &[("emits = [", "emit = [")]),
    ("a misspelt section", Rule::UnknownField, &[("[events]", "[events]\n\n[gatway]\nport = 443")]),
    ("a size without memory", Rule::MissingField, &[("cpus = 1, memory = \"1GiB\"", "cpus = 1")]),
    ("nothing to start", Rule::MissingField, &[("port = 8200", "port = 8200\nruntime = \"python\"")]),
    ("no mesh", Rule::MissingField, &[("[mesh]\nname = \"demo\"\n", "")]),
    ("a decimal unit", Rule::InvalidValue, &[("memory = \"1GiB\"", "memory = \"1GB\"")]),
    ("half a thousandth of a core", Rule::InvalidValue, &[("port = 8200", "port = 8200\ncpu = 0.0005")]),
    ("a port out of range", Rule::InvalidValue, &[("port = 8200", "port = 70000")]),
    ("an unknown runtime", Rule::InvalidValue, &[("port = 8200", "port = 8200\nruntime = \"jav\"")]),
    (
        "a jar that is none",
        Rule::InvalidValue,
        &[("port = 8200", "port = 8200\nruntime = \"java\"\nmemory = \"128MiB\"\nartifact = \"build/app.zip\"")],
    ),
    (
        "files that do not hold the artifact",
        Rule::InvalidValue,
        &[("port = 8200", "port = 8200\nartifact = \"build/stock\"\nfiles = \"buil\"")],
    ),
    (
        "a base that is no image",
        Rule::InvalidValue,
        &[("port = 8200", "port = 8200\nartifact = \"build/stock\"\nbase = \"debian stable\"")],
    ),
    (
        "files and a base of a package",
        Rule::ConflictingFields,
        &[("port = 8200", "port = 8200\nfiles = \".\"\nbase = \"debian\"")],
    ),
    ("an artifact outside", Rule::InvalidValue, &[("port = 8200", "port = 8200\nartifact = \"../app\"")]),
    ("a prefix with a slash at its end", Rule::InvalidValue, &[("\"/stock\"", "\"/stock/\"")]),
    ("a prefix with a space", Rule::InvalidValue, &[("\"/stock\"", "\"/the stock\"")]),
    ("a private prefix", Rule::InvalidValue, &[("\"/stock\"", "\"/internal/stock\"")]),
    ("an event without its aggregate", Rule::InvalidValue, &[("\"stock.>\"", "\"stock.*\"")]),
    (
        "an issuer in the clear",
        Rule::InvalidValue,
        &[("[events]", "[events]\n\n[auth]\nissuer = \"http://id.example.com\"")],
    ),
    (
        "a symmetric algorithm",
        Rule::InvalidValue,
        &[("[events]", "[events]\n\n[auth]\nissuer = \"https://id.example.com\"\nalgorithms = [\"HS256\"]")],
    ),
    (
        "no algorithm at all",
        Rule::InvalidValue,
        &[("[events]", "[events]\n\n[auth]\nissuer = \"https://id.example.com\"\nalgorithms = []")],
    ),
    (
        "a kind of token nobody knows",
        Rule::InvalidValue,
        &[("[events]", "[events]\n\n[auth]\nissuer = \"https://id.example.com\"\ntyp = \"jwt\"")],
    ),
    (
        "another kind of token than the issuer writes",
        Rule::ConflictingFields,
        &[("[events]", "[events]\n\n[auth]\ntyp = \"JWT\"")],
    ),
    (
        "a header too large for the services",
        Rule::InvalidValue,
        &[("[events]", "[events]\n\n[gateway]\nlimits = { max_header = \"25KiB\" }")],
    ),
    (
        "a health check in no time",
        Rule::InvalidValue,
        &[("port = 8200", "port = 8200\nhealth = { interval = \"0s\" }")],
    ),
    (
        "capitals and underscores",
        Rule::InvalidName,
        &[
            ("[services.stock]", "[services.Stock_Keeping]"),
            ("\"stock\", \"stock-db\"", "\"Stock_Keeping\", \"stock-db\""),
            ("owner = \"stock\"", "owner = \"Stock_Keeping\""),
        ],
    ),
    (
        "a name like an instance's",
        Rule::ReservedName,
        &[
            ("[services.stock]", "[services.stock-2]"),
            ("\"stock\", \"stock-db\"", "\"stock-2\", \"stock-db\""),
            ("owner = \"stock\"", "owner = \"stock-2\""),
        ],
    ),
    (
        "a service named like whoever operates the mesh",
        Rule::ReservedName,
        &[
            ("[services.stock]", "[services.operator]"),
            ("\"stock\", \"stock-db\"", "\"operator\", \"stock-db\""),
            ("owner = \"stock\"", "owner = \"operator\""),
        ],
    ),
    ("a secret named like the mesh's own", Rule::ReservedName, &[("[events]", "[events]\n\n[secrets.nats-seed]")]),
    (
        "a database named like a service",
        Rule::NameTaken,
        &[("[databases.stock-db]", "[databases.stock]"), ("\"stock\", \"stock-db\"", "\"stock\"")],
    ),
    ("a service twice on a node", Rule::Duplicate, &[("\"nats\"]", "\"nats\", \"identity\"]")]),
    (
        "a package and an artifact",
        Rule::ConflictingFields,
        &[("port = 8200", "port = 8200\npackage = \"stock\"\nartifact = \"build/stock\"")],
    ),
    (
        "a watchdog nobody feeds",
        Rule::ConflictingFields,
        &[("port = 8200", "port = 8200\nartifact = \"build/stock\"\nwatchdog = \"5s\"")],
    ),
    ("a misspelt service", Rule::UnknownReference, &[("\"identity\", \"stock\"", "\"identity\", \"stock\", \"stok\"")]),
    ("a size nobody declared", Rule::UnknownReference, &[("size = \"small\"", "size = \"enormous\"")]),
    ("a service on no node", Rule::Unplaced, &[("\"stock\", \"stock-db\"", "\"stock-db\"")]),
    (
        "a database on two nodes",
        Rule::PlacedTwice,
        &[("[services.gateway]", "[nodes.data]\nsize = \"small\"\nruns = [\"stock-db\"]\n\n[services.gateway]")],
    ),
    ("one byte too many", Rule::MemoryExceeded, &[("port = 8200", "port = 8200\nmemory = \"134217729B\"")]),
    ("more replicas than fit", Rule::MemoryExceeded, &[("port = 8200", "port = 8200\nreplicas = { max = 4 }")]),
    ("more cores than there are", Rule::CpuExceeded, &[("port = 8200", "port = 8200\ncpu = 2")]),
    ("more events than disk", Rule::DiskExceeded, &[("[events]", "[events]\nstorage = \"20GiB\"")]),
    ("two services on one port", Rule::PortClash, &[("port = 8200", "port = 8100")]),
    (
        "a further copy on another's port",
        Rule::PortClash,
        &[("port = 8200", "port = 8099\nreplicas = 2\nmemory = \"64MiB\"")],
    ),
    (
        "a maximum below the minimum",
        Rule::ReplicasOrder,
        &[("port = 8200", "port = 8200\nreplicas = { min = 3, max = 2 }")],
    ),
    ("a route below another", Rule::RouteOverlap, &[("\"/stock\"", "\"/identity/stock\"")]),
    ("a route twice", Rule::RouteOverlap, &[("\"/stock\"", "\"/identity\"")]),
    (
        "a secret out of nowhere",
        Rule::UndeclaredSecret,
        &[("port = 8200", "port = 8200\nsecrets = [\"smtp-password\"]")],
    ),
    (
        "services calling in a circle",
        Rule::CallCycle,
        &[("port = 8100", "port = 8100\ncalls = [\"stock\"]"), ("port = 8200", "port = 8200\ncalls = [\"identity\"]")],
    ),
    ("a service calling itself", Rule::CallCycle, &[("port = 8200", "port = 8200\ncalls = [\"stock\"]")]),
    ("two owners of one database", Rule::SharedDatabase, &[("port = 8100", "port = 8100\ndatabase = \"stock-db\"")]),
    (
        "two databases of one owner",
        Rule::SharedDatabase,
        &[
            (
                "[databases.stock-db]\nowner = \"stock\"",
                "[databases.stock-db]\nowner = \"stock\"\nmemory = \"128MiB\"\n\n[databases.more-db]\nowner = \"stock\"\nmemory = \"128MiB\"\nport = 5433",
            ),
            ("\"stock-db\", ", "\"stock-db\", \"more-db\", "),
        ],
    ),
    ("a database of nobody's", Rule::UnownedDatabase, &[("owner = \"stock\"\n", "")]),
    ("no gateway", Rule::NoGateway, &[("[services.gateway]\nport = 8000\n", ""), ("\"gateway\", ", "")]),
    (
        "no issuer",
        Rule::NoIssuer,
        &[
            ("[services.identity]\nport = 8100\nroute = { prefix = \"/identity\", auth = \"none\" }\n", ""),
            ("\"identity\", ", ""),
        ],
    ),
    ("an issuer behind a token", Rule::NoIssuer, &[(", auth = \"none\"", "")]),
    ("events without a bus", Rule::NoEvents, &[("[events]\n", ""), (", \"nats\"", "")]),
    ("a bus that is not declared", Rule::NoEvents, &[("[events]\n", ""), ("emits = [\"stock.>\"]\n", "")]),
    ("events nobody emits", Rule::NeverEmitted, &[("port = 8100", "port = 8100\nconsumes = [\"stok.>\"]")]),
    ("events emitted by two", Rule::SubjectOverlap, &[("port = 8100", "port = 8100\nemits = [\"stock.item.*\"]")]),
    (
        "one event of an aggregate",
        Rule::PartialAggregate,
        &[("port = 8100", "port = 8100\nconsumes = [\"stock.item.created\"]")],
    ),
    (
        "a variable of the mesh's own",
        Rule::ReservedVariable,
        &[("port = 8200", "port = 8200\nenvironment = { BERTH_SERVICE = \"other\" }")],
    ),
    (
        "an argument nobody can fill",
        Rule::UnknownVariable,
        &[("port = 8200", "port = 8200\nartifact = \"build/stock\"\nargs = [\"--port\", \"${PRT}\"]")],
    ),
];

fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(BASE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the base has no {from:?}");
        text.replacen(from, to, 1)
    })
}

fn refused(text: &str, placement: &Placement) -> Diagnostics {
    match resolve("mesh.toml", text, placement) {
        Ok(_) => panic!("this resolved:\n{text}"),
        Err(diagnostics) => diagnostics,
    }
}

fn rendered(diagnostics: &Diagnostics) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(140);
    let mut page = String::new();
    handler.render_report(&mut page, diagnostics).unwrap();
    page
}

fn rules(diagnostics: &Diagnostics) -> BTreeSet<Rule> {
    diagnostics.findings().iter().map(mesh::Finding::rule).collect()
}

#[test]
fn the_base_resolves() {
    resolve("mesh.toml", BASE, &Placement::Nodes).unwrap_or_else(|diagnostics| panic!("{}", rendered(&diagnostics)));
}

#[test]
fn each_rule_is_told_in_place_and_with_a_mend() {
    let mut page = String::new();
    for (what, rule, edits) in CASES {
        let diagnostics = refused(&edited(edits), &Placement::Nodes);
        assert_eq!(rules(&diagnostics), BTreeSet::from([*rule]), "{what}:\n{}", rendered(&diagnostics));
        // What is no TOML is told by its parser, which does not guess what was meant.
        let has_mend = |finding: &mesh::Finding| finding.rule() == Rule::Syntax || finding.help().is_some();
        assert!(diagnostics.findings().iter().all(has_mend), "{what}:\n{}", rendered(&diagnostics));
        writeln!(page, "─── {what} ───\n{}", rendered(&diagnostics)).unwrap();
    }
    insta::assert_snapshot!(page);
}

#[test]
fn every_rule_has_a_case() {
    let tried: BTreeSet<Rule> = CASES.iter().map(|(_, rule, _)| *rule).chain([Rule::Placement]).collect();
    assert_eq!(tried, Rule::ALL.iter().copied().collect());
}

#[test]
fn all_is_told_at_once_in_the_order_of_the_text() {
    let text = edited(&[
        ("memory = \"1GiB\"", "memory = \"1GB\", colour = \"red\""),
        ("\"identity\", \"stock\"", "\"identity\", \"stok\", \"stock\""),
        ("port = 8100", "port = 8000\nreplicas = { min = 2, max = 1 }\nsecrets = [\"pepper\"]"),
        ("\"/stock\"", "\"/identity\""),
        ("emits = [\"stock.>\"]", "emits = [\"stock\"]\nkalls = []"),
        ("owner = \"stock\"", "owner = \"shop\""),
    ]);
    let diagnostics = refused(&text, &Placement::Nodes);
    let told: Vec<_> =
        diagnostics.findings().iter().map(|finding| (finding.line(), finding.column(), finding.rule())).collect();
    assert_eq!(
        told,
        [
            (5, 30, Rule::InvalidValue),
            (5, 37, Rule::UnknownField),
            (9, 32, Rule::UnknownReference),
            (15, 8, Rule::PortClash),
            (16, 12, Rule::ReplicasOrder),
            (17, 12, Rule::UndeclaredSecret),
            (22, 20, Rule::RouteOverlap),
            (23, 10, Rule::InvalidValue),
            (24, 1, Rule::UnknownField),
            (27, 9, Rule::UnknownReference),
        ],
        "{}",
        rendered(&diagnostics)
    );
}

#[test]
fn what_is_wrong_once_is_told_once() {
    // A broken name is reported where it stands, and not again wherever it is used.
    let text = BASE.replace("stock-db", "Stock_DB");
    assert_eq!(refused(&text, &Placement::Nodes).findings().len(), 1);
    // Nor does everything seem to be missing when the table that declares it cannot be read.
    let databases = BASE.replace("[databases.stock-db]\nowner = \"stock\"", "databases = 1").replacen("[mesh]", "", 1);
    let databases = format!("databases = 1\n[mesh]{}", databases.replace("databases = 1", ""));
    assert_eq!(refused(&databases, &Placement::Nodes).findings().len(), 1);
    // Nor is what two hundred alike machines have in common told two hundred times.
    let text = edited(&[
        ("[services.gateway]", "[nodes.many]\nsize = \"small\"\ncount = 200\nruns = [\"stock\"]\n\n[services.gateway]"),
        ("port = 8200", "port = 8200\nmemory = \"2GiB\""),
    ]);
    let told = refused(&text, &Placement::Nodes);
    assert_eq!(told.findings().len(), 2, "{}", rendered(&told));
}

#[test]
fn a_mesh_must_fit_where_it_is_put() {
    let here = |block, public_port| Placement::Loopback { block, public_port };
    assert!(resolve("mesh.toml", BASE, &here([127, 1, 2], 8443)).is_ok());
    for placement in [here([10, 0, 0], 8443), here([127, 1, 2], 0)] {
        assert_eq!(rules(&refused(BASE, &placement)), BTreeSet::from([Rule::Placement]));
    }
    let text = edited(&[("memory = \"1GiB\"", "memory = \"1TiB\""), ("port = 8200", "port = 20000\nreplicas = 256")]);
    assert!(resolve("mesh.toml", &text, &Placement::Nodes).is_ok());
    assert_eq!(rules(&refused(&text, &here([127, 1, 2], 8443))), BTreeSet::from([Rule::Placement]));
}
