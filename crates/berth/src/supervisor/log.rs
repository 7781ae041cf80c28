//! Log files that never grow without bound: `name.log`, and when that is full `name.log.1` (older) and so on.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// How much is kept of one unit's output.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes after which a new file is begun.
    pub file_bytes: u64,
    /// Files that are kept, the current one included.
    pub files: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { file_bytes: 8 * 1024 * 1024, files: 3 }
    }
}

/// An open log. Each `write` goes into one file as a whole.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    bounds: Bounds,
    file: File,
    length: u64,
}

impl Log {
    /// Opens the log at `path`, to write after what it holds.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, bounds: Bounds) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), bounds, file, length })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..self.bounds.files.max(1)).rev() {
            let newer = if age == 1 { self.path.clone() } else { rotated(&self.path, age - 1) };
            match fs::rename(&newer, rotated(&self.path, age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = File::options().create(true).write(true).truncate(true).open(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.length > 0 && self.length.saturating_add(text.len() as u64) > self.bounds.file_bytes {
            self.rotate()?;
        }
        self.file.write_all(text)?;
        self.length = self.length.saturating_add(text.len() as u64);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The file that is `age` files older than `path`.
pub(crate) fn rotated(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_the_oldest_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unit.log");
        let bounds = Bounds { file_bytes: 30, files: 3 };
        let mut log = Log::open(&path, bounds).unwrap();
        for number in 0..20 {
            log.write_all(format!("line {number:02}\n").as_bytes()).unwrap();
        }
        drop(log);
        // Opened again, it goes on where it was.
        Log::open(&path, bounds).unwrap().write_all(b"line 20\n").unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(path.clone()), "line 18\nline 19\nline 20\n");
        assert_eq!(read(rotated(&path, 1)), "line 15\nline 16\nline 17\n");
        assert_eq!(read(rotated(&path, 2)), "line 12\nline 13\nline 14\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
