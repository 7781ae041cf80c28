//! The secrets of the shop: what is made, for whom, how closed, and that making them again changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test")]

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use berth::{
    project::Project,
    secrets::{
        self,
        export::{Form, NodeCredentials},
    },
};
use mesh::{Placement, Plan};
use runtime::credentials::Credentials;
use serde_json::Value;
use tempfile::TempDir;

const SHOP: &str = include_str!("../../../mesh.toml");

struct Bench {
    _folder: TempDir,
    project: Project,
    plan: Plan,
}

impl Bench {
    fn new(declaration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mesh.toml"), declaration).unwrap();
        let project = Project::find(Some(folder.path())).unwrap();
        let plan = project.resolve(&Placement::Nodes).unwrap();
        Self { _folder: folder, project, plan }
    }

    fn init(&self, demo_users: bool) -> secrets::Report {
        secrets::init(&self.project, &self.plan, demo_users).unwrap()
    }

    fn credential(&self, owner: &str, name: &str) -> PathBuf {
        self.project.credentials().join(owner).join(name)
    }

    fn read(&self, owner: &str, name: &str) -> String {
        std::fs::read_to_string(self.credential(owner, name)).unwrap_or_else(|error| panic!("{owner}/{name}: {error}"))
    }

    fn json(&self, owner: &str, name: &str) -> Value {
        serde_json::from_str(&self.read(owner, name)).unwrap()
    }
}

fn everything_in(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, mode) = (entry.path(), entry.metadata().unwrap().permissions().mode() & 0o777);
        if path.is_dir() {
            found.extend(everything_in(&path));
            found.insert(path, (mode, Vec::new()));
        } else {
            found.insert(path.clone(), (mode, std::fs::read(path).unwrap()));
        }
    }
    found
}

#[test]
fn everybody_gets_what_the_plan_says_for_their_eyes_only() {
    let shop = Bench::new(SHOP);
    shop.init(true);
    for service in &shop.plan.services {
        for credential in service.credentials.iter().filter(|credential| !credential.optional) {
            assert!(shop.credential(&service.name, &credential.name).is_file(), "{} {credential:?}", service.name);
        }
    }
    for (path, (mode, content)) in everything_in(&shop.project.credentials()) {
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        assert!(path.is_dir() || !content.is_empty(), "{}", path.display());
    }
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&shop.project.users()), mode(&shop.project.ca())), (0o600, 0o644));
    for (one, other) in [("item-management", "item-management-db"), ("identity", "identity-db")] {
        assert_eq!(shop.read(one, "database-password"), shop.read(other, "database-password"));
    }
    assert_ne!(shop.read("item-management", "database-password"), shop.read("identity", "database-password"));
}

#[test]
fn certificates_name_their_service_and_load_as_the_services_load_them() {
    let shop = Bench::new(SHOP);
    shop.init(false);
    tls::install_provider();
    for owner in ["gateway", "identity", "item-management", "item-management-db", "nats"] {
        let credentials = Credentials::at(shop.project.credentials().join(owner));
        tls::Identity::load(&credentials, &shop.plan.domain).unwrap_or_else(|error| panic!("{owner}: {error}"));
    }
}

