//! The program as a person uses it, on a small mesh without databases: up, status, restart, logs, down; two meshes at
//! once; a supervisor that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "in a test")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use berth::cli::Cli;
use clap::CommandFactory as _;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use testkit::Warden;

const DECLARATION: &str = r#"
[mesh]
name = "small"

[sizes]
small = { cpus = 1, memory = "1.5GiB", disk = "8GiB" }

[nodes.one]
size = "small"
runs = ["gateway", "back"]

[services.gateway]
args = ["says=open", "ready", "hold"]

[services.back]
artifact = "patient"
args = ["print=3", "listen=${HOST}:${PORT}", "hold"]
port = 9001
replicas = { min = 1, start = 2, max = 2 }

[gateway]
port = 8443

[auth]
issuer = "https://issuer.example"
"#;

/// A mesh in a folder of its own, with a `berth` beside which its packages lie.
struct Mesh {
    folder: PathBuf,
    _warden: Warden,
}

impl Mesh {
    fn declare() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let _warden = Warden::of_mesh(folder.join("bin/berth"), &folder);
        std::fs::write(folder.join("mesh.toml"), DECLARATION).unwrap();
        let test = std::env::current_exe().unwrap();
        let patient = test.parent().unwrap().parent().unwrap().join("examples/patient");
        std::fs::create_dir(folder.join("bin")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_berth"), folder.join("bin/berth")).unwrap();
        std::fs::copy(&patient, folder.join("bin/gateway")).unwrap();
        std::fs::copy(&patient, folder.join("patient")).unwrap();
        Self { folder, _warden }
    }

    fn up() -> Self {
        let mesh = Self::declare();
        mesh.expect(0, &["up", "--detach"]);
        mesh
    }

    fn command(&self, args: &[&str]) -> Command {
        let below = self.folder.join("bin");
        let mut command = Command::new(below.join("berth"));
        command.args(args).current_dir(below);
        command
    }

    fn berth(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it beside the test; what it prints goes into a file.
    fn spawn(&self, args: &[&str]) -> Beside {
        let output = self.folder.join("output");
        let child = self.command(args).stdout(File::create(&output).unwrap()).spawn().unwrap();
        Beside { child, output }
    }

    fn expect(&self, code: i32, args: &[&str]) -> String {
        let output = self.berth(args);
        let (told, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "berth {args:?}\n{told}\n{complained}\n{}", self.log());
        format!("{told}{complained}")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join(".berth/logs/supervisor.log")).unwrap_or_default()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.expect(0, &["status", "--json"])).unwrap()
    }

    fn units(&self) -> Vec<Value> {
        self.status()["units"].as_array().unwrap().clone()
    }

    fn pid(&self, unit: &str) -> u32 {
        let units = self.units();
        let unit = units.iter().find(|status| status["name"] == unit).unwrap();
        u32::try_from(unit["pid"].as_u64().unwrap()).unwrap()
    }
}

/// A command that runs beside the test, and not longer.
struct Beside {
    child: Child,
    output: PathBuf,
}

