//! What there is to run in somebody's folder, judged by the files that lie there. Nothing is executed.
//!
//! [`archive`] is which file Maven or Gradle will make, where there is none yet.

mod archive;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mesh::{Template, plan::Runtime};

use self::archive::Archive;

/// A program that could be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// How it is started.
    pub runtime: Runtime,
    /// The file that is started, by its path from the folder down.
    pub artifact: String,
    /// The file it was found by.
    pub because: String,
    /// How to make the artifact, when it is not there yet.
    pub build: Option<String>,
}

/// Everything that could be run, the likeliest first; of each runtime only what is likeliest. Several of one runtime: nothing tells
/// which of them is meant.
///
/// # Errors
/// The folder cannot be read.
pub fn candidates(folder: &Path) -> io::Result<Vec<Candidate>> {
    let files = Files::of(folder)?;
    let mut found = Vec::new();
    for detect in [rust, java, dotnet, php, node, python, windows] {
        found.extend(detect(&files));
    }
    if found.is_empty() {
        found.extend(executables(&files));
    }
    Ok(found)
}

/// Which runtime starts a file of this name: the one whose artifacts end so, otherwise it must start by itself.
pub fn runtime_of(artifact: &str) -> Runtime {
    let starts = |runtime: &Runtime| Template::of(*runtime).artifacts.iter().any(|ending| artifact.ends_with(ending));
    Runtime::ALL.into_iter().find(starts).unwrap_or(Runtime::Native)
}

/// The files of a folder, and of those folders below it that build tools write to.
struct Files {
    folder: PathBuf,
    /// Paths from the folder down, and whether the file may be executed.
    files: BTreeMap<String, bool>,
}

/// Where build tools put what they make.
const OUTPUTS: [&str; 8] = ["target", "build", "build/libs", "public", "dist", "publish", "src", "bin"];

impl Files {
    fn of(folder: &Path) -> io::Result<Self> {
        let mut all = Self { folder: folder.to_owned(), files: BTreeMap::new() };
        all.list("")?;
        for output in OUTPUTS {
            if folder.join(output).is_dir() {
                all.list(output)?;
            }
        }
        Ok(all)
    }

