//! Asking a server that does not speak sd_notify whether it serves.

use std::{io, net::SocketAddr, process::Stdio, time::Duration};

use servers::Launch;
use tokio::{io::AsyncReadExt, net::TcpStream, process::Command, time::timeout};

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to ask.
#[derive(Debug, Clone)]
pub enum Probe {
    /// Whether this command ends with 0.
    Command(Launch),
    /// Whether a NATS server at this address greets: it speaks first.
    Nats(SocketAddr),
    /// Whether a GET of this path at this address is answered with 2xx.
    Http(SocketAddr, String),
    /// Whether anything at this address accepts a connection.
    Tcp(SocketAddr),
}

impl Probe {
    /// Asks until the answer is yes.
    pub async fn succeeds(&self) {
        while !self.passes().await {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks once; no answer within 3 seconds is a no.
    pub async fn passes(&self) -> bool {
        matches!(timeout(PATIENCE, self.ask()).await, Ok(Ok(true)))
    }

    async fn ask(&self) -> io::Result<bool> {
        match self {
            Probe::Command(launch) => {
                let mut command = Command::from(launch.command());
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
                Ok(command.status().await?.success())
            }
            Probe::Nats(address) => {
                let mut greeting = [0; 5];
                TcpStream::connect(address).await?.read_exact(&mut greeting).await?;
                Ok(&greeting == b"INFO ")
            }
            Probe::Http(address, path) => {
                let answer = reqwest::get(format!("http://{address}{path}")).await;
                Ok(answer.map_err(io::Error::other)?.status().is_success())
            }
            Probe::Tcp(address) => TcpStream::connect(address).await.map(|_| true),
        }
    }
}
