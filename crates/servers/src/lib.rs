//! The two foreign servers a mesh needs on one machine: PostgreSQL and NATS.
//!
//! Here lives how their programs are found, how a data directory is made, what their configuration says, and which
//! command runs them. Nothing here supervises: the command is handed to whoever does (the local runner, a test).
//! Nothing here connects as a client either.

mod account;
pub mod nats;
pub mod postgres;
mod programs;

pub use account::{Account, data_home};
pub use programs::{NatsProgram, PostgresPrograms};

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// Why a server could not be found or prepared. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not on this machine, or too old.
    #[error("{what} was not found: {mend}")]
    Missing {
        /// The program, with the version that is needed.
        what: &'static str,
        /// How to get it.
        mend: &'static str,
    },
    /// A file or folder could not be made or changed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase: "cannot create".
        action: &'static str,
        /// The file it was tried on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program's name.
        program: String,
        /// Its exit status, in words.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A name cannot be used in SQL or in a configuration file.
    #[error("the {field} {value:?} is not usable: use letters, digits, '-' and '_' only")]
    Name {
        /// Which setting.
        field: &'static str,
        /// What was given.
        value: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}

/// The certificate files of a server: PEM, as `secrets init` writes them.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The leaf certificate, then intermediates.
    pub cert: PathBuf,
    /// Its private key (PKCS#8).
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted.
    pub ca: PathBuf,
}

/// A command line to run a server with, and the account to run it under.
///
/// It is plain data, because each runner starts processes in its own way.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments; never a secret.
    pub args: Vec<OsString>,
    /// The account that must run it; `None` is the caller's own.
    pub account: Option<Account>,
}

impl Launch {
    /// The command, ready to be spawned by the standard library.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        if let Some(account) = &self.account {
            account.apply(&mut command);
        }
        command
    }
}

/// Runs a command to its end with `input` on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Result<String, Error> {
    use std::{io::Write, process::Stdio};
    let program = command.get_program().to_string_lossy().into_owned();
    let at = PathBuf::from(&program);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("cannot start", &at))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that dies early closes the pipe; its exit status says why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(Error::io("cannot wait for", &at))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let tail: Vec<&str> = text.lines().rev().take(12).collect();
    Err(Error::Failed {
        program,
        status: output.status.to_string(),
        output: tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
    })
}