impl Beside {
    fn told(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Whether it runs; where nobody collects orphans, a dead one remains as a zombie.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_mesh_comes_up_is_looked_at_and_goes_down() {
    let mesh = Mesh::up();
    let units = mesh.units();
    let names: Vec<&str> = units.iter().map(|unit| unit["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["back-1", "back-2", "gateway-1"]);
    assert!(units.iter().all(|unit| unit["state"] == "ready"), "{units:?}");
    assert_eq!(units[2]["says"], "open");
    let told = mesh.expect(0, &["up", "--detach"]);
    let url = mesh.status()["public_url"].as_str().unwrap().to_owned();
    assert!(told.contains(&format!("small runs already at {url}")) && told.contains("back-2"), "{told}");
    assert!(told.contains("bin/berth down`"), "as it was typed: {told}");
    assert!(units.iter().all(|unit| unit["usage"]["memory_bytes"].as_u64() > Some(0)), "{units:?}");
    assert!(units.iter().all(|unit| unit["usage"]["cpu_percent"].as_f64() >= Some(0.0)), "{units:?}");
    assert!(mesh.expect(1, &["up"]).contains("running already"));
    assert!(mesh.expect(0, &["logs", "-n", "2", "back-1"]).ends_with("line 000001\nline 000002\n"));
    assert!(mesh.expect(1, &["logs", "nobody"]).contains("back-1"));

    let before = mesh.pid("back-1");
    mesh.expect(0, &["restart", "back"]);
    assert_ne!(mesh.pid("back-1"), before);
    assert!(mesh.expect(1, &["restart", "nobody"]).contains("there are: back, gateway"));

    let pids: Vec<u32> = ["back-1", "back-2", "gateway-1"].map(|unit| mesh.pid(unit)).into();
    mesh.expect(0, &["down"]);
    assert!(pids.into_iter().all(|pid| !lives(pid)));
    assert!(mesh.expect(3, &["status"]).contains("berth up"));
    assert!(mesh.expect(3, &["restart", "back"]).contains("berth up"));
    mesh.expect(0, &["down"]);
}

#[test]
fn a_killed_supervisor_takes_its_processes_along_and_the_next_one_begins_clean() {
    let mesh = Mesh::up();
    let supervisor = u32::try_from(mesh.status()["supervisor"].as_u64().unwrap()).unwrap();
    let pids = ["back-1", "back-2", "gateway-1"].map(|unit| mesh.pid(unit));
    let local = || std::fs::read(mesh.folder.join(".berth/local.json")).unwrap();
    let before = local();
    signal(supervisor, Signal::SIGKILL);
    eventually("its processes end", || !pids.iter().any(|pid| lives(*pid)));
    mesh.expect(3, &["status"]);
    mesh.expect(0, &["up", "--detach"]);
    assert!(mesh.units().iter().all(|unit| unit["state"] == "ready"));
    assert_eq!(local(), before, "it has the addresses it had");
}

#[test]
fn a_terminated_supervisor_stops_everything() {
    let mesh = Mesh::up();
    let supervisor = u32::try_from(mesh.status()["supervisor"].as_u64().unwrap()).unwrap();
    let pids = ["back-1", "gateway-1"].map(|unit| mesh.pid(unit));
    signal(supervisor, Signal::SIGTERM);
    eventually("everything ends", || !pids.iter().any(|pid| lives(*pid)) && !lives(supervisor));
}

#[test]
fn two_meshes_have_addresses_of_their_own() {
    let (one, other) = (Mesh::up(), Mesh::up());
    let addresses = |mesh: &Mesh| -> Vec<String> {
        let units = mesh.units();
        units.iter().map(|unit| unit["address"].as_str().unwrap().to_owned()).collect()
    };
    let (first, second) = (addresses(&one), addresses(&other));
    assert!(first.iter().all(|address| !second.contains(address)), "{first:?} {second:?}");
    assert_ne!(one.status()["public_url"], other.status()["public_url"]);
}

#[test]
fn one_that_never_gets_ready_is_named_and_left_to_look_at() {
    let mesh = Mesh::declare();
    std::fs::copy("/bin/false", mesh.folder.join("patient")).unwrap();
    let told = mesh.expect(1, &["up", "--detach", "--timeout", "1"]);
    let told: String = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("back-1 (") && told.contains("exited with code 1"), "{told}");
    assert!(mesh.units().iter().any(|unit| unit["restarts"].as_u64() > Some(0)));
}

#[test]
fn what_is_missing_or_wrong_is_told_with_its_exit_code() {
    let mesh = Mesh::declare();
    let declaration = mesh.folder.join("mesh.toml");
    mesh.expect(2, &["fly"]);
    mesh.expect(4, &["--mesh", "/no/such/mesh.toml", "status"]);
    assert!(mesh.expect(1, &["lock", "--check"]).contains("berth lock"));
    mesh.expect(0, &["lock"]);
    mesh.expect(0, &["lock", "--check"]);
    std::fs::remove_file(mesh.folder.join("patient")).unwrap();
    // The supervisor in the background says it, the one who waits repeats it.
    let told = mesh.expect(1, &["up", "--detach"]);
    assert!(told.contains("patient") && told.contains("is missing"), "{told}");
    std::fs::write(&declaration, DECLARATION.replace("port = 9001", "prot = 9001")).unwrap();
    assert!(mesh.expect(4, &["up", "--detach"]).contains("prot"));
    mesh.expect(4, &["lock"]);
}

#[test]
fn followed_logs_go_on_with_what_is_written() {
    let mesh = Mesh::up();
    let following = mesh.spawn(&["logs", "-f", "-n", "1", "back-1"]);
    eventually("the last line is shown", || following.told() == "line 000002\n");
    mesh.expect(0, &["restart", "back-1"]);
    let all = "line 000002\nline 000000\nline 000001\nline 000002\n";
    eventually("the new lines are shown", || following.told() == all);
}

#[test]
fn a_walkthrough_is_only_of_a_shop() {
    let mesh = Mesh::up();
    assert!(mesh.expect(1, &["demo"]).contains("this mesh is not the shop"));
    mesh.expect(0, &["down"]);
    assert!(mesh.expect(3, &["demo"]).contains("berth up"));
}

#[test]
fn every_command_explains_itself() {
    let mesh = Mesh::declare();
    let all = mesh.expect(0, &["--help"]);
    let mut explained = Vec::new();
    explain(&mesh, &Cli::command(), &mut explained, &[]);
    assert!(explained.iter().filter(|path| path.len() == 1).all(|path| all.contains(&path[0])), "{all}");
    for path in [vec!["up"], vec!["demo"], vec!["secrets", "init"], vec!["secrets", "export"]] {
        assert!(explained.contains(&path.iter().map(ToString::to_string).collect()), "{path:?}");
    }
    assert!(all.contains("Exit codes:") && !all.contains("exec"));
}

/// Asks every command below `command` for help, down to the last.
fn explain(mesh: &Mesh, command: &clap::Command, explained: &mut Vec<Vec<String>>, above: &[String]) {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let path = [above, &[command.get_name().to_owned()]].concat();
        let mut words: Vec<&str> = path.iter().map(String::as_str).collect();
        words.push("--help");
        assert!(mesh.expect(0, &words).contains("Usage:"), "{path:?}");
        explain(mesh, command, explained, &path);
        explained.push(path);
    }
}

/// The script at the root of the repository finds everything from wherever it is called, and names itself as it was called.
#[test]
fn the_script_may_be_called_by_a_link() {
    let mesh = Mesh::declare();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let (target, links) = (mesh.folder.join("target"), mesh.folder.join("links"));
    std::fs::create_dir_all(target.join("release")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_berth"), target.join("release/berth")).unwrap();
    std::fs::create_dir(&links).unwrap();
    std::os::unix::fs::symlink(repository.join("berth"), links.join("berth")).unwrap();
    let path = format!("{}:{}", links.display(), std::env::var("PATH").unwrap());
    let repository = repository.join("berth").display().to_string();
    for (called, named) in [
        ("berth", "berth"),
        ("links/berth", "links/berth"),
        ("./links/berth", "./links/berth"),
        (&repository, &repository),
    ] {
        let mut script = Command::new("sh");
        script.args(["-c", &format!("{called} status")]).current_dir(&mesh.folder);
        let script = script.env("PATH", &path).env("CARGO_TARGET_DIR", &target).env_remove("BERTH_CALLED_AS");
        let output = script.output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{called}: {complained}");
        assert!(complained.contains(&format!("`{named} up --detach`")), "{called}: {complained}");
    }
}

#[test]
fn the_first_ctrl_c_of_a_foreground_mesh_stops_it_in_order() {
    let mesh = Mesh::declare();
    let mut foreground = mesh.spawn(&["up"]);
    eventually("it is up", || foreground.told().contains("Ctrl-C stops everything"));
    let pid = mesh.pid("back-1");
    signal(foreground.child.id(), Signal::SIGINT);
    assert!(foreground.child.wait().unwrap().success());
    assert!(!lives(pid));
    let told = foreground.told();
    assert!(told.contains("back-1 ready") && told.ends_with("the mesh is down\n"), "{told}");
}
