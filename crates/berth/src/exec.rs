//! `berth exec`: the last step between the supervisor and a program.
//!
//! Some things only the new process can do for itself, after it was made and before the program runs: learn its own id
//! (`LISTEN_PID`), change its account, and ask to be told when its parent dies. This does them and becomes the program.

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use nix::{
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Uid, getppid, setgid, setgroups, setuid},
};
use servers::Account;

/// Open files a service may have, where the system allows as many.
const OPEN_FILES: u64 = 65_536;

/// What to become. It is handed from the supervisor to its child on the command line.
#[derive(Debug, Clone)]
pub struct Order {
    /// Process id of the supervisor.
    pub parent: u32,
    /// What the program gets when the supervisor dies.
    pub death_signal: String,
    /// Who runs the program.
    pub account: Option<Account>,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// The same, as clap reads it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Process id of the supervisor
    #[arg(long)]
    parent: u32,
    /// Signal to get when the supervisor dies
    #[arg(long)]
    death_signal: String,
    /// User id to run as
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// Group id to run as
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Order {
    /// The command that carries the order out. `helper` is the program that has `exec` as a command.
    pub fn command(&self, helper: &Path) -> Command {
        let mut command = Command::new(helper);
        command.arg0("berth").arg("exec");
        command.args(["--parent", &self.parent.to_string(), "--death-signal", &self.death_signal]);
        if let Some(account) = self.account {
            command.args(["--uid", &account.uid.to_string(), "--gid", &account.gid.to_string()]);
        }
        command.arg("--").arg(&self.program).args(&self.args);
        command
    }
}

impl Arguments {
    /// Becomes the program.
    ///
    /// # Errors
    /// The order cannot be carried out; the program has not run then.
    pub fn run(&self) -> io::Result<Infallible> {
        let signal: Signal = self.death_signal.parse()?;
        let (program, args) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        allow_many_open_files()?;
        if let (Some(uid), Some(gid)) = (self.uid, self.gid) {
            let gid = Gid::from_raw(gid);
            setgroups(&[gid])?;
            setgid(gid)?;
            setuid(Uid::from_raw(uid))?;
        }
        // After the change of account, which would clear it.
        set_pdeathsig(signal)?;
        if u32::try_from(getppid().as_raw()) != Ok(self.parent) {
            return Err(io::Error::other("the supervisor died"));
        }
        let own = std::process::id().to_string();
        let mut command = Command::new(program);
        command.args(args);
        for (given, name) in [("LISTEN_FDS", "LISTEN_PID"), ("WATCHDOG_USEC", "WATCHDOG_PID")] {
            if std::env::var_os(given).is_some() {
                command.env(name, OsStr::new(&own));
            }
        }
        let error = command.exec();
        Err(io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display())))
    }
}

fn allow_many_open_files() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(OPEN_FILES)), hard)
}
