//! What the images are built of: a builder that compiles nothing would not miss a source that the Dockerfile does not copy.

use std::{collections::BTreeSet, fs, path::Path};

/// Programs that go into images, beside the services.
const OTHERS: [&str; 2] = ["berth", "probe"];

#[test]
fn the_dockerfile_copies_every_source_of_every_program() {
    let repository = e2e::repository().canonicalize().unwrap();
    let dockerfile = fs::read_to_string(repository.join("docker/Dockerfile")).unwrap();
    let copied: BTreeSet<&str> = dockerfile.lines().filter_map(copied_folder).collect();
    let services = fs::read_dir(repository.join("services")).unwrap().map(|entry| entry.unwrap().file_name());
    for program in services.chain(OTHERS.map(Into::into)) {
        let program = program.to_str().unwrap();
        let sources = sources(program, &repository);
        assert!(!sources.is_empty(), "{program} has no sources");
        for source in sources {
            assert!(copied.iter().any(|folder| Path::new(&source).starts_with(folder)), "{program}: {source}");
        }
    }
}

/// The folder of the repository that this line takes into the image under the same name.
fn copied_folder(line: &str) -> Option<&str> {
    let (from, to) = line.strip_prefix("COPY ")?.split_once(' ')?;
    (from == to && from != ".").then_some(from)
}

/// What Cargo says a program is made of, relative to the repository: <https://doc.rust-lang.org/cargo/reference/build-cache.html#dep-info-files>.
fn sources(program: &str, repository: &Path) -> Vec<String> {
    let text = fs::read_to_string(e2e::program(program).with_extension("d")).unwrap();
    let (_, sources) = text.split_once(": ").unwrap();
    let prefix = format!("{}/", repository.display());
    sources.split_whitespace().filter_map(|source| source.strip_prefix(&prefix)).map(str::to_owned).collect()
}
