//! Which loopback addresses and which public port a mesh has on this machine: `.berth/local.json`.
//!
//! Every checkout gets 256 addresses of its own, 127.a.b.0 to 127.a.b.255, so that all meshes keep the ports they declare
//! and never meet. The block comes from the checkout's path; should another running mesh have it already, the next free
//! one is taken. While a mesh runs it holds a socket that says so.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{failure::Failure, project::Project, secrets::files};

/// The port of the socket that holds a block.
const GUARD_PORT: u16 = 20_481;
/// Blocks that are tried.
const ATTEMPTS: u32 = 64;
/// 127.1.0 to 127.254.254.
const BLOCKS: u32 = 254 * 255;

/// What was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The first three numbers of the mesh's addresses.
    pub block: [u8; 3],
    /// The port of the gateway.
    pub public_port: u16,
}

/// The chosen addresses, held.
#[derive(Debug)]
pub struct Held {
    /// What was chosen.
    pub local: Local,
    /// The gateway's listening socket.
    pub public: TcpListener,
    /// Tells others that the block is taken.
    _guard: UdpSocket,
}

impl Local {
    /// What was chosen when the mesh last started here.
    pub fn read(project: &Project) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(project)).ok()?).ok()
    }

    /// Chooses addresses and holds them: the block of the last time if it is free, else the one that belongs to the
    /// checkout's path, else another; the declared port, else that of the last time, else another.
    ///
    /// # Errors
    /// No address is free, or the choice cannot be written down.
    pub fn hold(project: &Project, declared_port: u16) -> Result<Held, Failure> {
        let last = Self::read(project);
        let (block, guard) = hold_block(last.map(|last| last.block), project.root())?;
        let public = hold_port(last.map(|last| last.public_port), declared_port)?;
        let address = public.local_addr().map_err(|error| Failure::io("cannot read the public address", error))?;
        let local = Self { block, public_port: address.port() };
        let text = serde_json::to_vec_pretty(&local).map_err(Failure::other)?;
        files::replace(&file(project), &text)?;
        Ok(Held { local, public, _guard: guard })
    }
}

fn file(project: &Project) -> std::path::PathBuf {
    project.state().join("local.json")
}

fn hold_block(last: Option<[u8; 3]>, root: &Path) -> Result<([u8; 3], UdpSocket), Failure> {
    let first = preferred_block(root);
    let candidates = (0..ATTEMPTS).map(|step| block((first + step) % BLOCKS));
    let guard =
        |[a, b, c]: [u8; 3]| Some(([a, b, c], UdpSocket::bind((Ipv4Addr::new(a, b, c, 255), GUARD_PORT)).ok()?));
    last.into_iter().chain(candidates).find_map(guard).ok_or_else(|| {
        Failure::mendable(
            format!("none of {ATTEMPTS} blocks of loopback addresses is free"),
            format!("end the program that holds UDP port {GUARD_PORT} on all addresses, or some of the running meshes"),
        )
    })
}

fn preferred_block(root: &Path) -> u32 {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    digest.iter().take(4).fold(0_u32, |number, byte| (number << 8) | u32::from(*byte)) % BLOCKS
}

fn block(index: u32) -> [u8; 3] {
    let number = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
    [127, number(1 + index / 255), number(index % 255)]
}

fn hold_port(last: Option<u16>, declared: u16) -> Result<TcpListener, Failure> {
    // Port 0 lets the system choose.
    let declared = Some(declared).filter(|port| *port != 0);
    let tried = declared.into_iter().chain(last).chain([0]).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let mut failure = None;
    for attempt in tried {
        match attempt {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    let error = failure.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into());
    Err(Failure::io("cannot listen on 127.0.0.1", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().unwrap();
        let declaration = folder.path().join("mesh.toml");
        fs::write(&declaration, "").unwrap();
        let project = Project::find(Some(&declaration)).unwrap();
        project.create_folders().unwrap();
        (folder, project)
    }

    #[test]
    fn blocks_are_loopback_and_different() {
        let all: std::collections::BTreeSet<[u8; 3]> = (0..BLOCKS).map(block).collect();
        assert_eq!(all.len() as u32, BLOCKS);
        assert!(all.iter().all(|[a, b, c]| *a == 127 && (1..=254).contains(b) && *c <= 254));
    }

    #[test]
    fn a_block_in_use_is_passed_over_and_a_choice_is_kept() {
        let (_one, first) = project();
        let (_two, second) = project();
        let held = Local::hold(&first, 0).unwrap();
        // The other mesh thinks that it has the same addresses.
        fs::copy(file(&first), file(&second)).unwrap();
        let other = Local::hold(&second, 0).unwrap();
        assert_ne!(held.local.block, other.local.block);
        assert_ne!(held.local.public_port, other.local.public_port);
        assert_eq!(Local::read(&second), Some(other.local));
        let chosen = held.local;
        drop(held);
        assert_eq!(Local::hold(&first, 0).unwrap().local, chosen);
    }
}
