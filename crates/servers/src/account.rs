//! Under which account a server runs, and where it may keep its data.
//!
//! PostgreSQL refuses to run as root. So for root another account is chosen, and with it comes the question whether
//! that account can reach the data folder at all: a checkout in `/root` is closed to everybody else.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use crate::Error;

/// A user of the system, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Account {
    /// The account a server that refuses root has to run under: `None` (stay who you are) for an ordinary user; for
    /// root `postgres`, or `nobody` where that does not exist.
    pub fn unprivileged() -> Option<Account> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        ["postgres", "nobody"].into_iter().find_map(|name| {
            let user = nix::unistd::User::from_name(name).ok().flatten()?;
            Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
        })
    }

    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// Gives `path` to the account, where one is set.
pub(crate) fn hand_over(path: &Path, account: Option<Account>) -> Result<(), Error> {
    let Some(account) = account else {
        return Ok(());
    };
    chown(path, Some(account.uid), Some(account.gid)).map_err(Error::io("cannot change the owner of", path))
}

/// Where data that `account` must reach can be kept: `preferred`, or, where a folder above it is closed to others,
/// a folder of its own under `/var/lib/berth`, whose name is drawn at random and kept in the file `home` in `preferred`: so that with
/// `preferred` the data is forgotten, too.
///
/// # Errors
/// A folder or the file cannot be made or read.
pub fn data_home(preferred: &Path, account: Option<Account>) -> Result<PathBuf, Error> {
    let create = |path: &Path| fs::create_dir_all(path).map_err(Error::io("cannot create", path));
    let Some(account) = account else {
        create(preferred)?;
        return Ok(preferred.to_owned());
    };
    create(preferred)?;
    let absolute = fs::canonicalize(preferred).map_err(Error::io("cannot resolve", preferred))?;
    if absolute.ancestors().all(|folder| may_enter(folder, account)) {
        return Ok(absolute);
    }
    let elsewhere = Path::new("/var/lib/berth").join(own_name(&absolute.join("home"))?);
    create(&elsewhere)?;
    for folder in [Path::new("/var/lib/berth"), elsewhere.as_path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).map_err(Error::io("cannot open", folder))?;
    }
    Ok(elsewhere)
}

/// The name in the file; a new one where there is none.
fn own_name(file: &Path) -> Result<String, Error> {
    match fs::read_to_string(file) {
        Ok(name) if name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(name),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot read", file)(error)),
        _ => {
            let name = format!("{:016x}", rand::random::<u64>());
            fs::write(file, &name).map_err(Error::io("cannot write", file))?;
            Ok(name)
        }
    }
}

fn may_enter(folder: &Path, account: Account) -> bool {
    let Ok(meta) = fs::metadata(folder) else {
        return false;
    };
    let bit = if meta.uid() == account.uid {
        0o100
    } else if meta.gid() == account.gid {
        0o010
    } else {
        0o001
    };
    meta.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_keeps_data_where_asked() {
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("a/b");
        assert_eq!(data_home(&asked, None).unwrap(), asked);
        assert!(asked.is_dir());
    }

    #[test]
    fn a_home_elsewhere_is_forgotten_with_the_file_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home");
        let name = own_name(&file).unwrap();
        assert_eq!(own_name(&file).unwrap(), name);
        fs::remove_file(&file).unwrap();
        assert_ne!(own_name(&file).unwrap(), name);
        fs::write(&file, "../../etc").unwrap();
        assert_ne!(own_name(&file).unwrap(), "../../etc");
    }

    #[test]
    fn a_closed_folder_is_told_from_an_open_one() {
        let folder = tempfile::tempdir().unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000 };
        for (mode, enters) in [(0o700, false), (0o711, true), (0o750, false), (0o755, true)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_enter(folder.path(), stranger), enters, "{mode:o}");
        }
    }
}
