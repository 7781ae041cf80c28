//! docs/problems.md describes every kind of problem that any crate of the workspace declares, and none that is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use berth_http::problem::COMMON;

fn root() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..")
}

/// The table rows `| `slug` | status | …`.
fn documented() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("docs/problems.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let (slug, status) = (cells.next()?.strip_suffix('`')?, cells.next()?);
        assert_eq!(cells.filter(|cell| !cell.is_empty()).count(), 2, "meaning and mend: {line}");
        Some((slug.to_owned(), status.to_owned()))
    });
    rows.collect()
}

/// Every `ProblemType::new("slug", status, …)` in a `src` folder, outside test modules.
fn declared(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            declared(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for call in code.split("ProblemType::new(").skip(1) {
                let mut arguments = call.split(',').map(str::trim);
                if let Some(slug) = arguments.next().and_then(|slug| slug.strip_prefix('"')?.strip_suffix('"')) {
                    found.insert(slug.to_owned(), arguments.next().unwrap().to_owned());
                }
            }
        }
    }
}

#[test]
fn every_kind_of_problem_is_described_with_its_status() {
    let mut expected: BTreeMap<String, String> =
        COMMON.iter().map(|kind| (kind.slug().to_owned(), kind.status().as_str().to_owned())).collect();
    for group in ["crates", "services"] {
        for package in fs::read_dir(root().join(group)).unwrap() {
            declared(&package.unwrap().path().join("src"), &mut expected);
        }
    }
    let documented = documented();
    let missing: BTreeSet<_> = expected.keys().filter(|slug| !documented.contains_key(*slug)).collect();
    assert!(missing.is_empty(), "describe them in docs/problems.md: {missing:?}");
    assert_eq!(documented, expected, "docs/problems.md describes what does not exist, or another status");
}