#[test]
fn a_service_knows_the_keys_of_its_callers_and_of_nobody_else() {
    let shop = Bench::new(SHOP);
    shop.init(false);
    let issuers = |service: &str| -> Vec<String> {
        let issuers = shop.json(service, "token-issuers.json");
        let mut names: Vec<String> = issuers.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let [gateway, documents] = ["gateway", "eshop-documents"].map(|name| format!("spiffe://eshop.internal/{name}"));
    assert_eq!(issuers("eshop-documents"), std::slice::from_ref(&gateway));
    assert_eq!(issuers("item-management"), [documents, gateway]);
    let everything = shop.read("item-management", "token-issuers.json");
    assert!(!everything.contains("\"d\""), "a private key was given away");
}

#[test]
fn what_callers_sign_is_verified_with_what_was_made() {
    let shop = Bench::new(SHOP);
    shop.init(false);
    let at = |owner: &str| Credentials::at(shop.project.credentials().join(owner));
    let id = |name: &str| tls::SpiffeId::new(&shop.plan.domain, name).unwrap();
    let clock = runtime::clock::Clock::system();
    let minter = auth::internal::Minter::load(&at("gateway"), &id("gateway"), clock.clone()).unwrap();
    let verifier = auth::internal::Verifier::load(&at("identity"), &id("identity"), clock).unwrap();
    let token = minter.mint(&auth::Principal::anonymous(), &id("identity")).unwrap();
    verifier.verify(&token, &id("gateway")).unwrap();
    assert!(verifier.verify(&token, &id("item-management")).is_err());
}

#[test]
fn again_nothing_changes_and_only_what_is_missing_is_made() {
    let shop = Bench::new(SHOP);
    let made = shop.init(true);
    assert_eq!(made.kept, 0, "{made}");
    let before = everything_in(&shop.project.state());
    let again = shop.init(true);
    assert!(again.written.is_empty(), "{again}");
    assert_eq!(everything_in(&shop.project.state()), before);

    let lost = [shop.credential("identity", "tls-key.pem"), shop.credential("identity-db", "database-password")];
    lost.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    shop.init(true);
    let after = everything_in(&shop.project.state());
    let changed: Vec<&PathBuf> = after.keys().filter(|path| after[*path] != before[*path]).collect();
    // A certificate is worth nothing without its key; a password is the one its other owner still has.
    assert_eq!(changed, [&shop.credential("identity", "tls-cert.pem"), &lost[0]]);
}

#[test]
fn demo_users_are_made_only_when_asked_for_and_have_good_passwords() {
    let shop = Bench::new(SHOP);
    shop.init(false);
    assert!(!shop.credential("identity", "bootstrap.json").exists() && !shop.project.users().exists());
    shop.init(true);
    let bootstrap = shop.json("identity", "bootstrap.json");
    let users = bootstrap["users"].as_array().unwrap();
    let names: Vec<&str> = users.iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice", "bob", "carol", "dave", "mallory", "admin"]);
    for user in users {
        let password = secrets::password_of(&shop.project, user["name"].as_str().unwrap()).unwrap();
        assert_eq!(user["password"], *password);
        assert!(password.len() >= 24);
    }
    let unknown = format!("{:?}", miette::Report::new(secrets::password_of(&shop.project, "eve").unwrap_err()));
    assert!(unknown.contains("alice, bob, carol, dave, mallory, admin"), "{unknown}");
}

#[test]
fn a_report_names_files_and_never_a_secret() {
    let shop = Bench::new(SHOP);
    let report = shop.init(true).to_string();
    assert!(report.contains("database-password") && report.contains("bootstrap.json"));
    for (owner, name) in [("identity", "database-password"), ("nats", "tls-key.pem"), ("eshop-documents", "nats-seed")]
    {
        let secret = shop.credential(owner, name);
        if let Ok(secret) = std::fs::read_to_string(secret) {
            assert!(!report.contains(secret.trim()));
        }
    }
}

#[test]
fn a_secret_that_only_its_operator_has_is_asked_for_and_copied() {
    let heading = "[services.item-management]\n";
    let listed = format!("{heading}secrets = [\"smtp-password\"]\n");
    let declaration = SHOP.replacen(heading, &listed, 1) + "\n[secrets.smtp-password]\n";
    let shop = Bench::new(&declaration);
    let error = format!("{:?}", miette::Report::new(secrets::init(&shop.project, &shop.plan, false).unwrap_err()));
    assert!(error.contains("item-management needs the secret smtp-password"), "{error}");
    std::fs::write(shop.project.state().join("secrets/smtp-password"), "hush").unwrap();
    shop.init(false);
    assert_eq!(shop.read("item-management", "smtp-password"), "hush");
}

fn exported(shop: &Bench, node: &str) -> NodeCredentials {
    NodeCredentials::collect(&shop.project, &shop.plan, node).unwrap()
}

#[test]
fn a_machine_gets_what_runs_on_it_needs_and_nothing_else() {
    let shop = Bench::new(SHOP);
    shop.init(false);
    let mut archive = Vec::new();
    exported(&shop, "edge").write_archive(&mut archive).unwrap();
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
        let (owner, file) = name.strip_prefix("berth.").unwrap().split_once('.').unwrap();
        assert_eq!(content, shop.read(owner, file), "{name}");
        names.push(name);
    }
    let owners: std::collections::BTreeSet<&str> = names.iter().filter_map(|name| name.split('.').nth(1)).collect();
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), ["gateway", "identity"]);
    // The demo users are optional, and were not made.
    assert!(names.contains(&"berth.gateway.public-key.pem".to_owned()));
    assert!(!names.contains(&"berth.identity.bootstrap.json".to_owned()));
}

#[test]
fn a_virtual_machine_gets_them_as_smbios_strings_in_closed_files() {
    let shop = Bench::new(SHOP);
    shop.init(false);
    let folder = shop.project.state().join("export");
    let credentials = exported(&shop, "data");
    credentials.write_files(&folder, Form::Smbios).unwrap();
    let files = everything_in(&folder);
    assert_eq!(files.len(), credentials.len());
    for (path, (mode, content)) in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::str::from_utf8(content).unwrap();
        assert!(text.starts_with(&format!("io.systemd.credential.binary:{name}=")) && !text.ends_with('\n'), "{name}");
        assert_eq!(*mode, 0o600);
    }
    let error = credentials.write_files(&folder, Form::Plain).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

#[test]
fn an_export_names_an_unknown_node_and_a_missing_credential() {
    let shop = Bench::new(SHOP);
    let refused = |node: &str| {
        let failure = NodeCredentials::collect(&shop.project, &shop.plan, node).unwrap_err();
        // A long help is told on several lines.
        format!("{:?}", miette::Report::new(failure)).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(refused("item").contains("edge, items-1, items-2, documents-1, documents-2, office, data"));
    let missing = refused("items-1");
    assert!(missing.contains("item-management/tls-cert.pem") && missing.contains("berth secrets init"), "{missing}");
}
