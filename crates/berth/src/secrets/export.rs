//! `berth secrets export`: the credentials of what runs on one machine, in a form the machine takes them in.
//!
//! systemd knows a credential by a name of the whole machine: `berth.<owner>.<file>`. The units of `nixos-modules/` ask for these names.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use mesh::plan::{Credential, Plan};

use super::files;
use crate::{failure::Failure, project::Project};

/// How a file holds a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// As an SMBIOS string of type 11 (systemd.system-credentials(7)), without a line end.
    Smbios,
}

/// What one machine needs, by the names systemd knows it by.
#[derive(Debug)]
pub struct NodeCredentials(BTreeMap<String, Vec<u8>>);

impl NodeCredentials {
    /// Reads them from where `berth secrets init` put them. Optional ones that are not there are left out.
    ///
    /// # Errors
    /// The plan has no such node, or a credential is missing.
    pub fn collect(project: &Project, plan: &Plan, node: &str) -> Result<Self, Failure> {
        let mut found = BTreeMap::new();
        for (owner, credential) in needed(plan, node)? {
            let path = project.credentials().join(owner).join(&credential.name);
            match fs::read(&path) {
                Ok(content) => drop(found.insert(format!("berth.{owner}.{}", credential.name), content)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && credential.optional => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Failure::mendable(
                        format!("{} is missing, which {owner} needs", path.display()),
                        "make it: `berth secrets init`",
                    ));
                }
                Err(error) => return Err(Failure::io(format!("cannot read {}", path.display()), error)),
            }
        }
        Ok(Self(found))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing on the machine needs one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes them as a tar archive of files that nobody but their owner may read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_archive(&self, to: impl Write) -> Result<(), Failure> {
        let write = || {
            let mut archive = tar::Builder::new(to);
            for (name, content) in &self.0 {
                let mut header = tar::Header::new_ustar();
                header.set_size(content.len() as u64);
                header.set_mode(0o600);
                archive.append_data(&mut header, name, content.as_slice())?;
            }
            archive.into_inner()?.flush()
        };
        write().map_err(|error| Failure::io("cannot write the archive", error))
    }

    /// Writes a file for each, of its name, into a folder that nobody but its owner may enter.
    ///
    /// # Errors
    /// The folder holds something already, or cannot be written.
    pub fn write_files(&self, folder: &Path, form: Form) -> Result<(), Failure> {
        // What is left over from another export would be handed to the machine, too.
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::mendable(
                format!("{} is not empty", folder.display()),
                "remove what is there, or name another folder with --to",
            ));
        }
        files::private_folder(folder)?;
        for (name, content) in &self.0 {
            let path = folder.join(name);
            match form {
                Form::Plain => files::replace(&path, content)?,
                Form::Smbios => {
                    let text = format!("io.systemd.credential.binary:{name}={}", STANDARD.encode(content));
                    files::replace(&path, text.as_bytes())?;
                }
            }
        }
        Ok(())
    }
}

/// Who runs on the node, with what each needs.
fn needed<'p>(plan: &'p Plan, node: &str) -> Result<Vec<(&'p str, &'p Credential)>, Failure> {
    if !plan.nodes.iter().any(|known| known.name == *node) {
        let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::mendable(format!("there is no node {node}"), format!("there are: {}", names.join(", "))));
    }
    let services = plan.services.iter().filter(|service| service.instances.iter().any(|copy| copy.node == *node));
    let databases = plan.databases.iter().filter(|database| database.node == *node);
    let events = plan.events.iter().filter(|events| events.node == *node);
    let owners = services
        .map(|service| (service.name.as_str(), &service.credentials))
        .chain(databases.map(|database| (database.name.as_str(), &database.credentials)))
        .chain(events.map(|events| (events.server.as_str(), &events.credentials)));
    Ok(owners.flat_map(|(owner, files)| files.iter().map(move |file| (owner, file))).collect())
}
