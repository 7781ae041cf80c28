//! What a person does before anything runs: a first declaration, what is wrong with it, what it comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "in a test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn berth(folder: &Path, arguments: &[&str]) -> Output {
    let mut berth = Command::new(env!("CARGO_BIN_EXE_berth"));
    berth.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output, code: i32, why: &str) {
    assert_eq!(output.status.code(), Some(code));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(why), "{told}");
}

#[test]
fn a_first_declaration_is_written_once_and_is_right() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pricing");
    fs::create_dir(&folder).unwrap();
    let declaration = folder.join("mesh.toml");

    refused(&berth(&folder, &["init"]), 1, "nothing to run was found");
    fs::write(folder.join("a.jar"), "").unwrap();
    fs::write(folder.join("b.jar"), "").unwrap();
    refused(&berth(&folder, &["init"]), 1, "--artifact b.jar");
    refused(&berth(&folder, &["init", "--runtime", "cobol"]), 2, "native, java, python");
    refused(&berth(&folder, &["init", "--artifact", "a.jar", "--name", "gateway"]), 1, "something else");
    refused(&berth(&folder, &["init", "--artifact", "../a.jar"]), 4, "below this folder");
    assert!(!declaration.exists(), "what is refused writes nothing");

    assert!(done(&berth(&folder, &["init", "--artifact", "a.jar"])).contains("found a.jar (java)"));
    done(&berth(&folder, &["check"]));
    let plan = done(&berth(&folder, &["plan"]));
    assert!(plan.contains("pricing-2 app-2.pricing.internal:8200"), "{plan}");

    let written = fs::read_to_string(&declaration).unwrap();
    refused(&berth(&folder, &["init", "--artifact", "b.jar"]), 1, "is there already");
    assert_eq!(fs::read_to_string(&declaration).unwrap(), written);
    done(&berth(&folder, &["init", "--artifact", "b.jar", "--name", "prices", "--force"]));
    assert!(fs::read_to_string(&declaration).unwrap().contains("[services.prices]"));
}

#[test]
fn what_is_wrong_is_told_to_programs_as_well() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app.py"), "").unwrap();
    done(&berth(folder.path(), &["init", "--name", "pricing"]));
    let report: Value = serde_json::from_str(&done(&berth(folder.path(), &["check", "--json"]))).unwrap();
    assert_eq!(report["findings"], Value::Array(Vec::new()));

    let declaration = folder.path().join("mesh.toml");
    let text = fs::read_to_string(&declaration).unwrap().replace("cpus = 1,", "cpu = 1,");
    fs::write(&declaration, text).unwrap();
    refused(&berth(folder.path(), &["check"]), 4, "did you mean `cpus`?");
    let output = berth(folder.path(), &["check", "--json"]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(4), [].as_slice()));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rules = report["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap());
    assert_eq!(rules.collect::<Vec<_>>(), ["mesh::missing-field", "mesh::unknown-field"]);
    let unknown = &report["findings"][1];
    assert_eq!((unknown["line"].as_u64(), unknown["column"].as_u64()), (Some(7), Some(11)));
    assert_eq!(unknown["help"], "did you mean `cpus`?");
}

#[test]
fn a_strangers_folder_becomes_containers_and_keeps_what_is_his() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let compose = |arguments: &[&str], source: &Path| {
        let mut berth = Command::new(env!("CARGO_BIN_EXE_berth"));
        berth.arg("compose").args(arguments).current_dir(folder.path()).env("BERTH_SOURCE", source);
        berth.stdin(Stdio::null()).output().unwrap()
    };
    fs::write(path("a.jar"), "").unwrap();
    fs::write(path(".env"), "COLOUR=blue").unwrap();
    fs::write(path(".dockerignore"), "notes").unwrap();
    done(&berth(folder.path(), &["init", "--name", "pricing"]));
    refused(&compose(&["--check"], &repository), 1, "is not what mesh.toml says");
    assert!(!path("docker-compose.yaml").exists() && !path("docker").exists(), "a check writes nothing");

    done(&compose(&[], &repository));
    assert!(!read("docker-compose.yaml").contains(repository.to_str().unwrap()));
    assert!(read("docker/runtimes/java.Dockerfile").starts_with("# A Java archive"));
    assert!(read(".env").starts_with("COLOUR=blue\n"));
    assert!(read(".env").ends_with(&format!("\nBERTH_SOURCE={}\n", repository.display())));
    assert_eq!(read(".dockerignore"), "notes\n**/.berth\n");

    let own = ["docker/runtimes/java.Dockerfile", ".env", ".dockerignore"];
    fs::write(path(own[0]), "FROM scratch").unwrap();
    let before = own.map(read);
    let told = done(&compose(&[], Path::new("/elsewhere")));
    assert!(told.contains("left") && told.contains("java.Dockerfile"), "{told}");
    assert_eq!(own.map(read), before);

    fs::write(path(".env"), "BERTH_SOURCE=/nowhere").unwrap();
    refused(&compose(&[], &repository), 1, "take the line away");
}

#[test]
fn a_plan_and_a_drawing_are_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("server.js"), "").unwrap();
    done(&berth(folder.path(), &["init", "--name", "pricing"]));
    let plan = done(&berth(folder.path(), &["plan", "--json"]));
    done(&berth(folder.path(), &["lock"]));
    assert_eq!(fs::read_to_string(folder.path().join("mesh.lock.json")).unwrap(), plan);
    let svg = done(&berth(folder.path(), &["graph"]));
    done(&berth(folder.path(), &["graph", "--output", "mesh.svg"]));
    assert_eq!(fs::read_to_string(folder.path().join("mesh.svg")).unwrap(), svg);
    assert!(svg.starts_with("<svg") && svg.contains("/pricing"));
}
