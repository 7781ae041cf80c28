//! The `berth` program; see the library of the same name.

use std::{io::Write, process::ExitCode};

use berth::{called, cli::Cli, commands, failure::Failure};
use clap::Parser;

/// One thread only: a child is told of its parent's death when the *thread* that made it ends.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    called::remember(&cli);
    tls::install_provider();
    let Err(failure) = commands::run(cli).await else { return ExitCode::SUCCESS };
    let code = failure.exit_code();
    let mut errors = std::io::stderr();
    // Where nobody reads the complaint, the exit code still tells.
    let _ = match failure {
        Failure::Told { words, .. } => errors.write_all(words.as_bytes()),
        failure => writeln!(errors, "{:?}", miette::Report::new(failure)),
    };
    ExitCode::from(code)
}
