//! The receiving end of `$NOTIFY_SOCKET` (sd_notify(3)): one datagram socket for each start of a unit, so that a late
//! message of an earlier process is never taken for one of its successor.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::UnixDatagram;

use super::unit::Event;
use crate::socket_folder::SocketFolder;

/// The longest datagram that is read; longer ones are cut, as no field of ours is that long.
const LONGEST: usize = 4096;

/// A bound socket. Its file is removed with it.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    address: PathBuf,
    file: PathBuf,
}

impl NotifySocket {
    /// Binds the socket `name` in `folder`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(folder: &SocketFolder, name: &str) -> io::Result<Self> {
        let (address, file) = (folder.address(name), folder.path().join(name));
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(&address)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, address, file })
    }

    /// What `NOTIFY_SOCKET` has to say.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// The next message, in the order of its lines.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn receive(&self) -> io::Result<Vec<Message>> {
        let mut buffer = [0; LONGEST];
        let length = self.socket.recv(&mut buffer).await?;
        Ok(parse(buffer.get(..length).unwrap_or_default()))
    }

    /// What has arrived and was not read yet: the last words of a process that ended.
    pub fn rest(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut buffer = [0; LONGEST];
        while let Ok(length) = self.socket.try_recv(&mut buffer) {
            messages.extend(parse(buffer.get(..length).unwrap_or_default()));
        }
        messages
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Left over, it would be replaced by the next one of this name.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// One line of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Something the state machine decides on.
    Event(Event),
    /// `STATUS=`: a sentence for people.
    Status(String),
}

/// Reads the `NAME=value` lines of a datagram. What is unknown or malformed is skipped, as systemd does.
fn parse(datagram: &[u8]) -> Vec<Message> {
    String::from_utf8_lossy(datagram).lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Message> {
    let event = match line.split_once('=')? {
        ("READY", "1") => Event::Ready,
        ("RELOADING", "1") => Event::Reloading,
        ("WATCHDOG", "1") => Event::Alive,
        ("WATCHDOG", "trigger") => Event::Hung,
        ("EXTEND_TIMEOUT_USEC", micros) => Event::Extend(Duration::from_micros(micros.parse().ok()?)),
        ("STATUS", text) => return Some(Message::Status(one_line(text))),
        _ => return None,
    };
    Some(Message::Event(event))
}

/// A service's words end up on somebody's terminal: no control characters, and not too many.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_understood_and_others_skipped() {
        let text = "READY=1\nSTATUS=serving \u{1b}[31m4\nWATCHDOG=1\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=1500\n\
                    RELOADING=1\nMAINPID=1\nREADY=0\nnonsense\nEXTEND_TIMEOUT_USEC=soon\n";
        let expected = [
            Message::Event(Event::Ready),
            Message::Status("serving [31m4".into()),
            Message::Event(Event::Alive),
            Message::Event(Event::Hung),
            Message::Event(Event::Extend(Duration::from_micros(1500))),
            Message::Event(Event::Reloading),
        ];
        assert_eq!(parse(text.as_bytes()), expected);
        assert_eq!(parse(b"\xff\xfe"), []);
        assert_eq!(parse(b""), []);
    }

    #[tokio::test]
    async fn a_deep_folder_is_no_obstacle() {
        let deep = tempfile::tempdir().unwrap();
        let path = deep.path().join("a-rather-long-name".repeat(10)).join("run");
        let folder = SocketFolder::create(&path).unwrap();
        let socket = NotifySocket::bind(&folder, "unit.1").unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", socket.address()).await.unwrap();
        assert_eq!(socket.receive().await.unwrap(), [Message::Event(Event::Ready)]);
        drop(socket);
        assert!(!path.join("unit.1").exists());
    }
}
