//! A test that is ended from outside leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::Mesh;
use testkit::eventually;

/// In the environment of the process that is to be killed.
const VICTIM: &str = "BERTH_TEST_VICTIM";
/// Before the folder it prints.
const FOLDER: &str = "folder=";

/// That a mesh is down afterwards, every other test shows: they end by the same means.
#[tokio::test]
async fn a_test_that_is_killed_is_cleaned_up_after() {
    if env::var_os(VICTIM).is_some() {
        let mesh = Mesh::declare(|_| {});
        println!("\n{FOLDER}{}", mesh.folder().display());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_test_that_is_killed_is_cleaned_up_after", "--nocapture"])
        .env(VICTIM, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let folder = lines.find_map(|line| line.strip_prefix(FOLDER).map(PathBuf::from)).unwrap();
    assert!(folder.join("mesh.toml").is_file());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("its folder to be gone", async || (!folder.exists()).then_some(())).await;
}
