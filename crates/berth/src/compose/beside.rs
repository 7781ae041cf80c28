//! What has to lie beside `docker-compose.yaml` so that its images can be built in a folder that is not Berth's own: where the source of
//! Berth is, a Dockerfile for each runtime, and what must not get into an image.
//!
//! All of it is its owner's to change: what is there stays as it is, and only what is missing is added.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use mesh::{
    Template,
    plan::{Executable, Plan},
};

use crate::{failure::Failure, project::Project, secrets::files};

/// Names the source of Berth: a folder, or whatever else an engine takes for a build context, such as a Git URL.
const SOURCE: &str = "BERTH_SOURCE";
/// Part of the source, and of nothing else.
const OWN_DOCKERFILE: &str = "docker/Dockerfile";
/// The line of a `.dockerignore` that keeps out the secrets of this mesh, and of any other in a folder below.
const SECRETS: &str = "**/.berth";
const IGNORED: &str = "\
# What no image is to hold. Written by `berth compose`; it never writes over it.
**/.berth
.env
.git
.venv
**/__pycache__
docker
docker-compose.yaml
mesh.toml
mesh.lock.json
";

/// Where a runtime's Dockerfile lies.
pub fn dockerfile(template: &Template) -> String {
    format!("docker/runtimes/{}.Dockerfile", template.name)
}

/// Adds what is missing, and tells what it did, a line each.
///
/// # Errors
/// Nothing says where the source of Berth is, or a file cannot be read or written.
pub fn complete(project: &Project, plan: &Plan) -> Result<Vec<String>, Failure> {
    let root = project.root();
    let mut told = Vec::new();
    told.extend(name_source(root)?);
    let templates: BTreeMap<&str, &Template> = plan
        .services
        .iter()
        .filter(|service| matches!(service.executable, Executable::Artifact(_)))
        .map(|service| Template::of(service.runtime))
        .map(|template| (template.name, template))
        .collect();
    for template in templates.values() {
        told.extend(add_dockerfile(root, template)?);
    }
    if !templates.is_empty() {
        told.extend(keep_secrets_out(root)?);
    }
    Ok(told)
}

/// Writes into `.env` where the source is, unless it says so already or the folder itself is the source.
fn name_source(root: &Path) -> Result<Option<String>, Failure> {
    let path = root.join(".env");
    let settings = files::read(&path)?.unwrap_or_default();
    if let Some(named) = settings.lines().find_map(|line| line.trim().strip_prefix(SOURCE)?.strip_prefix('=')) {
        let named = named.trim_matches(['"', '\'']);
        let is_folder = !named.contains("://") && !named.starts_with("git@");
        if is_folder && !is_source(&root.join(named)) {
            return Err(Failure::mendable(
                format!("{SOURCE} in {} is {named}, where the source of Berth is not", path.display()),
                "name the folder of a checkout, or its Git URL; or take the line away to have it written anew",
            ));
        }
        return Ok(None);
    }
    if is_source(root) {
        return Ok(None);
    }
    let source = source().ok_or_else(|| {
        Failure::mendable(
            "the images of the gateway and of whatever else is Berth's are built from its source, and nothing says where that is",
            format!("say so in {}: {SOURCE}=/folder/of/berth (or a Git URL), then run `berth compose` again", path.display()),
        )
    })?;
    let quoted = if source.contains([' ', '#']) { format!("'{source}'") } else { source.clone() };
    let gap = if settings.is_empty() || settings.ends_with('\n') { "" } else { "\n" };
    let comment = "# Where docker-compose.yaml builds the images of Berth itself from: true of this machine alone.\n";
    files::replace_public(&path, format!("{settings}{gap}{comment}{SOURCE}={quoted}\n").as_bytes())?;
    Ok(Some(format!("{SOURCE}={source} went into {}; keep that file out of version control", path.display())))
}

/// What the environment says, or the checkout that this very program was built in.
fn source() -> Option<String> {
    let own = || env::current_exe().ok()?.ancestors().find(|folder| is_source(folder)).map(Path::to_owned);
    let named = env::var_os(SOURCE).filter(|named| !named.is_empty());
    named.map(PathBuf::from).or_else(own)?.to_str().map(str::to_owned)
}

fn is_source(folder: &Path) -> bool {
    folder.join(OWN_DOCKERFILE).is_file() && folder.join("crates/berth/Cargo.toml").is_file()
}

fn add_dockerfile(root: &Path, template: &Template) -> Result<Option<String>, Failure> {
    let path = root.join(dockerfile(template));
    match files::read(&path)? {
        Some(present) if present == template.dockerfile => Ok(None),
        Some(_) => Ok(Some(format!("left {} as it is; without it, Berth's own is written", path.display()))),
        None => {
            let folder = path.parent().unwrap_or(root);
            fs::create_dir_all(folder)
                .map_err(|error| Failure::io(format!("cannot create {}", folder.display()), error))?;
            files::replace_public(&path, template.dockerfile.as_bytes())?;
            Ok(Some(format!("wrote {}", path.display())))
        }
    }
}

/// The folder is a build context, and what the local runner keeps in it are secrets.
fn keep_secrets_out(root: &Path) -> Result<Option<String>, Failure> {
    let path = root.join(".dockerignore");
    let Some(present) = files::read(&path)? else {
        files::replace_public(&path, IGNORED.as_bytes())?;
        return Ok(Some(format!("wrote {}", path.display())));
    };
    if present.lines().any(|line| line.trim() == SECRETS) {
        return Ok(None);
    }
    let gap = if present.ends_with('\n') { "" } else { "\n" };
    files::replace_public(&path, format!("{present}{gap}{SECRETS}\n").as_bytes())?;
    Ok(Some(format!("added {SECRETS}, where secrets lie, to {}", path.display())))
}
