//! One mesh, from `berth up --detach` to `berth down`.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Certificate, Client, Identity};
use serde_json::Value;
use testkit::{Warden, eventually_within};

use crate::{Caller, example};

const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// A running mesh in a temporary folder. It goes down with this value, and with the process that holds it, however that ends.
#[derive(Debug)]
pub struct Mesh {
    folder: PathBuf,
    _warden: Warden,
}

/// One line of `berth status`: a service instance, a database, or NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name, for example `item-management-1`.
    pub name: String,
    /// `ready` when it serves.
    pub state: String,
    /// The process, when there is one.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Where it listens: `host:port`.
    pub address: String,
}

impl Mesh {
    /// The shop of this repository, brought up and ready.
    pub async fn up() -> Self {
        Self::up_with(|_| {}).await
    }

    /// The shop with its declaration changed by `change` before it comes up.
    pub async fn up_with(change: impl FnOnce(&mut toml::Table)) -> Self {
        let mesh = Self::declare(change);
        mesh.start();
        mesh
    }

    /// A folder with the shop's declaration, changed; nothing runs yet.
    pub fn declare(change: impl FnOnce(&mut toml::Table)) -> Self {
        let mesh = Self::in_folder(temporary_folder());
        mesh.write(&repository().join("mesh.toml"), change);
        mesh
    }

    /// An empty folder; nothing is declared yet.
    pub fn undeclared() -> Self {
        Self::in_folder(temporary_folder())
    }

    fn in_folder(folder: PathBuf) -> Self {
        let _warden = Warden::of_mesh(program("berth"), &folder);
        Self { folder, _warden }
    }

    /// Writes the declaration: that of `original`, changed.
    fn write(&self, original: &Path, change: impl FnOnce(&mut toml::Table)) {
        let text = std::fs::read_to_string(original).expect("cannot read mesh.toml");
        let mut declaration: toml::Table = text.parse().expect("mesh.toml is no TOML");
        change(&mut declaration);
        std::fs::write(self.folder().join("mesh.toml"), declaration.to_string()).expect("cannot write mesh.toml");
    }

    /// A folder with a copy of `examples/<name>`, its declaration changed by `change`; nothing is built, and nothing runs yet.
    pub fn example(name: &str, change: impl FnOnce(&mut toml::Table)) -> Self {
        let folder = temporary_folder();
        example::copy(name, &folder);
        let mesh = Self::in_folder(folder);
        mesh.write(&mesh.folder().join("mesh.toml"), change);
        mesh
    }

    /// `berth up --detach`, which returns when everything is ready.
    pub fn start(&self) {
        self.expect(&["up", "--detach"]);
    }

