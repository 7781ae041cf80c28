use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::printing;
use crate::{cli::Logs, failure::Failure, project::Project};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The end of a log that is searched for its last lines.
const TAIL: u64 = 1024 * 1024;

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

    fn last_lines(&mut self, count: usize) -> Result<String, Failure> {
        let length = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        self.position = length.saturating_sub(TAIL);
        let text = self.news()?;
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
            *position += file.take(TAIL).read_to_end(&mut bytes)? as u64;
            Ok(bytes)
        };
        let bytes: Vec<u8> = match read(&self.path, &mut self.position, &mut self.inode) {
            Ok(bytes) => bytes,
            // Between two files, while it is rotated.
            Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Failure::io(format!("cannot read {}", self.path.display()), error)),
        };
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.partial.rfind('\n') else { return Ok(String::new()) };
        let rest = self.partial.split_off(end + 1);
        Ok(std::mem::replace(&mut self.partial, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
