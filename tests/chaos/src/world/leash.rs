//! A shell between the supervisor and a program, which becomes that program: first it waits while the unit is held down,
//! then it takes what variables there are for it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use berth::supervisor::specification::Specification;

const SHELL: &str = "/bin/sh";
/// `$0` is the unit's file in the leash's folder, `$@` the program.
const SCRIPT: &str =
    r#"while [ -e "$0.held" ]; do sleep 0.05; done; if [ -r "$0.env" ]; then . "$0.env"; fi; exec "$@""#;

#[derive(Debug)]
pub(super) struct Leash {
    folder: PathBuf,
}

/// A unit that is held down; it may come back when this is dropped.
#[derive(Debug)]
pub struct Held(PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Leash {
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        let folder = parent.join("leash");
        fs::create_dir(&folder)?;
        // Databases may run as somebody else, who must see it.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    pub(super) fn put_on(&self, unit: &mut Specification) {
        let program = std::mem::replace(&mut unit.program, SHELL.into());
        let script = ["-c".into(), SCRIPT.into(), self.file(&unit.name).into(), program.into()];
        unit.args.splice(0..0, script);
    }

    pub(super) fn hold(&self, unit: &str) -> Result<Held> {
        let file = self.folder.join(format!("{unit}.held"));
        fs::write(&file, "").with_context(|| format!("cannot hold {unit}"))?;
        Ok(Held(file))
    }

    pub(super) fn equip(&self, unit: &str, variables: &[(&str, &str)]) -> Result<()> {
        let file = self.folder.join(format!("{unit}.env"));
        let mut script = String::new();
        for (name, value) in variables {
            ensure!(!value.contains('\''), "{name} has a quote in it");
            script.push_str(&format!("export {name}='{value}'\n"));
        }
        fs::write(&file, script).with_context(|| format!("cannot equip {unit}"))?;
        Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?)
    }

    pub(super) fn failpoints(&self, service: &str) -> PathBuf {
        self.folder.join(format!("{service}.failpoints"))
    }

    fn file(&self, unit: &str) -> PathBuf {
        self.folder.join(unit)
    }
}
