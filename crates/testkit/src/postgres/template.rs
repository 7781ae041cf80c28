//! A data folder that is made once and copied for every test: `initdb` takes several times as long as a copy.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use servers::postgres::Postgres;
use sha2::{Digest as _, Sha256};

/// What a template follows from, beside the server's programs and account.
const MAKERS: &str = concat!(include_str!("../../../servers/src/postgres.rs"), include_str!("../postgres.rs"));

/// Makes the server's data folder a copy of the template. Where there is none yet, `make` makes the data folder, and the template
/// becomes a copy of that.
pub(super) fn copy_or_make<E>(server: &Postgres, make: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    // A server whose address was taken is prepared once more.
    if server.data.is_dir() {
        return Ok(());
    }
    let template = place(server);
    if template.is_dir() {
        copy(&template, &server.data);
        return Ok(());
    }
    make()?;
    let folder = template.parent().expect("a file is in a folder");
    let next = tempfile::Builder::new().prefix("postgres-data-").tempdir_in(folder).expect("cannot make a folder");
    copy(&server.data, &next.path().join("data"));
    // Somebody else may have been faster.
    let _ = fs::rename(next.path().join("data"), &template);
    Ok(())
}

/// Beside the tests that Cargo has built, so that it goes when they go.
fn place(server: &Postgres) -> PathBuf {
    let program = server.programs.program("postgres");
    let built = fs::metadata(&program).and_then(|of| of.modified()).expect("the program is there");
    let text = format!("{program:?}{built:?}{:?}{MAKERS}", server.account);
    let digest: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let test = env::current_exe().expect("a test has a path");
    test.with_file_name(format!("postgres-data-{digest}"))
}

/// With owners and modes: the server insists on them.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([from, to])
        .status()
        .expect("cannot run cp");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}
