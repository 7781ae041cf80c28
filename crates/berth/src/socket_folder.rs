//! A private folder for unix sockets, however deep it lies.
//!
//! The address of a unix socket holds 107 bytes at most, and a checkout can lie deeper than that. Then the folder is
//! reached through a descriptor that this process keeps open: `/proc/<pid>/fd/<n>/<name>`.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// `sun_path` has 108 bytes, one of them for the closing zero.
const LONGEST_ADDRESS: usize = 107;

/// An open folder that only its owner may enter.
#[derive(Debug)]
pub struct SocketFolder {
    path: PathBuf,
    handle: File,
}

impl SocketFolder {
    /// Makes the folder if it is missing, and closes it to others.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        Self::open(path)
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// It is not there, or is not ours.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        Ok(Self { handle: File::open(&path)?, path })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An address for the socket `name` in it, good for this process and its children while `self` lives.
    pub fn address(&self, name: &str) -> PathBuf {
        let direct = self.path.join(name);
        if direct.as_os_str().as_bytes().len() <= LONGEST_ADDRESS {
            return direct;
        }
        PathBuf::from(format!("/proc/{}/fd/{}/{name}", std::process::id(), self.handle.as_raw_fd()))
    }
}
