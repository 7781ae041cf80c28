//! One PostgreSQL server: its data folder, its configuration, its command.
//!
//! The owner's role and database are made while the server is off (`postgres --single`), so there is no moment at
//! which it listens without them, and no administrator's password anywhere. The folder appears under its final name
//! only when it is complete.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{Account, Error, Launch, PostgresPrograms, TlsFiles, account::hand_over, run};

/// The file in the data folder that tells whether the role's password has changed.
const PASSWORD_DIGEST: &str = "password.sha256";
const KIB: u64 = 1024;

/// What one server is to be.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The programs to run it with.
    pub programs: PostgresPrograms,
    /// The data folder; made by [`prepare`](Postgres::prepare). Its parent must exist and be reachable for `account`.
    pub data: PathBuf,
    /// Address to listen on.
    pub host: IpAddr,
    /// TCP port to listen on.
    pub port: u16,
    /// Who runs it; see [`Account::unprivileged`].
    pub account: Option<Account>,
    /// Certificates; without them the server speaks plain TCP (tests only). With them it lets in only who has a certificate of the
    /// same authority with the owner's role as common name.
    pub tls: Option<TlsFiles>,
    /// Connections it accepts at most.
    pub max_connections: u16,
    /// Memory it may use, in bytes: what is cached, sorted and maintained follows from it.
    pub memory: u64,
    /// Whether a commit waits for the disk, and so outlives a power cut. Off in tests: there it outlives a kill only.
    pub durable: bool,
}

/// The one role and the one database of a server.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Name of the role that may log in.
    pub role: &'a str,
    /// Name of its database.
    pub database: &'a str,
    /// Its password.
    pub password: &'a str,
}

impl Postgres {
    /// Makes the data folder where it is missing, and writes the configuration anew. Repeating it changes nothing.
    ///
    /// # Errors
    /// A program fails, a file cannot be written, or a name of the owner cannot be used in SQL.
    pub fn prepare(&self, owner: Owner<'_>) -> Result<(), Error> {
        plain_name("role", owner.role)?;
        plain_name("database", owner.database)?;
        if !self.data.join("PG_VERSION").is_file() {
            self.create(owner)?;
        }
        self.keep_password(owner)?;
        self.write_configuration(owner)
    }

    /// Gives the role its password anew when it is another than the last time. A password of 256 random bits can be remembered by its
    /// digest.
    fn keep_password(&self, owner: Owner<'_>) -> Result<(), Error> {
        let digest = digest(owner.password);
        if fs::read_to_string(self.data.join(PASSWORD_DIGEST)).is_ok_and(|known| known == digest) {
            return Ok(());
        }
        let (role, password) = (owner.role, owner.password.replace('\'', "''"));
        self.execute_offline(&format!("ALTER ROLE \"{role}\" PASSWORD '{password}';\n\n"))?;
        self.write(PASSWORD_DIGEST, &digest)
    }

    /// The command that runs the server in the foreground. SIGINT is the signal for a fast, clean stop.
    pub fn launch(&self) -> Launch {
        Launch {
            program: self.programs.program("postgres"),
            args: vec!["-D".into(), self.data.clone().into()],
            account: self.account,
        }
    }

    /// The command that exits with 0 when the server accepts connections.
    pub fn readiness_probe(&self) -> Launch {
        Launch {
            program: self.programs.program("pg_isready"),
            args: vec![
                "--quiet".into(),
                "--timeout=2".into(),
                "--dbname=postgres".into(),
                format!("--host={}", self.host).into(),
                format!("--port={}", self.port).into(),
            ],
            account: None,
        }
    }

