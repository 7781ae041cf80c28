//! What images weigh, and what containers use.

use std::{collections::BTreeMap, process::Command};

use crate::{Container, Stack, output_of};

impl Stack {
    /// The public images that ours are built upon, but for the one that compiles: the defaults of the Dockerfile's arguments.
    pub fn base_images(&self) -> Vec<String> {
        let path = self.folder().join("docker/Dockerfile");
        let text = std::fs::read_to_string(path).expect("cannot read the Dockerfile");
        let default = |argument: &str| {
            text.lines().find_map(|line| line.strip_prefix(&format!("ARG {argument}="))).map(str::to_owned)
        };
        ["BASE", "POSTGRES", "NATS"].into_iter().filter_map(default).collect()
    }

    /// Bytes of an image on disk.
    pub fn size(&self, image: &str) -> f64 {
        number(&self.engine(&["image", "inspect", "--format", "{{.Size}}", image]))
    }

    /// Bytes of an image as a registry would keep it.
    pub fn compressed_size(&self, image: &str) -> f64 {
        let line = format!("{} save {image} | gzip | wc -c", self.engine_program());
        number(&output_of(Command::new("sh").args(["-c", &line])))
    }

    /// Bytes of memory that each container uses, by its identity.
    pub fn memory(&self) -> BTreeMap<String, f64> {
        let ids: Vec<String> = self.containers().iter().map(|container| container.id().to_owned()).collect();
        let args = ["stats", "--no-stream", "--no-trunc", "--format", "{{.ID}} {{.MemUsage}}"].map(str::to_owned);
        let args: Vec<&str> = args.iter().chain(&ids).map(String::as_str).collect();
        let text = self.engine(&args);
        text.lines().filter_map(|line| line.split_once(' ')).map(|(id, used)| (id.to_owned(), bytes(used))).collect()
    }

    /// Resident bytes of the first process of each container.
    pub fn resident(&self, containers: &[Container]) -> Vec<f64> {
        let resident = |status: &String| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
            number(line.trim_end_matches("kB")) * 1024.0
        };
        self.statuses(containers).iter().map(resident).collect()
    }
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Of `12.5MiB / 128MiB`, the first.
fn bytes(usage: &str) -> f64 {
    let used = usage.split_once('/').map_or(usage, |(used, _)| used).trim();
    let unit = used.find(char::is_alphabetic).unwrap_or(used.len());
    let (count, unit) = used.split_at(unit);
    let size = match unit {
        "B" => 1.0,
        "KiB" | "kB" => 1024.0,
        "MiB" | "MB" => 1024.0 * 1024.0,
        "GiB" | "GB" => 1024.0 * 1024.0 * 1024.0,
        _ => panic!("{usage:?}: no unit that is known"),
    };
    number(count) * size
}
