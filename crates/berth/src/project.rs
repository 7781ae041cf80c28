//! Where things lie: the declaration, and `.berth/` beside it with everything the local runner keeps.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mesh::{Placement, Plan};

use crate::failure::Failure;

/// What a declaration is called.
pub const DECLARATION: &str = "mesh.toml";
const STATE: &str = ".berth";

/// A declared mesh on this machine.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
    declaration: PathBuf,
    state: PathBuf,
}

impl Project {
    /// The mesh declared in `given`, or in the nearest `mesh.toml` from the current folder upward.
    ///
    /// # Errors
    /// There is none.
    pub fn find(given: Option<&Path>) -> Result<Self, Failure> {
        let declaration = match given {
            Some(path) if path.is_dir() => path.join(DECLARATION),
            Some(path) => path.to_owned(),
            None => {
                let here = env::current_dir().map_err(|error| Failure::io("cannot find the current folder", error))?;
                let found = here.ancestors().map(|folder| folder.join(DECLARATION)).find(|path| path.is_file());
                found.ok_or_else(|| Failure::NoDeclaration(here.join(DECLARATION)))?
            }
        };
        let declaration = fs::canonicalize(&declaration).map_err(|_| Failure::NoDeclaration(declaration))?;
        let root = declaration.parent().map(Path::to_owned).unwrap_or_default();
        let state = root.join(STATE);
        Ok(Self { root, declaration, state })
    }

    /// The same mesh, as it runs in containers: what is known of it here lies apart from what the local runner keeps.
    pub fn in_containers(&self) -> Self {
        Self { state: self.state.join("compose"), ..self.clone() }
    }

    /// Whether it is the mesh as it runs in containers.
    pub fn runs_in_containers(&self) -> bool {
        self.state != self.root.join(STATE)
    }

    /// The folder of the declaration.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The declaration.
    pub fn declaration(&self) -> &Path {
        &self.declaration
    }

    /// The declaration's file name.
    pub fn declaration_name(&self) -> &str {
        self.declaration.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or(DECLARATION)
    }

    /// The resolved plan as it is committed.
    pub fn lock_file(&self) -> PathBuf {
        self.declaration.with_extension("lock.json")
    }

    /// Reads the declaration and resolves it.
    ///
    /// # Errors
    /// It cannot be read, or is wrong.
    pub fn resolve(&self, placement: &Placement) -> Result<Plan, Failure> {
        let text = fs::read_to_string(&self.declaration)
            .map_err(|error| Failure::io(format!("cannot read {}", self.declaration.display()), error))?;
        let name = self.declaration.file_name().unwrap_or_default().to_string_lossy();
        mesh::resolve(&name, &text, placement).map_err(|found| Failure::Declaration(Box::new(found)))
    }

    /// Everything the local runner keeps.
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// One folder of credentials a service.
    pub fn credentials(&self) -> PathBuf {
        self.state().join("credentials")
    }

    /// What databases, the event bus and services store.
    pub fn data(&self) -> PathBuf {
        self.state().join("data")
    }

    /// One log a unit.
    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    /// What lives only while the mesh runs: sockets, records, the plan.
    pub fn run(&self) -> PathBuf {
        self.state().join("run")
    }

    /// The plan the mesh runs by.
    pub fn plan(&self) -> PathBuf {
        self.run().join("plan.json")
    }

    /// The certificate a client must trust to reach the gateway.
    pub fn ca(&self) -> PathBuf {
        self.state().join("ca.pem")
    }

    /// Names and passwords of the demo users.
    pub fn users(&self) -> PathBuf {
        self.state().join("users")
    }

    /// Makes the folders, closed as far as they can be: the database's account must pass through to its data.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn create_folders(&self) -> io::Result<()> {
        let modes = [
            (self.state(), 0o711),
            (self.credentials(), 0o700),
            (self.data(), 0o711),
            (self.logs(), 0o700),
            (self.run(), 0o700),
        ];
        for (folder, mode) in modes {
            fs::create_dir_all(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        }
        fs::write(self.state().join(".gitignore"), "*\n")
    }
}