    fn list(&mut self, below: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join(below))? {
            let entry = entry?;
            // What cannot be looked at, or has a name that no TOML can hold, cannot be declared either.
            let (Ok(metadata), Ok(name)) = (fs::metadata(entry.path()), entry.file_name().into_string()) else {
                continue;
            };
            if metadata.is_file() && !name.chars().any(|c| c.is_control() || c == '\\') {
                let path = if below.is_empty() { name } else { format!("{below}/{name}") };
                self.files.insert(path, metadata.permissions().mode() & 0o111 != 0);
            }
        }
        Ok(())
    }

    fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The first of these that is there.
    fn first<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.has(name))
    }

    fn ending(&self, endings: &[&str]) -> Vec<&str> {
        let ends = |path: &&str| endings.iter().any(|ending| path.ends_with(ending));
        self.files.keys().map(String::as_str).filter(ends).collect()
    }

    /// The folder's own files that end so.
    fn here(&self, endings: &[&str]) -> Vec<&str> {
        self.ending(endings).into_iter().filter(|path| !path.contains('/')).collect()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.folder.join(path)).unwrap_or_default()
    }

    fn name(&self) -> String {
        self.folder.file_name().map_or_else(|| "app".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

fn there(runtime: Runtime, artifact: &str, because: &str) -> Candidate {
    Candidate { runtime, artifact: artifact.to_owned(), because: because.to_owned(), build: None }
}

fn to_build(runtime: Runtime, artifact: String, because: &str, build: &str) -> Candidate {
    Candidate { runtime, artifact, because: because.to_owned(), build: Some(build.to_owned()) }
}

fn rust(files: &Files) -> Vec<Candidate> {
    let name = files.has("Cargo.toml").then(|| quoted_value(&files.text("Cargo.toml"), "[package]", "name")).flatten();
    let Some(name) = name else { return Vec::new() };
    let artifact = format!("target/release/{name}");
    if files.folder.join(&artifact).is_file() {
        return vec![there(Runtime::Native, &artifact, "Cargo.toml")];
    }
    vec![to_build(Runtime::Native, artifact, "Cargo.toml", "cargo build --release")]
}

fn java(files: &Files) -> Vec<Candidate> {
    const SIDE_PRODUCTS: [&str; 4] = ["-sources.jar", "-javadoc.jar", "-plain.jar", "-tests.jar"];
    let is_program = |path: &&str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        !SIDE_PRODUCTS.iter().any(|ending| path.ends_with(ending)) && !file.starts_with("original-")
    };
    let jars: Vec<&str> = files.ending(&[".jar", ".war"]).into_iter().filter(is_program).collect();
    if !jars.is_empty() {
        return jars.into_iter().map(|jar| there(Runtime::Java, jar, jar)).collect();
    }
    if files.has("pom.xml") {
        return maven(files).into_iter().collect();
    }
    files.first(&["build.gradle", "build.gradle.kts"]).map(|build| gradle(files, build)).into_iter().collect()
}

fn maven(files: &Files) -> Option<Candidate> {
    const BUILD: &str = "mvn package";
    match archive::of_maven(&files.text("pom.xml")) {
        Archive::Named(file) => Some(to_build(Runtime::Java, format!("target/{file}"), "pom.xml", BUILD)),
        Archive::Unnamed => Some(to_be_named(files, "target", "pom.xml", BUILD)),
        Archive::None => None,
    }
}

fn gradle(files: &Files, build: &str) -> Candidate {
    const BUILD: &str = "gradle build";
    let settings = files.first(&["settings.gradle", "settings.gradle.kts"]).map(|settings| files.text(settings));
    let properties = files.text("gradle.properties");
    match archive::of_gradle(&files.name(), settings.as_deref(), &files.text(build), &properties) {
        Some(file) => to_build(Runtime::Java, format!("build/libs/{file}"), build, BUILD),
        None => to_be_named(files, "build/libs", build, BUILD),
    }
}

/// An archive whose name nothing here says.
fn to_be_named(files: &Files, folder: &str, because: &str, build: &str) -> Candidate {
    let guess = format!("{folder}/{}.jar", files.name());
    to_build(Runtime::Java, guess, because, &format!("{build}, then name the jar it makes, here or by --artifact"))
}

fn dotnet(files: &Files) -> Vec<Candidate> {
    let projects = files.here(&[".csproj"]);
    let libraries = files.ending(&[".dll"]);
    if projects.is_empty() {
        // A program has its settings beside it, a library has not.
        let is_program = |path: &&&str| files.has(&path.replace(".dll", ".runtimeconfig.json"));
        let programs: Vec<&&str> = libraries.iter().filter(is_program).collect();
        let programs = if programs.is_empty() { libraries.iter().collect() } else { programs };
        return programs.into_iter().map(|path| there(Runtime::Dotnet, path, path)).collect();
    }
    let candidate = |project: &str| {
        let library = format!("{}.dll", project.trim_end_matches(".csproj"));
        match libraries.iter().find(|path| path.rsplit('/').next() == Some(&library)) {
            Some(built) => there(Runtime::Dotnet, built, project),
            None => {
                to_build(Runtime::Dotnet, format!("publish/{library}"), project, "dotnet publish -c Release -o publish")
            }
        }
    };
    projects.into_iter().map(candidate).collect()
}

fn php(files: &Files) -> Vec<Candidate> {
    const ENTRIES: [&str; 4] = ["public/index.php", "index.php", "router.php", "src/index.php"];
    let scripts = files.here(&[".php"]);
    let marker = files.first(&["composer.json"]);
    script(files, Runtime::Php, &ENTRIES, &scripts, marker)
}

fn node(files: &Files) -> Vec<Candidate> {
    const ENTRIES: [&str; 8] = [
        "server.js",
        "index.js",
        "app.js",
        "main.js",
        "dist/index.js",
        "dist/server.js",
        "dist/main.js",
        "src/index.js",
    ];
    let marker = files.first(&["package.json"]);
    let package: serde_json::Value = serde_json::from_str(&files.text("package.json")).unwrap_or_default();
    let main = package.get("main").and_then(serde_json::Value::as_str).map(|main| main.trim_start_matches("./"));
    if let Some(main) = main.filter(|main| files.folder.join(main).is_file() && runtime_of(main) == Runtime::Node) {
        return vec![there(Runtime::Node, main, "package.json")];
    }
    let is_setting = |path: &&str| path.contains(".config.");
    let scripts = files.here(&[".js", ".mjs", ".cjs"]);
    let scripts: Vec<&str> = scripts.into_iter().filter(|path| !is_setting(path)).collect();
    script(files, Runtime::Node, &ENTRIES, &scripts, marker)
}

fn python(files: &Files) -> Vec<Candidate> {
    const ENTRIES: [&str; 7] =
        ["main.py", "app.py", "server.py", "__main__.py", "src/main.py", "src/app.py", "wsgi.py"];
    let is_program = |path: &&str| !path.starts_with("test_") && !matches!(*path, "setup.py" | "conftest.py");
    let scripts: Vec<&str> = files.here(&[".py", ".pyz"]).into_iter().filter(is_program).collect();
    script(files, Runtime::Python, &ENTRIES, &scripts, files.first(&["pyproject.toml", "requirements.txt"]))
}

/// The file of a usual name; otherwise all there are; otherwise, where a `marker` says there should be one, the most usual.
fn script(files: &Files, runtime: Runtime, usual: &[&str], scripts: &[&str], marker: Option<&str>) -> Vec<Candidate> {
    if let Some(entry) = files.first(usual) {
        return vec![there(runtime, entry, marker.unwrap_or(entry))];
    }
    if scripts.is_empty() {
        let missing = |(marker, name): (&str, &&str)| {
            to_build(runtime, (*name).to_owned(), marker, "name the file that starts it")
        };
        return marker.zip(usual.first()).map(missing).into_iter().collect();
    }
    scripts.iter().map(|path| there(runtime, path, path)).collect()
}

fn windows(files: &Files) -> Vec<Candidate> {
    // Beside a library of its name it is what .NET starts that by on Windows.
    let starts_by_itself = |path: &&str| !files.has(&path.replace(".exe", ".dll"));
    let programs = files.ending(&[".exe"]).into_iter().filter(starts_by_itself);
    programs.map(|path| there(Runtime::Wine, path, path)).collect()
}

fn executables(files: &Files) -> Vec<Candidate> {
    let is_program = |(path, may): &(&String, &bool)| **may && !path.starts_with('.') && !path.ends_with(".sh");
    let programs = files.files.iter().filter(is_program).map(|(path, _)| path.as_str());
    let programs = programs.filter(|path| !matches!(*path, "mvnw" | "gradlew" | "configure" | "berth"));
    // What another runtime starts was not meant to be started by itself, whatever its permissions are.
    let programs = programs.filter(|path| runtime_of(path) == Runtime::Native);
    programs.map(|path| there(Runtime::Native, path, path)).collect()
}

/// The text of `key = "…"` in a section of a TOML file that somebody else's tool wrote.
fn quoted_value(text: &str, section: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    let value = lines.find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim))?;
    Some(value.trim_start_matches('"').split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

    use super::*;

    /// Files of a folder called `pricing` with what is in them, and what is found there: each as `runtime artifact`, with `*` when it must
    /// be built, with `?` when nothing says what it will then be called.
    type Folder = (&'static [(&'static str, &'static str)], &'static [&'static str]);

    const FOLDERS: &[Folder] = &[
        (&[], &[]),
        (&[("README.md", ""), ("notes.txt", "")], &[]),
        (&[("pom.xml", "")], &["java target/pricing.jar?"]),
        (&[("pom.xml", "<project><packaging>pom</packaging></project>")], &[]),
        (
            &[("pom.xml", "<project><artifactId>quote</artifactId><version>1.2</version></project>")],
            &["java target/quote-1.2.jar*"],
        ),
        (&[("pom.xml", ""), ("target/pricing-1.0.jar", "")], &["java target/pricing-1.0.jar"]),
        (
            &[("pom.xml", ""), ("target/a.jar", ""), ("target/a-sources.jar", ""), ("target/original-a.jar", "")],
            &["java target/a.jar"],
        ),
        (&[("build.gradle.kts", "")], &["java build/libs/pricing.jar*"]),
        (&[("build.gradle", "version = release()")], &["java build/libs/pricing.jar?"]),
        (
            &[
                ("build.gradle", "plugins {\n    id 'org.springframework.boot' version '3.5.0'\n}\nversion = '1.2'"),
                ("settings.gradle", "rootProject.name = 'quote'"),
            ],
            &["java build/libs/quote-1.2.jar*"],
        ),
        (&[("build.gradle", ""), ("build/libs/p.jar", ""), ("build/libs/p-plain.jar", "")], &["java build/libs/p.jar"]),
        (&[("a.jar", ""), ("b.jar", "")], &["java a.jar", "java b.jar"]),
        (&[("requirements.txt", ""), ("app.py", ""), ("tools.py", "")], &["python app.py"]),
        (&[("pyproject.toml", "")], &["python main.py*"]),
        (&[("requirements.txt", "")], &["python main.py*"]),
        (&[("serve.py", ""), ("test_serve.py", ""), ("setup.py", "")], &["python serve.py"]),
        (&[("one.py", ""), ("two.py", "")], &["python one.py", "python two.py"]),
        (&[("composer.json", "{}"), ("public/index.php", "")], &["php public/index.php"]),
        (&[("composer.json", "{}")], &["php public/index.php*"]),
        (&[("shop.php", "")], &["php shop.php"]),
        (&[("Shop.csproj", "")], &["dotnet publish/Shop.dll*"]),
        (&[("Shop.csproj", ""), ("publish/Shop.dll", ""), ("publish/Json.dll", "")], &["dotnet publish/Shop.dll"]),
        (&[("Shop.dll", ""), ("Shop.runtimeconfig.json", ""), ("Json.dll", "")], &["dotnet Shop.dll"]),
        (&[("package.json", r#"{"main": "./lib.js"}"#), ("lib.js", ""), ("index.js", "")], &["node lib.js"]),
        (&[("package.json", "not json"), ("server.js", ""), ("eslint.config.js", "")], &["node server.js"]),
        (&[("package.json", "{}")], &["node server.js*"]),
        (&[("Cargo.toml", "[package]\nname = \"quote\"\n")], &["native target/release/quote*"]),
        (
            &[("Cargo.toml", "[package]\nname=\"quote\""), ("target/release/quote", "")],
            &["native target/release/quote"],
        ),
        (&[("Cargo.toml", "[workspace]\nmembers = []")], &[]),
        (&[("Shop.exe", "")], &["wine Shop.exe"]),
        (&[("build/hello.exe", "+x"), ("hello.c", ""), ("build.sh", "+x")], &["wine build/hello.exe"]),
        (&[("build/hello.exe", "")], &["wine build/hello.exe"]),
        (
            &[("publish/Shop.exe", "+x"), ("publish/Shop.dll", "+x"), ("publish/Shop.runtimeconfig.json", "")],
            &["dotnet publish/Shop.dll"],
        ),
        (&[("quote", "+x"), ("build.sh", "+x"), ("mvnw", "+x")], &["native quote"]),
        (&[("main.py", "+x"), ("index.php", "")], &["php index.php", "python main.py"]),
    ];

    pub(crate) fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("pricing");
        fs::create_dir(&folder).unwrap();
        for (path, content) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            if *content == "+x" {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        (parent, folder)
    }

    #[test]
    fn each_kind_of_program_is_found_by_its_files() {
        for (files, expected) in FOLDERS {
            let (_parent, folder) = folder(files);
            let found = candidates(&folder).unwrap();
            let told = found.iter().map(|found| {
                let mark = match found.build.as_deref() {
                    None => "",
                    Some(build) if build.contains("then name") => "?",
                    Some(_) => "*",
                };
                format!("{} {}{mark}", Template::of(found.runtime).name, found.artifact)
            });
            assert_eq!(told.collect::<Vec<_>>(), *expected, "{files:?}");
        }
    }

    #[test]
    fn what_is_found_resolves_without_findings() {
        for (files, _) in FOLDERS {
            let (_parent, folder) = folder(files);
            for found in candidates(&folder).unwrap() {
                let text = crate::starter::declaration("pricing", &found);
                let plan = mesh::resolve("mesh.toml", &text, &mesh::Placement::Nodes)
                    .unwrap_or_else(|found| panic!("{text}\n{:?}", miette::Report::new(found)));
                let service = plan.service("pricing").unwrap();
                assert_eq!(service.runtime, found.runtime);
                let mesh::plan::Executable::Artifact(artifact) = &service.executable else { panic!("{text}") };
                assert_eq!(artifact.path, found.artifact);
                assert_eq!(service.instances.len(), 2);
            }
        }
    }

    #[test]
    fn a_file_tells_its_runtime_by_its_ending() {
        for (file, runtime) in
            [("a.jar", Runtime::Java), ("x/b.py", Runtime::Python), ("c.exe", Runtime::Wine), ("d", Runtime::Native)]
        {
            assert_eq!(runtime_of(file), runtime, "{file}");
        }
    }
}
