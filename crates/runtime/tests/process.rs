//! A process as its service manager sees it: signals, notifications, the watchdog and passed sockets, between real processes.
//! The ignored tests are the children, started by the others from this same binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    env,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt as _, FdMapping};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::{lifecycle::Lifecycle, sockets};

/// An address that no machine has (RFC 5737): binding it fails.
const NOWHERE: &str = "192.0.2.1:443";

fn command(child: &str) -> Command {
    // As in the service manager's own `LISTEN_PID`: known only once the process exists.
    let mut command = Command::new("sh");
    command.args(["-c", r#"if [ "$LISTEN_PID" = own ]; then LISTEN_PID=$$; fi; exec "$0" "$@""#]);
    command.arg(env::current_exe().unwrap()).args(["--exact", child, "--ignored", "--nocapture"]);
    command.stdout(Stdio::null());
    command
}

/// Killed when the test fails.
struct Started(Child);

impl Started {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn receive(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn a_service_is_ready_is_watched_reloads_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let started = command("service").env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").spawn().unwrap();
    let mut started = Started(started);
    let next = |wanted: &str| {
        loop {
            let message = receive(&manager);
            if message.starts_with(wanted) {
                return;
            }
            assert_eq!(message, "WATCHDOG=1\n", "while waiting for {wanted}");
        }
    };

    next("READY=1\n");
    for _ in 0..3 {
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
    }
    started.signal(Signal::SIGHUP);
    next("RELOADING=1\nMONOTONIC_USEC=");
    next("READY=1\n");
    started.signal(Signal::SIGTERM);
    next("STOPPING=1\n");
    assert!(started.0.try_wait().unwrap().is_none(), "it waits for its task");
    started.signal(Signal::SIGTERM);
    assert!(started.0.wait().unwrap().success());
}

#[test]
#[ignore = "a child of the tests here"]
fn service() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let lifecycle = Lifecycle::start().unwrap();
        let (reloading, mut reloads) = (lifecycle.clone(), lifecycle.reloads());
        tokio::spawn(async move {
            while reloads.changed().await.is_ok() {
                reloading.reloading();
                reloading.ready();
            }
        });
        lifecycle.tasks().spawn(std::future::pending::<()>());
        lifecycle.ready();
        lifecycle.drained(Duration::from_secs(3600)).await;
    });
}

/// Starts a child with a listening socket as descriptor 3, and tells the socket's address.
fn pass_socket(name: &str, listen_pid: &str) -> (Started, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = command("listening");
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).env("LISTEN_PID", listen_pid);
    command.fd_mappings(vec![FdMapping { parent_fd: listener.into(), child_fd: 3 }]).unwrap();
    (Started(command.spawn().unwrap()), address)
}

#[test]
fn a_passed_socket_is_found_by_its_name() {
    let (mut started, address) = pass_socket("https", "own");
    let mut answer = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "passed");
    assert!(started.0.wait().unwrap().success());
}

#[test]
fn a_socket_of_another_name_or_for_another_process_is_left_alone() {
    for (name, listen_pid) in [("admin", "own"), ("https", "1")] {
        let (mut started, _) = pass_socket(name, listen_pid);
        assert!(!started.0.wait().unwrap().success(), "{name} for {listen_pid}");
    }
}

#[test]
#[ignore = "a child of the tests here"]
fn listening() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = sockets::listener("https", NOWHERE.parse().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"passed").unwrap();
    });
}