    /// The folder that holds `mesh.toml` and `.berth`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs the CLI on this mesh.
    pub fn berth(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("berth"));
        command.arg("--mesh").arg(self.folder().join("mesh.toml")).args(args);
        command.output().expect("cannot run berth")
    }

    /// Runs the CLI, which must succeed, and returns what it printed.
    pub fn expect(&self, args: &[&str]) -> String {
        let output = self.berth(args);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "berth {args:?}: {}\n{printed}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.logs(),
        );
        printed
    }

    /// What `berth status --json` says of every unit.
    pub fn units(&self) -> Vec<Unit> {
        let status: Value = serde_json::from_str(&self.expect(&["status", "--json"])).expect("status is no JSON");
        let units = status.get("units").and_then(Value::as_array).expect("status lists no units");
        units.iter().map(Unit::read).collect()
    }

    /// Every unit and its process.
    pub fn processes(&self) -> BTreeMap<String, Option<i32>> {
        self.units().into_iter().map(|unit| (unit.name, unit.pid)).collect()
    }

    /// The unit of this name.
    pub fn unit(&self, name: &str) -> Unit {
        let units = self.units();
        units.iter().find(|unit| unit.name == name).cloned().unwrap_or_else(|| panic!("no unit {name} in {units:?}"))
    }

    /// Sends a signal to the unit's process, and returns the process it was sent to.
    pub fn signal(&self, name: &str, signal: Signal) -> i32 {
        let pid = self.unit(name).pid.unwrap_or_else(|| panic!("{name} does not run"));
        kill(Pid::from_raw(pid), signal).expect("cannot signal");
        pid
    }

    /// Sends a signal to the unit's process and to all that descend from it: PostgreSQL answers in children.
    pub fn signal_all(&self, name: &str, signal: Signal) {
        let mut family = vec![self.unit(name).pid.unwrap_or_else(|| panic!("{name} does not run"))];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            next += 1;
        }
        for pid in family {
            // A child may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until the unit serves again with another process than `old`.
    pub async fn healed(&self, name: &str, old: i32) {
        eventually_within(HEALS_WITHIN, &format!("{name} to be ready again"), async || {
            let unit = self.unit(name);
            (unit.state == "ready" && unit.pid != Some(old)).then_some(())
        })
        .await;
    }

    /// The public base URL, for example `https://localhost:8443`.
    pub fn public_url(&self) -> String {
        let status: Value = serde_json::from_str(&self.expect(&["status", "--json"])).expect("status is no JSON");
        status.get("public_url").and_then(Value::as_str).expect("status names no public_url").to_owned()
    }

    /// Somebody without a token.
    pub fn anonymous(&self) -> Caller {
        let pem = std::fs::read(self.folder().join(".berth/ca.pem")).expect("cannot read the public authority");
        Caller::new(self.public_url(), Certificate::from_pem(&pem).expect("the authority is no certificate"), None)
    }

    /// A demo user, logged in.
    pub fn user(&self, name: &str) -> Caller {
        self.anonymous().with_token(self.expect(&["token", "--user", name]).trim())
    }

    /// The file of a service's credential.
    pub fn credential(&self, service: &str, name: &str) -> PathBuf {
        self.folder().join(".berth/credentials").join(service).join(name)
    }

    /// A client of the mesh's own addresses, with the certificate of this service, or with none. Each has connections of its own.
    pub fn inside(&self, service: Option<&str>) -> Client {
        let pem =
            |service: &str, name: &str| std::fs::read(self.credential(service, name)).expect("no such credential");
        let authority = Certificate::from_pem(&pem("gateway", "mesh-ca.pem")).expect("the authority is no certificate");
        let mut builder = Client::builder()
            .tls_certs_only([authority])
            .tls_danger_accept_invalid_hostnames(true)
            .tls_info(true)
            .timeout(Duration::from_secs(40));
        if let Some(service) = service {
            let both = [pem(service, "tls-cert.pem"), pem(service, "tls-key.pem")].concat();
            builder = builder.identity(Identity::from_pem(&both).expect("the credential is no identity"));
        }
        builder.build().expect("cannot build a client")
    }

    /// The log lines of all instances of a service that belong to this trace.
    pub fn trace(&self, service: &str, trace_id: &str) -> Vec<Value> {
        let lines = self.expect(&["logs", "-n", "100000", service]);
        // Several logs are told apart by a name before each line.
        let lines = lines.lines().filter_map(|line| serde_json::from_str(line.get(line.find('{')?..)?).ok());
        lines.filter(|line: &Value| line.get("trace_id").is_some_and(|id| id == trace_id)).collect()
    }

    /// The end of every log, for the message of a test that fails.
    pub fn logs(&self) -> String {
        let Ok(entries) = std::fs::read_dir(self.folder().join(".berth/logs")) else {
            return "no logs".into();
        };
        let mut text = String::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
            text.push_str(&format!("--- {}\n{end}\n", path.display()));
        }
        text
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

impl Unit {
    fn read(value: &Value) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            state: text("state"),
            pid: value.get("pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok()),
            restarts: value.get("restarts").and_then(Value::as_u64).unwrap_or_default(),
            address: text("address"),
        }
    }
}

fn temporary_folder() -> PathBuf {
    tempfile::Builder::new().prefix("berth-e2e-").tempdir().expect("cannot make a temporary folder").keep()
}

/// A program of this workspace, beside the test that runs.
pub fn program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    let program = folder.join(name);
    assert!(program.is_file(), "{} is missing: cargo build --workspace", program.display());
    program
}

/// The folder of this repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
