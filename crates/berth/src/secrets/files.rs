//! Writing files that must be whole, durable, and for their owner alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::failure::Failure;

/// Makes a folder that only its owner may enter.
///
/// # Errors
/// It cannot be made.
pub fn private_folder(path: &Path) -> Result<(), Failure> {
    let make = || {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    make().map_err(|error| Failure::io(format!("cannot create {}", path.display()), error))
}

/// Puts a file in place, mode 0600: either all of it, or what was there before. On return it is on disk.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    write(path, content, 0o600)
}

/// As [`replace`], but everybody may read it.
///
/// # Errors
/// It cannot be written.
pub fn replace_public(path: &Path, content: &[u8]) -> Result<(), Failure> {
    write(path, content, 0o644)
}

/// As [`replace`], but leaves a file alone that has this content already. Returns whether it wrote.
///
/// # Errors
/// It cannot be read or written.
pub fn replace_if_changed(path: &Path, content: &[u8]) -> Result<bool, Failure> {
    match fs::read(path) {
        Ok(present) if present == content => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::io(format!("cannot read {}", path.display()), error));
        }
        _ => {}
    }
    replace(path, content).map(|()| true)
}

/// The content of a file, if it is there.
///
/// # Errors
/// It is there and cannot be read as text.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(format!("cannot read {}", path.display()), error)),
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let steps = || {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut next = path.as_os_str().to_owned();
        next.push(".next");
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        File::open(folder)?.sync_all()
    };
    steps().map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))
}
