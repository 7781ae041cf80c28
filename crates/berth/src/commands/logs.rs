use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::printing;
use crate::{cli::Logs, failure::Failure, project::Project, supervisor::log::rotated};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What is read of a log at once.
const PIECE: u64 = 1024 * 1024;
/// What is searched for the beginnings of lines at once.
const BLOCK: u64 = 64 * 1024;

/// Prints the end of logs, and what is added to them.
pub(super) async fn run(project: &Project, options: &Logs) -> Result<(), Failure> {
    let mut logs = select(project, options.service.as_deref())?;
    let named = logs.len() > 1;
    for (name, log) in &mut logs {
        let lines = log.last_lines(options.lines)?;
        show(named.then_some(name), &lines)?;
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        for (name, path) in files(project)? {
            if wanted(&name, options.service.as_deref()) {
                logs.entry(name).or_insert_with(|| Tail::new(path));
            }
        }
        for (name, log) in &mut logs {
            let lines = log.news()?;
            show(named.then_some(name), &lines)?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn select(project: &Project, service: Option<&str>) -> Result<BTreeMap<String, Tail>, Failure> {
    let all = files(project)?;
    let chosen: BTreeMap<String, Tail> = all
        .iter()
        .filter(|(name, _)| wanted(name, service))
        .map(|(name, path)| (name.clone(), Tail::new(path.clone())))
        .collect();
    if chosen.is_empty() {
        let known: Vec<String> = all.into_keys().collect();
        let what =
            service.map_or_else(|| "there are no logs".to_owned(), |service| format!("there is no log of {service}"));
        return Err(match known.as_slice() {
            [] => Failure::mendable(what, "start the mesh with `berth up`"),
            known => Failure::mendable(what, format!("there are: {}", known.join(", "))),
        });
    }
    Ok(chosen)
}

/// A log is wanted by its own name, or by that of the service it is of: `item-management` for `item-management-2`.
fn wanted(name: &str, service: Option<&str>) -> bool {
    let Some(service) = service else { return true };
    let index = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('-'));
    name == service || index.is_some_and(|index| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
}

fn files(project: &Project) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let Ok(entries) = fs::read_dir(project.logs()) else { return Ok(BTreeMap::new()) };
    let logs = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?.to_owned();
        Some((name, path))
    });
    Ok(logs.collect())
}

fn show(name: Option<&String>, text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    for line in text.lines() {
        match name {
            Some(name) => writeln!(output, "{name} | {line}"),
            None => writeln!(output, "{line}"),
        }
        .map_err(printing)?;
    }
    Ok(())
}

/// A log that is read on from where it was left.
struct Tail {
    path: PathBuf,
    position: u64,
    inode: u64,
    partial: String,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, position: 0, inode: 0, partial: String::new() }
    }

    /// The last whole lines, those of rotated files as well.
    fn last_lines(&mut self, count: usize) -> Result<String, Failure> {
        let unreadable = |path: &Path, error| Failure::io(format!("cannot read {}", path.display()), error);
        // One more than is shown: the first may have begun in an older file.
        let wanted = count.saturating_add(1);
        let mut text = String::new();
        let end = match File::open(&self.path) {
            Ok(file) => {
                self.position = beginning_of_last(wanted, &file).map_err(|error| unreadable(&self.path, error))?;
                file.metadata().map_err(|error| unreadable(&self.path, error))?.len()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(unreadable(&self.path, error)),
        };
        while self.position < end {
            let before = self.position;
            text.push_str(&self.news()?);
            if self.position <= before {
                break;
            }
        }
        for age in 1.. {
            let missing = wanted.saturating_sub(text.lines().count());
            let path = rotated(&self.path, age);
            let Some(file) = File::open(&path).ok().filter(|_| missing > 0) else { break };
            let older = end_of(&file, missing).map_err(|error| unreadable(&path, error))?;
            text.insert_str(0, &String::from_utf8_lossy(&older));
        }
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n"))
    }

    /// Whole lines written since the last look; from the beginning where the log was rotated.
    fn news(&mut self) -> Result<String, Failure> {
        let read = |path: &Path, position: &mut u64, inode: &mut u64| {
            let mut file = File::open(path)?;
            let meta = file.metadata()?;
            if (*inode != 0 && *inode != meta.ino()) || meta.len() < *position {
                *position = 0;
            }
            *inode = meta.ino();
            file.seek(SeekFrom::Start(*position))?;
            let mut bytes = Vec::new();
            *position += file.take(PIECE).read_to_end(&mut bytes)? as u64;
            Ok(bytes)
        };
        let bytes: Vec<u8> = match read(&self.path, &mut self.position, &mut self.inode) {
            Ok(bytes) => bytes,
            // Between two files, while it is rotated.
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Failure::io(format!("cannot read {}", self.path.display()), error)),
        };
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.partial.rfind('\n') else { return Ok(String::new()) };
        let rest = self.partial.split_off(end + 1);
        Ok(std::mem::replace(&mut self.partial, rest))
    }
}

