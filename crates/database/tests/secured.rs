//! A server as a mesh runs it: who has the password, but not the certificate, stays outside.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use database::{Database, PoolLimits, Statements as _};
use runtime::{credentials::Credentials, settings::Settings};
use servers::{PostgresPrograms, TlsFiles};
use testkit::{Postgres, TestDatabase};
use tls::{Identity, authority::Authority};

const DOMAIN: &str = "eshop.internal";
const OWNER: &str = "item-management";
const SERVER: &str = "postgres-item-management";

/// Writes a workload's certificates, with a password that all of them know, into a folder of its own.
fn credentials_of(authority: &Authority, folder: &Path, name: &str, password: &str) -> PathBuf {
    let own = folder.join(name);
    fs::create_dir_all(&own).unwrap();
    let leaf = authority.issue(name).unwrap();
    let files = [
        ("tls-cert.pem", leaf.cert_pem.as_str()),
        ("tls-key.pem", leaf.key_pem.as_str()),
        ("mesh-ca.pem", authority.ca_pem()),
        ("database-password", password),
    ];
    for (file, text) in files {
        fs::write(own.join(file), text).unwrap();
        fs::set_permissions(own.join(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    own
}

fn connect(at: &TestDatabase, credentials: &Path) -> Database {
    let settings = Settings::from_vars([
        ("BERTH_SERVICE", OWNER.to_owned()),
        ("BERTH_INSTANCE", format!("{OWNER}-1")),
        ("BERTH_DOMAIN", DOMAIN.to_owned()),
        ("BERTH_LISTEN", "127.0.0.1:1".to_owned()),
        ("BERTH_DATABASE_URL", at.url.clone()),
        ("BERTH_DATABASE_SERVER", SERVER.to_owned()),
    ]);
    let credentials = Credentials::at(credentials);
    let identity = Identity::load(&credentials, DOMAIN).unwrap();
    Database::connect(&settings.unwrap(), &credentials, Some(identity), PoolLimits::default()).unwrap()
}

/// The owner's name and password, and whatever TLS the program brings along.
fn psql(host: IpAddr, password: &str, tls: &str) -> Output {
    let target = format!("host={host} user={OWNER} dbname=first sslmode=require {tls}");
    let mut psql = Command::new(PostgresPrograms::find().unwrap().program("psql"));
    psql.args(["--no-psqlrc", "--no-password", "--command=SELECT 1", &target]);
    psql.env("PGPASSWORD", password).env_remove("HOME").output().unwrap()
}

#[tokio::test]
async fn the_password_alone_opens_nothing() {
    tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(DOMAIN).unwrap();
    let server = credentials_of(&authority, folder.path(), SERVER, "");
    let file = |name: &str| server.join(name);
    let files = TlsFiles { cert: file("tls-cert.pem"), key: file("tls-key.pem"), ca: file("mesh-ca.pem") };
    let postgres = Postgres::start_secured(files, OWNER).await;
    let at = postgres.first();
    let [owner, other] =
        [OWNER, "eshop-documents"].map(|name| credentials_of(&authority, folder.path(), name, &at.password));

    let seven = connect(&at, &owner).get().await.unwrap().one("SELECT 7", &[]).await.unwrap();
    assert_eq!(seven.get::<_, i32>(0), 7, "the owner gets in");
    connect(&at, &other).get().await.unwrap_err();

    let certificate = |folder: &Path| {
        format!("sslcert={} sslkey={}", folder.join("tls-cert.pem").display(), folder.join("tls-key.pem").display())
    };
    assert!(psql(postgres.host(), &at.password, &certificate(&owner)).status.success());
    let refusals = [("", "requires a valid client certificate"), (&certificate(&other), "authentication failed")];
    for (tls, reason) in refusals {
        let output = psql(postgres.host(), &at.password, tls);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{tls}: {said}");
    }
}