    fn create(&self, owner: Owner<'_>) -> Result<(), Error> {
        let unfinished = self.data.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(Error::io("cannot remove", &unfinished))?;
        }
        fs::create_dir_all(&unfinished).map_err(Error::io("cannot create", &unfinished))?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("cannot close", &unfinished))?;
        hand_over(&unfinished, self.account)?;
        let mut initdb = self.as_account("initdb", &unfinished);
        initdb.args([
            "--auth=reject",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
        ]);
        if !self.durable {
            initdb.arg("--no-sync");
        }
        run(initdb.arg("--pgdata").arg(&unfinished), b"")?;
        self.execute_in(&unfinished, &owner_sql(owner))?;
        fs::rename(&unfinished, &self.data).map_err(Error::io("cannot rename", &unfinished))?;
        self.write(PASSWORD_DIGEST, &digest(owner.password))
    }

    /// Runs SQL as the administrator while the server is off (single-user mode). Each statement ends in `;` and an
    /// empty line.
    ///
    /// # Errors
    /// The server runs, or a statement fails; those before it stay done.
    pub fn execute_offline(&self, sql: &str) -> Result<(), Error> {
        self.execute_in(&self.data, sql)
    }

    fn execute_in(&self, folder: &Path, sql: &str) -> Result<(), Error> {
        let mut single = self.as_account("postgres", folder);
        single.args(["--single", "-j", "-D"]).arg(folder).arg("postgres");
        let output = run(&mut single, sql.as_bytes())?;
        // In single-user mode a failed statement is reported, but the program still ends well.
        let Some(error) = output.lines().find(|line| line.contains("ERROR:") || line.contains("FATAL:")) else {
            return Ok(());
        };
        Err(Error::Failed {
            program: "postgres --single".into(),
            status: "a statement failed".into(),
            output: error.into(),
        })
    }

    fn as_account(&self, program: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.programs.program(program));
        command.current_dir(folder).env("LC_ALL", "C.UTF-8");
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        command
    }

    fn write_configuration(&self, owner: Owner<'_>) -> Result<(), Error> {
        let tls = self.usable_certificates()?;
        self.write("postgresql.conf", &self.configuration(tls.as_ref()))?;
        self.write("pg_hba.conf", &access_rule(owner, tls.is_some()))
    }

    /// PostgreSQL insists that its key belongs to it or to root. Under an account of its own it therefore gets a copy, since the credentials
    /// belong to whoever runs the mesh; otherwise it reads them where they are, and no copy lies beside the data.
    fn usable_certificates(&self) -> Result<Option<TlsFiles>, Error> {
        let (Some(tls), Some(_)) = (&self.tls, self.account) else {
            return Ok(self.tls.clone());
        };
        let copy = |from: &Path, name: &str| {
            let content = fs::read_to_string(from).map_err(Error::io("cannot read", from))?;
            self.write(name, &content).map(|()| PathBuf::from(name))
        };
        Ok(Some(TlsFiles {
            cert: copy(&tls.cert, "tls-cert.pem")?,
            key: copy(&tls.key, "tls-key.pem")?,
            ca: copy(&tls.ca, "mesh-ca.pem")?,
        }))
    }

    fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = self.data.join(name);
        let next = self.data.join(format!("{name}.next"));
        fs::write(&next, "").map_err(Error::io("cannot write", &next))?;
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).map_err(Error::io("cannot close", &next))?;
        fs::write(&next, content).map_err(Error::io("cannot write", &next))?;
        hand_over(&next, self.account)?;
        fs::rename(&next, &path).map_err(Error::io("cannot rename", &next))
    }

    fn configuration(&self, tls: Option<&TlsFiles>) -> String {
        let on = |value: bool| if value { "on" } else { "off" };
        let mut settings = vec![
            ("listen_addresses", format!("'{}'", self.host)),
            ("port", self.port.to_string()),
            ("unix_socket_directories", "''".into()),
            ("max_connections", self.max_connections.to_string()),
            // The quarter that PostgreSQL's manual recommends; most of the rest is the system's cache of the same files.
            ("shared_buffers", kilobytes((self.memory / 4).max(128 * KIB))),
            ("effective_cache_size", kilobytes(self.memory / 4 * 3)),
            // All connections sort at once, and still half of it is left.
            ("work_mem", kilobytes((self.memory / 2 / u64::from(self.max_connections.max(1))).max(64 * KIB))),
            ("maintenance_work_mem", kilobytes((self.memory / 16).max(1024 * KIB))),
            ("fsync", on(self.durable).into()),
            ("synchronous_commit", "on".into()),
            ("full_page_writes", on(self.durable).into()),
            ("password_encryption", "'scram-sha-256'".into()),
            ("timezone", "'UTC'".into()),
            ("log_timezone", "'UTC'".into()),
            ("log_destination", "'stderr'".into()),
            ("log_line_prefix", "'%m [%p] %q%u@%d '".into()),
            ("jit", "off".into()),
            ("tcp_keepalives_idle", "30".into()),
            // Notices a client that is gone in the middle of a query, so that its locks do not outlive it.
            ("client_connection_check_interval", "'10s'".into()),
        ];
        if !self.durable {
            // A server that is killed leaves no shared memory behind then, but files in its own folder.
            settings.push(("dynamic_shared_memory_type", "'mmap'".into()));
        }
        if let Some(tls) = tls {
            settings.extend([
                ("ssl", "on".into()),
                ("ssl_min_protocol_version", "'TLSv1.3'".into()),
                ("ssl_cert_file", quoted(&tls.cert)),
                ("ssl_key_file", quoted(&tls.key)),
                ("ssl_ca_file", quoted(&tls.ca)),
            ]);
        }
        let lines = settings.into_iter().map(|(name, value)| format!("{name} = {value}\n"));
        ["# Written at every start; changes are lost.\n".to_owned()].into_iter().chain(lines).collect()
    }
}

/// A path as `postgresql.conf` has it: absolute, or from the data folder.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "''"))
}

/// An amount of memory as `postgresql.conf` has it.
fn kilobytes(bytes: u64) -> String {
    format!("'{}kB'", bytes / KIB)
}

fn digest(password: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(password))
}

/// Who is let in: the owner alone, with its password. In a mesh also only with a certificate of the mesh's authority whose common name
/// is the role: a password that leaked is worth nothing without the key.
fn access_rule(owner: Owner<'_>, ssl: bool) -> String {
    let (kind, certificate) = if ssl { ("hostssl", " clientcert=verify-full") } else { ("host", "") };
    format!("{kind} \"{}\" \"{}\" all scram-sha-256{certificate}\n", owner.database, owner.role)
}

fn owner_sql(owner: Owner<'_>) -> String {
    // With `-j`, single-user mode takes a statement up to a semicolon and an empty line.
    format!(
        "CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}';\n\n\
         CREATE DATABASE \"{database}\" OWNER \"{role}\";\n\n\
         REVOKE CONNECT ON DATABASE \"postgres\" FROM PUBLIC;\n\n",
        role = owner.role,
        database = owner.database,
        password = owner.password.replace('\'', "''"),
    )
}

/// Names stand in SQL and in `pg_hba.conf`, between double quotes.
fn plain_name(field: &'static str, value: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=63).contains(&value.len()) && value.chars().all(plain) {
        return Ok(());
    }
    Err(Error::Name { field, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_quotes_is_refused() {
        for bad in ["", "a\"b", "a b", "a;b", "a'b", "ä", &"x".repeat(64)] {
            assert!(plain_name("role", bad).is_err(), "{bad:?}");
        }
        assert!(plain_name("role", "item-management").is_ok());
    }

    #[test]
    fn a_quote_in_a_password_stays_inside_the_statement() {
        let sql = owner_sql(Owner { role: "r", database: "d", password: "a'b" });
        assert!(sql.contains("PASSWORD 'a''b'"));
    }
}
