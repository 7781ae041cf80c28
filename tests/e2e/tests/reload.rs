//! What has changed under a running mesh is taken over by the very same processes; and a process that is told to go finishes first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test")]

use std::{convert::Infallible, net::SocketAddr, path::Path};

use e2e::{Answer, Mesh, Shop};
use futures_util::stream;
use nix::sys::signal::Signal;
use reqwest::{Body, Certificate, Client, Method, StatusCode, tls::TlsInfo};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use testkit::eventually;
use tokio::{net::TcpStream, sync::mpsc};

const SERVICES: [&str; 6] = ["gateway", "identity", "item-management", "eshop-documents", "audit", "notifier"];

#[tokio::test]
async fn what_is_new_is_in_force_without_a_restart() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    let before = mesh.processes();
    every_certificate_is_replaced(&mesh).await;
    identity_knows_a_client_that_was_declared_just_now(&mesh).await;
    let item = shop.item(10).await;
    shop.order(&item, 1, 20).await.expect(201);
    assert_eq!(mesh.processes(), before, "something was restarted");
    assert!(mesh.units().iter().all(|unit| unit.restarts == 0), "{:?}", mesh.units());
    the_gateway_finishes_what_it_has_begun_before_it_goes(&mesh, &shop).await;
}

/// The one that each instance shows inside the mesh, and the one that the gateway shows to the world.
async fn every_certificate_is_replaced(mesh: &Mesh) {
    for service in SERVICES {
        std::fs::remove_file(mesh.credential(service, "tls-key.pem")).unwrap();
    }
    std::fs::remove_file(mesh.credential("gateway", "public-key.pem")).unwrap();
    mesh.expect(&["secrets", "init"]);
    for service in SERVICES {
        let new = pem(&mesh.credential(service, "tls-cert.pem"));
        for unit in mesh.units().iter().filter(|unit| is_instance(&unit.name, service)) {
            // A client of its own each time: a connection keeps the certificate it began with.
            let shown = async || shown(&mesh.inside(Some("audit")), &format!("https://{}/livez", unit.address)).await;
            assert_ne!(shown().await, new, "{} reads it unasked", unit.name);
            mesh.signal(&unit.name, Signal::SIGHUP);
            eventually(&format!("the new certificate of {}", unit.name), async || (shown().await == new).then_some(()))
                .await;
        }
    }
    let new = pem(&mesh.credential("gateway", "public-cert.pem"));
    let authority = Certificate::from_pem(&std::fs::read(mesh.folder().join(".berth/ca.pem")).unwrap()).unwrap();
    let url = format!("{}/items", mesh.public_url());
    eventually("the new public certificate", async || {
        let anybody = Client::builder().tls_certs_only([authority.clone()]).tls_info(true).build().unwrap();
        (shown(&anybody, &url).await == new).then_some(())
    })
    .await;
}

fn is_instance(unit: &str, service: &str) -> bool {
    unit.strip_prefix(service).is_some_and(|rest| rest.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok()))
}

/// The certificate in a file, as it is shown.
fn pem(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

/// The certificate a server shows.
async fn shown(client: &Client, url: &str) -> Vec<u8> {
    let answer = client.get(url).send().await.unwrap();
    answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).unwrap().to_vec()
}

async fn identity_knows_a_client_that_was_declared_just_now(mesh: &Mesh) {
    let nobody = mesh.anonymous();
    let status = async |secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", "reporting"), ("client_secret", secret)];
        Answer::of(nobody.request(Method::POST, "/identity/token").form(&form)).await.status
    };
    assert_eq!(status("of the night shift").await, StatusCode::UNAUTHORIZED);
    let file = mesh.credential("identity", "bootstrap.json");
    let mut declared: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let client = json!({ "id": "reporting", "secret": "of the night shift", "grants": ["client_credentials"], "scopes": ["shop"] });
    declared["clients"].as_array_mut().unwrap().push(client);
    std::fs::write(&file, declared.to_string()).unwrap();
    mesh.signal("identity-1", Signal::SIGHUP);
    eventually("the new client to get a token", async || {
        (status("of the night shift").await == StatusCode::OK).then_some(())
    })
    .await;

    // What is broken is named, and changes nothing.
    std::fs::write(&file, "{").unwrap();
    mesh.signal("identity-1", Signal::SIGHUP);
    eventually("the log to say what is broken", async || {
        let log = mesh.expect(&["logs", "identity"]);
        (log.contains("not reloaded") && log.contains("bootstrap.json")).then_some(())
    })
    .await;
    assert_eq!(status("of the night shift").await, StatusCode::OK);
    std::fs::write(&file, declared.to_string()).unwrap();
}

async fn the_gateway_finishes_what_it_has_begun_before_it_goes(mesh: &Mesh, shop: &Shop) {
    let (body, parts) = mpsc::channel::<&str>(1);
    let parts = stream::unfold(parts, async |mut parts| Some((Ok::<_, Infallible>(parts.recv().await?), parts)));
    let item = json!({ "sku": "SLOW", "name": "x", "price": { "amount": 1, "currency": "EUR" }, "stock_on_hand": 0 });
    let item = item.to_string();
    let (first, rest): (&'static str, &'static str) = item.leak().split_at(10);
    let request = shop.carol.request(Method::POST, "/items").header("content-type", "application/json");
    let answer = tokio::spawn(Answer::of(request.body(Body::wrap_stream(parts))));
    body.send(first).await.unwrap();
    let inside: SocketAddr = mesh.unit("gateway-1").address.parse().unwrap();
    let (member, metrics) = (mesh.inside(Some("audit")), format!("https://{inside}/metrics"));
    eventually("the request to be under way", async || {
        let metrics = member.get(&metrics).send().await.unwrap().text().await.unwrap();
        metrics.contains("gateway_in_flight_requests 1").then_some(())
    })
    .await;
    let old = mesh.signal("gateway-1", Signal::SIGTERM);
    eventually("the drain to begin", async || TcpStream::connect(inside).await.is_err().then_some(())).await;
    body.send(rest).await.unwrap();
    drop(body);
    answer.await.unwrap().expect(201);
    // Who was told to go stays away until called.
    eventually("the gateway to be gone", async || (mesh.unit("gateway-1").state == "stopped").then_some(())).await;
    mesh.expect(&["restart", "gateway"]);
    mesh.healed("gateway-1", old).await;
    shop.carol.get("/items").await.expect(200);
}
