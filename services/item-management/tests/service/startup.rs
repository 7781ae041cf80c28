//! The process is started before its database: it waits, says for what, and begins to work without being started again.

use std::{fs, path::Path};

use testkit::{Postgres, eventually};
use tls::authority::Authority;
use tokio::process::{Child, Command};

const DOMAIN: &str = "eshop.internal";
const NAME: &str = "item-management";
const SERVER: &str = "postgres-item-management";

fn write_certificates(authority: &Authority, folder: &Path, name: &str) {
    fs::create_dir(folder).unwrap();
    let leaf = authority.issue(name).unwrap();
    fs::write(folder.join("tls-cert.pem"), leaf.cert_pem).unwrap();
    fs::write(folder.join("tls-key.pem"), leaf.key_pem.as_bytes()).unwrap();
    fs::write(folder.join("mesh-ca.pem"), authority.ca_pem()).unwrap();
}

async fn secured_postgres(authority: &Authority, folder: &Path) -> Postgres {
    let own = folder.join(SERVER);
    write_certificates(authority, &own, SERVER);
    let file = |name: &str| own.join(name);
    let tls = servers::TlsFiles { cert: file("tls-cert.pem"), key: file("tls-key.pem"), ca: file("mesh-ca.pem") };
    Postgres::start_secured(tls, NAME).await
}

/// Its program, with everything it is told. There is no event server; it needs none to start.
fn program(postgres: &Postgres, credentials: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_item-management"));
    command.kill_on_drop(true).env_clear().env("CREDENTIALS_DIRECTORY", credentials);
    command.envs([
        ("BERTH_SERVICE", NAME.to_owned()),
        ("BERTH_INSTANCE", format!("{NAME}-1")),
        ("BERTH_DOMAIN", DOMAIN.to_owned()),
        ("BERTH_LISTEN", format!("{}:8443", postgres.host())),
        ("BERTH_DATABASE_URL", postgres.first().url),
        ("BERTH_DATABASE_SERVER", SERVER.to_owned()),
        ("BERTH_EVENTS_URL", format!("tls://{}:4222", postgres.host())),
    ]);
    command
}

/// What `item-management healthcheck` says: whether all is well, and what is not.
async fn healthcheck(postgres: &Postgres, credentials: &Path) -> (bool, String) {
    let output = program(postgres, credentials).arg("healthcheck").output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn runs(service: &mut Child) -> bool {
    service.try_wait().unwrap().is_none()
}

#[tokio::test]
async fn a_service_that_comes_before_its_database_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(DOMAIN).unwrap();
    let mut postgres = secured_postgres(&authority, folder.path()).await;
    let credentials = folder.path().join(NAME);
    write_certificates(&authority, &credentials, NAME);
    fs::write(credentials.join("database-password"), postgres.first().password).unwrap();
    fs::write(credentials.join("nats-seed"), "of no use without a server").unwrap();
    fs::write(credentials.join("token-issuers.json"), "{}").unwrap();
    postgres.kill();

    let mut service = program(&postgres, &credentials).spawn().unwrap();
    let unready = eventually("an answer", async || {
        assert!(runs(&mut service), "it has ended");
        let (ready, said) = healthcheck(&postgres, &credentials).await;
        assert!(!ready);
        said.contains("503").then_some(said)
    });
    let said = unready.await;
    assert!(said.contains("database") && said.contains("schema"), "{said}");

    postgres.restart().await;
    eventually("the service to be ready", async || healthcheck(&postgres, &credentials).await.0.then_some(())).await;
    assert!(runs(&mut service), "the same process");
}
