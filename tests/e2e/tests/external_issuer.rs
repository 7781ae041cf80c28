//! An OpenID provider of somebody else's make takes the place of `identity`, by configuration alone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use e2e::{Caller, Mesh};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use tls::authority::{Authority, Leaf};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const AUDIENCE: &str = "https://shop.example";

/// The provider, a process of Node.js.
struct Issuer {
    url: String,
    authority: String,
    _process: Child,
    _folder: tempfile::TempDir,
}

#[tokio::test]
async fn tokens_of_an_external_issuer_open_the_gateway() {
    let issuer = Issuer::start().await;
    let mesh = Mesh::declare(|declaration| {
        let auth = toml::toml! {
            audience = "https://shop.example"
            algorithms = ["ES256"]
            roles_claim = "groups"
        };
        let mut auth = toml::Value::Table(auth);
        auth.as_table_mut().unwrap().insert("issuer".into(), issuer.url.clone().into());
        declaration.insert("auth".into(), auth);
        without_identity(declaration);
    });
    mesh.expect(&["secrets", "init"]);
    std::fs::write(mesh.folder().join(".berth/credentials/gateway/issuer-ca.pem"), &issuer.authority).unwrap();
    mesh.start();

    let clerk = issuer.login(&mesh, "clerk").await;
    let item = json!({ "sku": "FROM-ABROAD", "name": "A chair", "price": { "amount": 1, "currency": "EUR" } });
    let id = clerk.post("/items", &item).await.expect(201).text("/id").to_owned();
    clerk.get(&format!("/items/{id}")).await.expect(200);
    issuer.login(&mesh, "nobody").await.get("/items").await.expect(403);
    mesh.anonymous().get("/items").await.expect(401);
}

/// Where somebody else says who is who, the mesh needs neither the service nor its database.
fn without_identity(declaration: &mut toml::Table) {
    for (section, name) in [("services", "identity"), ("databases", "identity-db")] {
        declaration.get_mut(section).unwrap().as_table_mut().unwrap().remove(name).unwrap();
    }
    for (_, node) in declaration.get_mut("nodes").unwrap().as_table_mut().unwrap() {
        let runs = node.get_mut("runs").unwrap().as_array_mut().unwrap();
        runs.retain(|name| !name.as_str().unwrap().starts_with("identity"));
    }
}

impl Issuer {
    async fn start() -> Self {
        let program = installed().await;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create("example").unwrap();
        let leaf: Leaf = authority.issue_public(&["localhost"], &["127.0.0.1".parse().unwrap()]).unwrap();
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, &leaf.cert_pem).unwrap();
        std::fs::write(&key, leaf.key_pem.as_str()).unwrap();
        let mut node = Command::new("node");
        node.arg(program.join("issuer.mjs")).arg(certificate).arg(key).arg(AUDIENCE);
        let mut process = node.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().expect("the issuer ended before it served");
        Self { url, authority: authority.ca_pem().to_owned(), _process: process, _folder: folder }
    }

    async fn login(&self, mesh: &Mesh, client: &str) -> Caller {
        let authority = Certificate::from_pem(self.authority.as_bytes()).unwrap();
        let http = Client::builder().tls_certs_only([authority]).build().unwrap();
        let form = [("grant_type", "client_credentials"), ("resource", AUDIENCE), ("scope", "shop")];
        let request = http.post(format!("{}/token", self.url)).form(&form);
        let request = request.basic_auth(client, Some("a%20secret%20of%20a%20test%2C%20worth%20nothing"));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let token = answer.get("access_token").and_then(Value::as_str).unwrap_or_else(|| panic!("{answer:#}"));
        mesh.anonymous().with_token(token)
    }
}

/// The script with its packages, which `npm ci` puts below the target folder: once, whoever comes first.
async fn installed() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("external-issuer");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("external-issuer");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", ".npmrc", "issuer.mjs"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    if !folder.join("node_modules/.package-lock.json").is_file() {
        let status = Command::new("npm").args(["ci", "--silent"]).current_dir(&folder).status().await.unwrap();
        assert!(status.success(), "npm ci: {status}");
    }
    folder
}
