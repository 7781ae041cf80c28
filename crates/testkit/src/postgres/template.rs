//! A data folder that is made once and copied for every test: `initdb` takes several times as long as a copy.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use servers::postgres::Postgres;
use sha2::{Digest as _, Sha256};

/// What a template follows from, beside the server's programs and account.
const MAKERS: &str = concat!(include_str!("../../../servers/src/postgres.rs"), include_str!("../postgres.rs"));

/// Makes the server's data folder a copy of the template. Where there is none yet, `make` makes the data folder, and the template
/// becomes a copy of that.
pub(super) fn copy_or_make<E>(server: &Postgres, make: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let template = place(server);
    if template.is_dir() {
        copy(&template, &server.data);
        return Ok(());
    }
    make()?;
    let next = template.with_extension(process::id().to_string());
    copy(&server.data, &next);
    // Somebody else may have been faster.
    if fs::rename(&next, &template).is_err() {
        fs::remove_dir_all(&next).expect("cannot remove a copy that nobody needs");
    }
    Ok(())
}

/// Beside the tests that Cargo has built, so that it goes when they go.
fn place(server: &Postgres) -> PathBuf {
    let text = format!("{:?}{:?}{MAKERS}", server.programs, server.account);
    let digest: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let test = env::current_exe().expect("a test has a path");
    test.with_file_name(format!("postgres-data-{digest}"))
}

/// With owners and modes: the server insists on them.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--archive").args([from, to]).status().expect("cannot run cp");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}
