//! Two services of the reference shop over mutual TLS, each with its own key and exactly the permissions that the plan gives it.

use std::{fs, path::Path};

use database::{Database, ScopedFutureExt as _, Statements as _, Transaction};
use mesh::Placement;
use nkeys::KeyPair;
use outbox::{Consumer, Event, Events, Handler, HandlerError, NewEvent, Outbox, Relay, RelayOptions};
use runtime::{credentials::Credentials, settings::Settings};
use servers::{TlsFiles, nats::User};
use testkit::{Nats, Postgres, eventually};
use tls::{Identity, authority::Authority};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

const DOMAIN: &str = "eshop.internal";

/// Writes the certificates of one workload into a folder of its own.
fn write_certificates(authority: &Authority, folder: &Path, name: &str) {
    fs::create_dir(folder).unwrap();
    let leaf = authority.issue(name).unwrap();
    fs::write(folder.join("tls-cert.pem"), leaf.cert_pem).unwrap();
    fs::write(folder.join("tls-key.pem"), leaf.key_pem.as_bytes()).unwrap();
    fs::write(folder.join("mesh-ca.pem"), authority.ca_pem()).unwrap();
}

async fn connect(folder: &Path, service: &str, nats: &Nats) -> Events {
    let settings = Settings::from_vars([
        ("BERTH_SERVICE", service.to_owned()),
        ("BERTH_INSTANCE", format!("{service}-1")),
        ("BERTH_DOMAIN", DOMAIN.to_owned()),
        ("BERTH_LISTEN", "127.0.0.1:1".to_owned()),
        ("BERTH_EVENTS_URL", format!("tls://{}", nats.address())),
    ]);
    let credentials = Credentials::at(folder.join(service));
    let identity = Identity::load(&credentials, DOMAIN).unwrap();
    Events::connect(&settings.unwrap(), &credentials, &identity).await.unwrap()
}

async fn database(postgres: &Postgres, name: &str) -> Database {
    let at = postgres.database(name).await;
    let database = Database::at(&at.url, &at.password).unwrap();
    Outbox::migrate(&database, &CancellationToken::new()).await.unwrap();
    database
}

async fn put(tx: &Transaction<'_>, subject: &str, aggregate_id: Uuid) -> Result<Uuid, outbox::Error> {
    Outbox::put(tx, NewEvent { subject, aggregate_id, saga: None, initiator: None, trace: None, data: () }).await
}

/// Answers each event with another one about the same aggregate, or ends the conversation.
struct Answer(Option<&'static str>);

impl Handler for Answer {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        if let Some(subject) = self.0 {
            put(tx, subject, event.aggregate.id).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_plan_permits_what_relay_and_consumer_do() {
    let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("info").try_init();
    let text = include_str!("../../../../mesh.toml");
    let plan =
        mesh::resolve("mesh.toml", text, &Placement::Loopback { block: [127, 1, 1], public_port: 8443 }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(DOMAIN).unwrap();
    write_certificates(&authority, &folder.path().join("nats"), "nats");
    let users = plan.events.unwrap().users.into_iter().map(|user| {
        let key = KeyPair::new_user();
        let own = folder.path().join(user.service.as_str());
        write_certificates(&authority, &own, user.service.as_str());
        fs::write(own.join("nats-seed"), key.seed().unwrap()).unwrap();
        User { public_key: key.public_key(), publish: user.publish, subscribe: user.subscribe }
    });
    let file = |name: &str| folder.path().join("nats").join(name);
    let tls = TlsFiles { cert: file("tls-cert.pem"), key: file("tls-key.pem"), ca: file("mesh-ca.pem") };
    let (nats, postgres) = tokio::join!(Nats::start_with(users.collect(), Some(tls)), Postgres::start());

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut databases = Vec::new();
    for (service, emits, from, consumes, answer) in [
        ("eshop-documents", "documents.>", "item-management", "items.reservation.*", None),
        ("item-management", "items.>", "eshop-documents", "documents.stock.*", Some("items.reservation.reserved")),
    ] {
        let database = database(&postgres, service).await;
        let events = connect(folder.path(), service, &nats).await;
        let outbox = Outbox::default();
        let options = RelayOptions::emitting([emits]);
        let relay = Relay::new(database.clone(), events.clone(), outbox.clone(), options);
        let consumer = Consumer::new(database.clone(), events, outbox, from, [consumes], Answer(answer));
        let until = stop.clone();
        tasks.spawn(async move { relay.run(until).await });
        tasks.spawn(consumer.run(stop.clone()));
        databases.push(database);
    }
    tasks.close();

    let order = Uuid::now_v7();
    for _ in 0..3 {
        let sent: Result<Uuid, outbox::Error> = databases[0]
            .transaction(|tx| async move { put(tx, "documents.stock.reserve", order).await }.scope_boxed())
            .await;
        sent.unwrap();
    }
    eventually("the answers", async || {
        let sql = "SELECT count(*) FROM inbox WHERE consumer = 'item-management/eshop-documents'";
        let row = databases[0].get().await.unwrap().one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0) == 3).then_some(())
    })
    .await;
    stop.cancel();
    tasks.wait().await;
}