/// Where the last `count` whole lines of a file begin.
fn beginning_of_last(count: usize, file: &File) -> io::Result<u64> {
    let mut ends = count.saturating_add(1);
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let block = read_between(file, start, end)?;
        for (_, after) in block.iter().rev().zip((start..end).rev()).filter(|(byte, _)| **byte == b'\n') {
            ends -= 1;
            if ends == 0 {
                return Ok(after + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

/// The last lines of a file, as many as there are of `count`.
fn end_of(file: &File, count: usize) -> io::Result<Vec<u8>> {
    read_between(file, beginning_of_last(count, file)?, file.metadata()?.len())
}

fn read_between(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_lines_are_shown_as_there_are_in_rotated_files_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        // Longer than what is read at once, and longer than what is searched at once.
        let lines = |from: usize, to: usize| (from..to).map(|n| format!("{n:0>100}\n")).collect::<String>();
        fs::write(rotated(&path, 2), lines(0, 1_000)).unwrap();
        // A line may be cut where the file is rotated.
        let (one, two) = (lines(1_000, 2_000), lines(2_000, 22_000));
        fs::write(rotated(&path, 1), one.clone() + &two[..50]).unwrap();
        fs::write(&path, format!("{}not yet a li", &two[50..])).unwrap();
        for (count, from) in
            [(0, 22_000), (1, 21_999), (20_000, 2_000), (20_001, 1_999), (21_000, 1_000), (21_001, 999), (50_000, 0)]
        {
            let mut tail = Tail::new(path.clone());
            assert_eq!(tail.last_lines(count).unwrap(), lines(from, 22_000).trim_end(), "{count}");
            File::options().append(true).open(&path).unwrap().write_all(b"ne\nnot yet a li").unwrap();
            assert_eq!(tail.news().unwrap(), "not yet a line\n", "{count}");
            fs::write(&path, format!("{}not yet a li", &two[50..])).unwrap();
        }
    }

    #[test]
    fn a_service_stands_for_all_its_instances() {
        assert!(wanted("item-management-2", Some("item-management")));
        assert!(wanted("item-management-db", Some("item-management-db")));
        assert!(!wanted("item-management-db", Some("item-management")));
        assert!(!wanted("item-management-", Some("item-management")));
        assert!(wanted("anything", None));
    }

    #[test]
    fn a_rotated_log_is_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        fs::write(&path, "one\ntwo\nthree\nfo").unwrap();
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.last_lines(2).unwrap(), "two\nthree");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"ur\nfive\n").unwrap();
        assert_eq!(tail.news().unwrap(), "four\nfive\n");
        fs::rename(&path, folder.path().join("a.log.1")).unwrap();
        assert_eq!(tail.news().unwrap(), "");
        fs::write(&path, "six\n").unwrap();
        assert_eq!(tail.news().unwrap(), "six\n");
    }
}
