//! The reference shop: its committed plan is what its declaration resolves to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use mesh::plan::{CredentialKind, JwksFrom, TokenType};
use mesh::{Placement, Plan, resolve};

const LOOPBACK: Placement = Placement::Loopback { block: [127, 7, 9], public_port: 18443 };

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shop(placement: Placement) -> Plan {
    let text = std::fs::read_to_string(repository().join("mesh.toml")).unwrap();
    resolve("mesh.toml", &text, &placement)
        .unwrap_or_else(|diagnostics| panic!("{:?}", miette::Report::new(diagnostics)))
}

#[test]
fn the_committed_plan_is_up_to_date() {
    let path = repository().join("mesh.lock.json");
    let fresh = shop(Placement::Nodes).to_json();
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == fresh,
        "mesh.lock.json is not what mesh.toml resolves to: write it anew with BERTH_BLESS=1, or `berth lock`"
    );
}

#[test]
fn on_one_machine() {
    insta::assert_snapshot!(shop(LOOPBACK).to_json());
}

#[test]
fn a_plan_survives_the_way_through_json() {
    for placement in [Placement::Nodes, LOOPBACK] {
        let plan = shop(placement);
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    }
}

#[test]
fn a_reader_refuses_what_it_does_not_know() {
    let json = shop(Placement::Nodes).to_json();
    assert!(Plan::from_json(&json.replacen("\"version\": 1", "\"version\": 2", 1)).is_err());
    assert!(Plan::from_json(&json.replacen("\"version\": 1", "\"version\": 1, \"novelty\": 1", 1)).is_err());
    assert!(Plan::from_json(&json.replacen("\"min\": 1", "\"min\": 9", 1)).is_err(), "replicas out of order");
    assert!(Plan::from_json(&json.replacen("\"name\": \"eshop\"", "\"name\": \"E Shop\"", 1)).is_err());
    assert!(Plan::from_json("").is_err());
}

#[test]
fn each_service_has_the_files_its_part_in_the_mesh_needs() {
    let plan = shop(Placement::Nodes);
    let files = |service: &str| {
        let service = plan.service(service).unwrap();
        service.credentials.iter().map(|file| file.name.as_str()).skip(3).collect::<Vec<_>>()
    };
    assert_eq!(files("gateway"), ["token-key.pem", "public-cert.pem", "public-key.pem"]);
    assert_eq!(files("identity"), ["database-password", "token-issuers.json", "key-encryption-key", "bootstrap.json"]);
    assert_eq!(files("item-management"), ["database-password", "nats-seed", "token-issuers.json"]);
    assert_eq!(files("eshop-documents"), ["database-password", "nats-seed", "token-key.pem", "token-issuers.json"]);
    for service in &plan.services {
        let first: Vec<_> = service.credentials.iter().map(|file| file.kind).take(3).collect();
        assert_eq!(first, [CredentialKind::MeshCertificate, CredentialKind::MeshKey, CredentialKind::MeshCa]);
    }
    assert_eq!(
        files("audit"),
        ["database-password", "nats-seed", "token-issuers.json", "checkpoint-key"],
        "what it signs with is made for it alone"
    );
    assert_eq!(plan.service("item-management").unwrap().callers, ["gateway", "eshop-documents"]);
}

#[test]
fn whoever_is_called_starts_first_and_the_gateway_last() {
    let plan = shop(Placement::Nodes);
    let order: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(order, ["identity", "item-management", "audit", "notifier", "eshop-documents", "gateway"]);
    assert_eq!(plan.service("eshop-documents").unwrap().after, ["eshop-documents-db", "nats", "item-management"]);
}

#[test]
fn the_issuer_of_the_mesh_is_reached_through_the_gateway_and_its_keys_from_inside() {
    let plan = shop(LOOPBACK);
    assert_eq!(plan.auth.issuer, "https://localhost:18443/identity");
    let JwksFrom::Service { service, path } = &plan.auth.jwks else { panic!("{:?}", plan.auth.jwks) };
    assert_eq!((service.as_str(), path.as_str()), ("identity", "/identity/.well-known/jwks.json"));
    assert_eq!(plan.auth.audience, "https://eshop.internal");
}

#[test]
fn what_a_token_says_it_is_can_be_declared() {
    let text = std::fs::read_to_string(repository().join("mesh.toml")).unwrap();
    for (declared, typ) in
        [("", TokenType::AtJwt), ("typ = \"at+jwt\"", TokenType::AtJwt), ("typ = \"JWT\"", TokenType::Jwt)]
    {
        let text = format!("{text}\n[auth]\nissuer = \"https://id.example.com\"\n{declared}\n");
        let plan = resolve("mesh.toml", &text, &LOOPBACK).unwrap();
        assert_eq!(plan.auth.typ, typ, "{declared}");
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan, "{declared}");
    }
}

#[test]
fn an_issuer_outside_replaces_identity_by_configuration_alone() {
    let text = std::fs::read_to_string(repository().join("mesh.toml")).unwrap();
    let text = format!(
        "{text}\n[auth]\nissuer = \"https://id.example.com/realms/shop\"\naudience = \"shop\"\nalgorithms = [\"ES256\", \"RS256\"]\nroles_claim = \"groups\"\n"
    );
    let plan = resolve("mesh.toml", &text, &LOOPBACK).unwrap();
    insta::assert_json_snapshot!(plan.auth);
    let gateway = plan.service("gateway").unwrap();
    assert!(gateway.credentials.iter().any(|file| file.kind == CredentialKind::IssuerRoots && file.optional));
    let identity = plan.service("identity").unwrap();
    assert!(
        !identity.credentials.iter().any(|file| file.kind == CredentialKind::KeyEncryptionKey),
        "it issues nothing here"
    );
}

#[test]
fn a_service_may_do_on_the_event_bus_what_its_client_does_and_nothing_else() {
    let plan = shop(Placement::Nodes);
    let events = plan.events.unwrap();
    let user = events.users.iter().find(|user| user.service == "item-management").unwrap();
    assert_eq!(user.subscribe, ["_INBOX_item-management.>"]);
    insta::assert_snapshot!(user.publish.join("\n"));
    assert!(!events.users.iter().any(|user| user.service == "gateway" || user.service == "identity"));
}
