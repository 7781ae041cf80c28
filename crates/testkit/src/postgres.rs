//! A PostgreSQL server for one test.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU32, Ordering},
};

use servers::{Account, PostgresPrograms, TlsFiles, postgres::Owner};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::NoTls;

use crate::{eventually, process::Process, random_loopback};

mod template;

const PORT: u16 = 5432;
const PASSWORD: &str = "only-for-this-test";
const ROLE: &str = "tester";
const FIRST: &str = "first";

/// A PostgreSQL server in a folder of its own, without TLS unless it is [secured](Postgres::start_secured); what is committed outlives a kill, though not a power cut.
#[derive(Debug)]
pub struct Postgres {
    server: servers::postgres::Postgres,
    role: String,
    process: Process,
    databases: AtomicU32,
    _folder: TempDir,
}

/// A database in a test's server.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// `postgresql://role@host:port/database`, without the password.
    pub url: String,
    /// The password of the role in `url`.
    pub password: String,
}

impl TestDatabase {
    /// A connection of its own, past the code under test.
    ///
    /// # Panics
    /// The server does not let it in.
    pub async fn client(&self) -> tokio_postgres::Client {
        let mut config: tokio_postgres::Config = self.url.parse().expect("the URL is ours");
        let (client, connection) = config.password(&self.password).connect(NoTls).await.expect("cannot connect");
        tokio::spawn(connection);
        client
    }
}

impl Postgres {
    /// Starts one and waits until it accepts connections.
    ///
    /// # Panics
    /// There is no PostgreSQL on this machine, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(None, ROLE, false).await
    }

    /// Starts one whose commits wait for the disk, with the memory that a database of a mesh has: for what is measured.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_durable() -> Self {
        Self::start_with(None, ROLE, true).await
    }

    /// Starts one as a mesh does: with TLS, and for `role` alone, which has to show a certificate of its own.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_secured(tls: TlsFiles, role: &str) -> Self {
        Self::start_with(Some(tls), role, false).await
    }

    async fn start_with(tls: Option<TlsFiles>, role: &str, durable: bool) -> Self {
        let programs = PostgresPrograms::find().expect("cannot test without PostgreSQL");
        let folder = tempfile::Builder::new().prefix("berth-pg-").tempdir().expect("cannot make a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("cannot open the folder");
        loop {
            let host = IpAddr::from(random_loopback());
            let server = servers::postgres::Postgres {
                programs: programs.clone(),
                data: folder.path().join("data"),
                host,
                port: PORT,
                account: Account::unprivileged(),
                tls: tls.clone(),
                max_connections: 60,
                memory: if durable { 512 << 20 } else { 64 << 20 },
                durable,
            };
            prepare(&server, role).expect("cannot prepare PostgreSQL");
            let mut process = Process::new(server.launch(), &folder.path().join("log"));
            process.start();
            if ready(&server, &mut process).await {
                let role = role.to_owned();
                return Self { server, role, process, databases: AtomicU32::new(0), _folder: folder };
            }
        }
    }

    /// A new, empty database; `name` becomes part of its name.
    ///
    /// # Panics
    /// It cannot be created.
    pub async fn database(&self, name: &str) -> TestDatabase {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{number}");
        let first = self.first().client().await;
        first.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await.expect("cannot create a database");
        self.handle(&name)
    }

    /// The database that is there from the start.
    pub fn first(&self) -> TestDatabase {
        self.handle(FIRST)
    }

    /// The address it listens on.
    pub fn host(&self) -> IpAddr {
        self.server.host
    }

    fn handle(&self, database: &str) -> TestDatabase {
        let url = format!("postgresql://{}@{}:{PORT}/{database}", self.role, self.host());
        TestDatabase { url, password: PASSWORD.into() }
    }

    /// Ends it as a power cut of the process would (SIGKILL to the postmaster; its children follow).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same address with the same data, and waits until it accepts connections.
    ///
    /// # Panics
    /// It does not start within 30 seconds.
    pub async fn restart(&mut self) {
        self.kill();
        eventually("PostgreSQL to accept connections again", async || {
            // Children of a killed postmaster need a moment to go; until then a new one refuses the folder.
            if self.process.ended() {
                self.process.kill();
                self.process.start();
            }
            accepts(&self.server).await.then_some(())
        })
        .await;
    }
}

/// Makes the data folder. Without TLS the role may do everything: tests make databases freely and cut connections.
fn prepare(server: &servers::postgres::Postgres, role: &str) -> Result<(), servers::Error> {
    let owner = Owner { role, database: FIRST, password: PASSWORD };
    if server.tls.is_some() {
        return server.prepare(owner);
    }
    // For one that is to outlive a power cut, initdb waits for the disk.
    if server.durable {
        make(server, owner)?;
    } else {
        template::copy_or_make(server, || make(server, owner))?;
        server.prepare(owner)?;
    }
    let rule = format!("host all {ROLE} all scram-sha-256\n");
    fs::write(server.data.join("pg_hba.conf"), rule).expect("cannot write pg_hba.conf");
    Ok(())
}

fn make(server: &servers::postgres::Postgres, owner: Owner<'_>) -> Result<(), servers::Error> {
    server.prepare(owner)?;
    server.execute_offline(&format!("ALTER ROLE {ROLE} SUPERUSER;\n\n"))
}

async fn ready(server: &servers::postgres::Postgres, process: &mut Process) -> bool {
    eventually("PostgreSQL to accept connections", async || {
        if process.ended() {
            return Some(false);
        }
        accepts(server).await.then_some(true)
    })
    .await
}

async fn accepts(server: &servers::postgres::Postgres) -> bool {
    let probe = server.readiness_probe();
    let status = Command::new(&probe.program).args(&probe.args).status().await;
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_survives_being_killed() {
        let mut postgres = Postgres::start().await;
        let database = postgres.database("kept").await;
        let client = database.client().await;
        client.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
        postgres.restart().await;
        let n: i32 = database.client().await.query_one("SELECT n FROM t", &[]).await.unwrap().get(0);
        assert_eq!(n, 7);
    }
}
