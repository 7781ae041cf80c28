//! A server process that a test owns: started, killed, started again; never left behind.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use servers::Launch;

/// A server that runs, or does not at the moment.
#[derive(Debug)]
pub(crate) struct Process {
    launch: Launch,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// `log` takes what the server writes.
    pub(crate) fn new(launch: Launch, log: &Path) -> Self {
        Self { launch, log: log.to_owned(), child: None }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(&self.log).expect("cannot open the server's log");
        let errors = log.try_clone().expect("cannot share the server's log");
        let child = self.launch.command().stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("cannot start the server"));
    }

    /// Whether it ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
