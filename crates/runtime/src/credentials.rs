//! Secrets, read from the files the service manager put into `$CREDENTIALS_DIRECTORY`
//! (systemd.exec(5), "Credentials"). They are never in argv, the environment or a log.

use std::{
    env, fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::Utf8Error,
};

use zeroize::Zeroizing;

/// The largest credential that is read; systemd's own limit for one credential.
const MAX_BYTES: u64 = 1024 * 1024;

/// The folder with this service's secrets.
#[derive(Clone, Debug)]
pub struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    /// The folder named by `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// When the variable is not set.
    pub fn from_env() -> Result<Self, CredentialError> {
        match env::var_os("CREDENTIALS_DIRECTORY") {
            Some(directory) if !directory.is_empty() => Ok(Self::at(directory)),
            _ => Err(CredentialError::NoDirectory),
        }
    }

    /// A given folder.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where the credential `name` lies, whether or not it exists.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Reads a credential that must exist. It is read anew each time, so that a rotated one is seen on reload.
    ///
    /// # Errors
    /// When it is missing, unreadable, or larger than 1 MiB.
    pub fn read(&self, name: &str) -> Result<Secret, CredentialError> {
        self.optional(name)?.ok_or_else(|| CredentialError::Missing { path: self.path(name) })
    }

    /// Reads a credential that may be absent.
    ///
    /// # Errors
    /// When it exists and is unreadable, or larger than 1 MiB.
    pub fn optional(&self, name: &str) -> Result<Option<Secret>, CredentialError> {
        if !is_file_name(name) {
            return Err(CredentialError::BadName { name: name.to_owned() });
        }
        let path = self.path(name);
        match read_bounded(&path) {
            Ok(bytes) if bytes.len() as u64 > MAX_BYTES => Err(CredentialError::TooLarge { path }),
            Ok(bytes) => Ok(Some(Secret { bytes, name: name.to_owned() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CredentialError::Unreadable { path, source }),
        }
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// Reads at most one byte more than the limit, into a buffer that never reallocates: growing would leave copies of the
/// secret behind in freed memory.
fn read_bounded(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = fs::File::open(path)?;
    let expected = file.metadata()?.len().min(MAX_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 2));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The contents of a credential: wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    name: String,
}

impl Secret {
    /// A secret that does not come from a file, for tests and tools.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: Zeroizing::new(bytes.into()), name: "(not a file)".to_owned() }
    }

    /// The bytes as they stand in the file.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// The text without the one line end that editors and `echo` append.
    ///
    /// # Errors
    /// When the bytes are not UTF-8.
    pub fn text(&self) -> Result<&str, CredentialError> {
        let text = std::str::from_utf8(&self.bytes)
            .map_err(|source| CredentialError::NotText { name: self.name.clone(), source })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(text.strip_suffix('\r').unwrap_or(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// Why a credential could not be had. Names the file, never its contents.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// `$CREDENTIALS_DIRECTORY` is not set.
    #[error(
        "CREDENTIALS_DIRECTORY is not set: start the service through its service manager, or set it to the folder with the service's secrets"
    )]
    NoDirectory,
    /// There is no such file.
    #[error("the credential {} does not exist: create the service's credentials first (`berth secrets init`)", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("the credential {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than 1 MiB.
    #[error("the credential {} is larger than 1 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The name is not a plain file name.
    #[error("`{name}` is no credential name: it must be a plain file name")]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// The contents are not UTF-8 where text is expected.
    #[error("the credential `{name}` must be UTF-8 text: {source}")]
    NotText {
        /// The credential's name.
        name: String,
        /// Where the text breaks off.
        source: Utf8Error,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder_with(name: &str, contents: &[u8]) -> (tempfile::TempDir, Credentials) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), contents).unwrap();
        let credentials = Credentials::at(folder.path());
        (folder, credentials)
    }

    #[test]
    fn text_loses_exactly_one_line_end() {
        for (contents, text) in
            [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), ("", ""), (" pw ", " pw ")]
        {
            let (_folder, credentials) = folder_with("database-password", contents.as_bytes());
            let secret = credentials.read("database-password").unwrap();
            assert_eq!(secret.text().unwrap(), text, "{contents:?}");
            assert_eq!(secret.expose(), contents.as_bytes());
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let (_folder, credentials) = folder_with("database-password", b"hunter2");
        let secret = credentials.read("database-password").unwrap();
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn a_missing_one_is_named_and_an_optional_one_is_none() {
        let (folder, credentials) = folder_with("other", b"");
        assert!(credentials.optional("nats-seed").unwrap().is_none());
        let error = credentials.read("nats-seed").unwrap_err().to_string();
        assert!(error.contains(&folder.path().join("nats-seed").display().to_string()), "{error}");
    }

    #[test]
    fn bytes_that_are_no_text_name_the_credential_and_not_its_contents() {
        let (_folder, credentials) = folder_with("nats-seed", b"SU\xffSECRET");
        let error = credentials.read("nats-seed").unwrap().text().unwrap_err().to_string();
        assert!(error.contains("nats-seed") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let (_folder, credentials) = folder_with("a", b"");
        for name in ["", ".", "..", "../a", "/etc/passwd", "a\0b"] {
            assert!(matches!(credentials.read(name), Err(CredentialError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn an_oversized_or_unreadable_one_is_an_error_and_not_an_absence() {
        let (folder, credentials) = folder_with("big", &vec![b'x'; 1024 * 1024 + 1]);
        assert!(matches!(credentials.optional("big"), Err(CredentialError::TooLarge { .. })));
        fs::create_dir(folder.path().join("folder")).unwrap();
        fs::set_permissions(folder.path().join("folder"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(credentials.optional("folder"), Err(CredentialError::Unreadable { .. })));
    }
}
