//! The supervisor with real processes: readiness, dependants, crash loops, watchdog, deafness, sockets, logs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use berth::{
    socket_folder::SocketFolder,
    supervisor::{
        Supervisor,
        board::{Board, StateName, UnitStatus},
        executor::Surroundings,
        leftovers::Records,
        log::Bounds,
        specification::Specification,
        unit::{Backoff, Policy, Readiness, Restart},
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

/// Far more than anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

struct Bench {
    folder: TempDir,
    supervisor: Supervisor,
    board: watch::Receiver<Board>,
}

impl Bench {
    async fn run(folder: TempDir, units: Vec<Specification>) -> Self {
        Self::run_with(folder, units, Bounds::default()).await
    }

    async fn run_with(folder: TempDir, units: Vec<Specification>, bounds: Bounds) -> Self {
        let surroundings = Surroundings {
            sockets: SocketFolder::create(&folder.path().join("notify")).unwrap(),
            records: Records::at(&folder.path().join("processes")).unwrap(),
            board: watch::Sender::new(Board::default()),
            helper: PathBuf::from(env!("CARGO_BIN_EXE_berth")),
        };
        let supervisor = Supervisor::start(units, surroundings, folder.path(), bounds).await.unwrap();
        Self { board: supervisor.board(), folder, supervisor }
    }

    async fn until(&mut self, what: &str, unit: &str, condition: impl Fn(&UnitStatus) -> bool) -> UnitStatus {
        let holds = |board: &Board| board.unit(unit).is_some_and(&condition);
        let found = timeout(HANG, self.board.wait_for(holds)).await.map(|found| found.unwrap().clone());
        let board = found.unwrap_or_else(|_| panic!("{unit} never {what}: {:?}", self.supervisor.board().borrow()));
        board.unit(unit).unwrap().clone()
    }

    async fn ready(&mut self, unit: &str) -> UnitStatus {
        self.until("was ready", unit, UnitStatus::is_ready).await
    }

    async fn stop(self) -> TempDir {
        timeout(HANG, self.supervisor.stop()).await.expect("it does not stop");
        self.folder
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn patient() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/patient")
}

fn unit(name: &str, readiness: Readiness, program: &Path, args: &[&str]) -> Specification {
    Specification {
        name: name.into(),
        service: name.into(),
        program: program.into(),
        args: args.iter().map(OsString::from).collect(),
        environment: BTreeMap::from([("PATH".into(), std::env::var_os("PATH").unwrap())]),
        folder: "/".into(),
        account: None,
        death_signal: Signal::SIGKILL,
        sockets: Vec::new(),
        probe: None,
        policy: Policy {
            readiness,
            restart: Restart::OnFailure,
            backoff: Backoff { first: 5 * MILLISECOND, max: 20 * MILLISECOND, steps: 2, stable_after: HANG },
            start_timeout: HANG,
            stop_timeout: HANG,
            stop_signal: Signal::SIGTERM,
            watchdog: None,
            memory: None,
        },
        after: Vec::new(),
        address: None,
    }
}

fn patient_unit(name: &str, args: &[&str]) -> Specification {
    unit(name, Readiness::Notify, &patient(), args)
}

fn shell_unit(name: &str, script: &str) -> Specification {
    unit(name, Readiness::Exec, Path::new("/bin/sh"), &["-c", script])
}

fn lives(pid: u32) -> bool {
    kill(Pid::from_raw(pid as i32), None).is_ok()
}

#[tokio::test]
async fn dependants_wait_until_a_unit_is_ready_and_stop_before_it() {
    let folder = folder();
    let gate = folder.path().join("gate");
    let first = patient_unit("first", &[&format!("await-file={}", gate.display()), "says=open", "ready", "hold"]);
    let mut second = patient_unit("second", &["ready", "hold"]);
    second.after = vec!["first".into()];
    let mut bench = Bench::run(folder, vec![second, first]).await;
    bench.until("started", "first", |unit| unit.state == StateName::Starting && unit.pid.is_some()).await;
    assert_eq!(bench.until("waited", "second", |unit| unit.state == StateName::Waiting).await.pid, None);
    std::fs::write(&gate, "").unwrap();
    bench.ready("second").await;
    assert_eq!(bench.ready("first").await.says.as_deref(), Some("open"));
    let mut board = bench.board.clone();
    let order = tokio::spawn(async move {
        board.wait_for(|board| board.units.iter().any(|unit| unit.state == StateName::Stopped)).await.unwrap().clone()
    });
    bench.stop().await;
    let at_first_end = order.await.unwrap();
    assert_eq!(at_first_end.unit("second").unwrap().state, StateName::Stopped);
    assert_ne!(at_first_end.unit("first").unwrap().state, StateName::Stopped);
}

#[tokio::test]
async fn a_crash_loop_backs_off_and_tells_why() {
    let mut bench = Bench::run(folder(), vec![shell_unit("loop", "exit 7")]).await;
    let unit = bench.until("failed", "loop", |unit| unit.restarts >= 4 && unit.state == StateName::Backoff).await;
    assert_eq!(unit.reason.as_deref(), Some("exited with code 7"));
    assert_eq!(unit.starts, unit.restarts + 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_program_that_is_missing_is_told_in_its_log() {
    let missing = unit("missing", Readiness::Notify, Path::new("/no/such/program"), &[]);
    let mut bench = Bench::run(folder(), vec![missing]).await;
    bench.until("failed", "missing", |unit| unit.restarts >= 1).await;
    let folder = bench.stop().await;
    let log = std::fs::read_to_string(folder.path().join("missing.log")).unwrap();
    assert!(log.contains("/no/such/program"), "{log}");
}

#[tokio::test]
async fn one_that_is_killed_comes_back_as_another_process() {
    let mut bench = Bench::run(folder(), vec![patient_unit("one", &["ready", "hold"])]).await;
    let old = bench.ready("one").await.pid.unwrap();
    kill(Pid::from_raw(old as i32), Signal::SIGKILL).unwrap();
    let again = bench.until("came back", "one", |unit| unit.is_ready() && unit.pid != Some(old)).await;
    assert_eq!((again.restarts, again.reason.as_deref()), (1, Some("ended by SIGKILL")));
    bench.stop().await;
}

#[tokio::test]
async fn silence_is_answered_by_the_watchdog_and_a_beating_heart_is_not() {
    let mut silent = patient_unit("silent", &["ready", "hold"]);
    silent.policy.watchdog = Some(50 * MILLISECOND);
    let mut beating = patient_unit("beating", &["ready", "beat=100"]);
    beating.policy.watchdog = Some(HANG);
    let mut bench = Bench::run(folder(), vec![silent, beating]).await;
    let unit = bench.until("was restarted", "silent", |unit| unit.restarts >= 2).await;
    assert!(unit.reason.unwrap().starts_with("watchdog"));
    assert_eq!(bench.ready("beating").await.restarts, 0);
    bench.stop().await;
}

#[tokio::test]
async fn who_is_deaf_to_sigterm_is_killed() {
    let mut deaf = patient_unit("deaf", &["deaf", "ready", "hold"]);
    deaf.policy.stop_timeout = 50 * MILLISECOND;
    let mut bench = Bench::run(folder(), vec![deaf]).await;
    let pid = bench.ready("deaf").await.pid.unwrap();
    bench.stop().await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn children_of_a_process_end_with_it() {
    let mut bench = Bench::run(folder(), vec![shell_unit("parent", "sleep 1000 & echo $!; wait")]).await;
    bench.ready("parent").await;
    let log = bench.folder.path().join("parent.log");
    let child = first_number(&log).await;
    bench.stop().await;
    let gone = async {
        while lives(child) && !is_zombie(child) {
            tokio::time::sleep(MILLISECOND).await;
        }
    };
    timeout(HANG, gone).await.expect("the child lives on");
}

#[tokio::test]
async fn a_daemon_that_left_the_process_group_ends_with_its_unit() {
    // Wine's server does so.
    let script = "setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000";
    let mut bench = Bench::run(folder(), vec![shell_unit("parent", script)]).await;
    bench.ready("parent").await;
    let log = bench.folder.path().join("parent.log");
    let daemon = first_number(&log).await;
    bench.stop().await;
    assert!(!lives(daemon) || is_zombie(daemon));
}

#[tokio::test]
async fn one_that_takes_more_memory_than_it_may_is_started_again_and_others_are_not() {
    let mut greedy = patient_unit("greedy", &["ready", "take=64", "hold"]);
    greedy.policy.memory = Some(48 << 20);
    let mut modest = patient_unit("modest", &["ready", "take=16", "hold"]);
    modest.policy.memory = Some(48 << 20);
    let mut bench = Bench::run(folder(), vec![greedy, modest]).await;
    let unit = bench.until("was restarted", "greedy", |unit| unit.restarts >= 1).await;
    assert!(unit.reason.as_deref().is_some_and(|reason| reason.ends_with("more than its 48 MiB")), "{unit:?}");
    assert_eq!(bench.ready("modest").await.restarts, 0);
    bench.stop().await;
}

/// Waits until a log begins with the id of a process.
async fn first_number(log: &Path) -> u32 {
    let read = async {
        loop {
            if let Ok(pid) = std::fs::read_to_string(log).unwrap_or_default().trim().parse::<u32>() {
                return pid;
            }
            tokio::time::sleep(MILLISECOND).await;
        }
    };
    timeout(HANG, read).await.unwrap()
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn a_socket_is_passed_and_outlives_the_process() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let inode = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(listener.as_ref()));
    let inode = std::fs::read_link(inode).unwrap();
    let script =
        "[ \"$LISTEN_PID\" = $$ ] && echo \"$LISTEN_FDS $LISTEN_FDNAMES $(readlink /proc/$$/fd/3)\"; exec sleep 1000";
    let mut unit = shell_unit("web", script);
    unit.sockets = vec![("https".into(), listener)];
    let mut bench = Bench::run(folder(), vec![unit]).await;
    let log = bench.folder.path().join("web.log");
    let line = format!("1 https {}\n", inode.display());
    let old = bench.ready("web").await.pid.unwrap();
    written(&log, &line).await;
    kill(Pid::from_raw(old as i32), Signal::SIGKILL).unwrap();
    written(&log, &line.repeat(2)).await;
    bench.stop().await;
}

/// Waits until a log holds exactly this.
async fn written(log: &Path, text: &str) {
    let read = || std::fs::read_to_string(log).unwrap_or_default();
    let done = async {
        while read() != text {
            tokio::time::sleep(MILLISECOND).await;
        }
    };
    timeout(HANG, done).await.unwrap_or_else(|_| panic!("{:?} instead of {text:?}", read()));
}

#[tokio::test]
async fn a_restart_waits_for_ready_and_an_unknown_name_lists_the_known_ones() {
    let mut one = patient_unit("web-1", &["ready", "hold"]);
    let mut two = patient_unit("web-2", &["ready", "hold"]);
    one.service = "web".into();
    two.service = "web".into();
    let mut bench = Bench::run(folder(), vec![one, two]).await;
    let old = [bench.ready("web-1").await.pid, bench.ready("web-2").await.pid];
    bench.supervisor.restart("web").await.unwrap();
    let new = [bench.ready("web-1").await, bench.ready("web-2").await];
    assert!(old.iter().zip(&new).all(|(old, new)| *old != new.pid && new.restarts == 0));
    bench.supervisor.restart("web-2").await.unwrap();
    let error = bench.supervisor.restart("wbe").await.unwrap_err().to_string();
    assert_eq!(error, "there is no service or instance named wbe; there are: web");
    bench.stop().await;
}

#[tokio::test]
async fn a_talkative_process_fills_no_more_than_its_share_of_the_disk() {
    let talker = patient_unit("talker", &["print=20000", "ready", "hold"]);
    let bounds = Bounds { file_bytes: 10_000, files: 2 };
    let mut bench = Bench::run_with(folder(), vec![talker], bounds).await;
    bench.ready("talker").await;
    let log = bench.folder.path().join("talker.log");
    let last = async {
        while !std::fs::read_to_string(&log).unwrap_or_default().ends_with("line 019999\n") {
            tokio::time::sleep(MILLISECOND).await;
        }
    };
    timeout(HANG, last).await.unwrap();
    let folder = bench.stop().await;
    let logs = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    let logs: Vec<_> = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("talker.log")).collect();
    assert_eq!(logs.len(), 2);
    // One reading of the pipe may exceed a file's share; the next begins a new one.
    assert!(logs.iter().all(|entry| entry.metadata().unwrap().len() <= 64 * 1024 + 10_000));
}

#[tokio::test]
async fn what_a_killed_supervisor_left_is_ended_and_a_reused_id_is_not() {
    use std::os::unix::process::CommandExt;
    let folder = folder();
    let records = Records::at(folder.path()).unwrap();
    let spawn = |invocation: &str| {
        let mut command = std::process::Command::new("sleep");
        command.arg("1000").process_group(0).env("INVOCATION_ID", invocation).spawn().unwrap()
    };
    let invocation = uuid::Uuid::new_v4().to_string();
    let (mut left, mut stranger) = (spawn(&invocation), spawn("another"));
    let record = |child: &std::process::Child, invocation: &str| {
        berth::supervisor::leftovers::Record::of(i32::try_from(child.id()).unwrap(), invocation).unwrap()
    };
    records.put("left", &record(&left, &invocation)).unwrap();
    let mut other_time = record(&stranger, "of one that has ended");
    other_time.start_time += 1;
    records.put("reused", &other_time).unwrap();
    std::fs::write(folder.path().join("torn"), "{\"pid\":").unwrap();
    let ended = records.clean_up(Duration::ZERO).await.unwrap();
    assert_eq!(ended, ["left"]);
    assert!(!left.wait().unwrap().success());
    assert!(stranger.try_wait().unwrap().is_none(), "somebody else's process was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
