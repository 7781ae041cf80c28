//! A NATS server with JetStream for one test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use servers::NatsProgram;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{eventually, process::Process, random_loopback};

/// A NATS server with JetStream in a folder of its own.
#[derive(Debug)]
pub struct Nats {
    address: SocketAddr,
    process: Process,
    folder: TempDir,
}

impl Nats {
    /// Starts one that admits everybody to everything, and waits until it answers.
    ///
    /// # Panics
    /// There is no nats-server on this machine, or it does not start.
    pub async fn start() -> Self {
        Self::start_for(Vec::new()).await
    }

    /// Starts one for these users alone, and waits until it answers.
    ///
    /// # Panics
    /// There is no nats-server on this machine, or it does not start.
    pub async fn start_for(users: Vec<servers::nats::User>) -> Self {
        Self::start_with(users, None).await
    }

    /// Starts one for these users alone, over mutual TLS where there are certificates, and waits until it answers.
    ///
    /// # Panics
    /// There is no nats-server on this machine, or it does not start.
    pub async fn start_with(users: Vec<servers::nats::User>, tls: Option<servers::TlsFiles>) -> Self {
        let folder = tempfile::Builder::new().prefix("berth-nats-").tempdir().expect("cannot make a temporary folder");
        loop {
            let address = SocketAddr::from((random_loopback(), 4222));
            let server = servers::nats::Nats {
                program: NatsProgram::find().expect("cannot test without NATS"),
                data: folder.path().to_owned(),
                name: "nats".into(),
                host: address.ip(),
                port: address.port(),
                tls: tls.clone(),
                users: users.clone(),
                max_store: 1 << 30,
            };
            server.prepare().expect("cannot prepare NATS");
            let mut process = Process::new(server.launch(), &folder.path().join("log"));
            process.start();
            let started = eventually("NATS to answer", async || greets(address, &mut process).await).await;
            if started {
                return Self { address, process, folder };
            }
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `nats://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Ends it as a power cut of the process would (SIGKILL). What was acknowledged stays on disk.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same address with the same store, and waits until it answers.
    ///
    /// # Panics
    /// It does not start.
    pub async fn restart(&mut self) {
        self.kill();
        self.process.start();
        let started = eventually("NATS to answer again", async || greets(self.address, &mut self.process).await).await;
        assert!(started, "NATS did not start again:\n{}", self.process.log());
    }

    /// Kills it and throws its store away.
    ///
    /// # Panics
    /// The store cannot be removed.
    pub fn kill_and_lose_store(&mut self) {
        self.kill();
        let store = self.folder.path().join("jetstream");
        fs::remove_dir_all(store).expect("cannot remove the store");
    }

    /// Kills it and copies its store.
    ///
    /// # Panics
    /// The store cannot be copied.
    pub fn kill_and_save_store(&mut self) -> TempDir {
        self.kill();
        let copy = tempfile::tempdir().expect("cannot make a temporary folder");
        copy_folder(&self.folder.path().join("jetstream"), &copy.path().join("jetstream"));
        copy
    }

    /// Kills it and puts a copy of its store back.
    ///
    /// # Panics
    /// The store cannot be replaced.
    pub fn kill_and_put_back(&mut self, copy: &TempDir) {
        self.kill_and_lose_store();
        copy_folder(&copy.path().join("jetstream"), &self.folder.path().join("jetstream"));
    }

    /// The file it was configured by.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("nats.conf")
    }

    /// The server's process id, for signals.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("cannot make a folder");
    for entry in fs::read_dir(from).expect("cannot read a folder") {
        let from = entry.expect("cannot read a folder").path();
        let to = to.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).expect("cannot copy a file");
        }
    }
}

/// Some(true): it sent its greeting. Some(false): it ended, the address was taken. None: not yet.
async fn greets(address: SocketAddr, process: &mut Process) -> Option<bool> {
    if process.ended() {
        return Some(false);
    }
    let mut greeting = [0; 5];
    TcpStream::connect(address).await.ok()?.read_exact(&mut greeting).await.ok()?;
    (&greeting == b"INFO ").then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_survives_being_killed() {
        let mut nats = Nats::start().await;
        let client = async_nats::connect(nats.url()).await.unwrap();
        let jetstream = async_nats::jetstream::new(client.clone());
        let stream = async_nats::jetstream::stream::Config {
            name: "s".into(),
            subjects: vec!["s.>".into()],
            ..Default::default()
        };
        jetstream.create_stream(stream).await.unwrap();
        jetstream.publish("s.a", "kept".into()).await.unwrap().await.unwrap();
        nats.restart().await;
        let info = eventually("the stream", async || jetstream.get_stream("s").await.ok()?.get_info().await.ok()).await;
        assert_eq!(info.state.messages, 1);
    }
}
