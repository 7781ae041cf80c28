//! Messages to the service manager (sd_notify(3)).
//!
//! `sd_notify` formats them and reads the watchdog's period; the socket is ours because its `notify` cannot reach an
//! abstract one (`@name`), which a container's or a user's service manager may hand out.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;

/// A service manager that does not read must not hang the service.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager's end of `$NOTIFY_SOCKET`, or nobody.
#[derive(Debug)]
pub(crate) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    pub(crate) fn from_env() -> io::Result<Self> {
        Self::to(env::var_os("NOTIFY_SOCKET"))
    }

    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    pub(crate) fn to(address: Option<OsString>) -> io::Result<Self> {
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Ok(Self::nobody());
        };
        let address = parse(&address)
            .map_err(|error| io::Error::new(error.kind(), format!("NOTIFY_SOCKET={}: {error}", address.display())))?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self(Some((socket, address))))
    }

    /// Sends all states in one message. A failure is logged, never fatal: the service works without being watched.
    pub(crate) fn send(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.0 else {
            return;
        };
        let mut message = String::new();
        for state in states {
            // Writing to a String cannot fail.
            let _ = writeln!(message, "{state}");
        }
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "the service manager cannot be told `{}`", message.trim_end().replace('\n', " "));
        }
    }
}

fn parse(address: &OsStr) -> io::Result<SocketAddr> {
    match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(address),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "must be an absolute path, or @ and the name of an abstract socket",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_path_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(Some(path.into())).unwrap();
        notifier.send(&[NotifyState::Ready, NotifyState::Status("serving")]);
        assert_eq!(receive(&manager), "READY=1\nSTATUS=serving\n");
    }

    #[test]
    fn an_abstract_name_is_reached() {
        let name = format!("berth-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::to(Some(format!("@{name}").into())).unwrap();
        notifier.send(&[NotifyState::Watchdog]);
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
    }

    #[test]
    fn nobody_and_an_empty_name_listen_to_nothing() {
        Notifier::to(None).unwrap().send(&[NotifyState::Ready]);
        Notifier::to(Some(OsString::new())).unwrap().send(&[NotifyState::Ready]);
    }

    #[test]
    fn a_vanished_manager_does_not_matter() {
        Notifier::to(Some("/nonexistent/notify".into())).unwrap().send(&[NotifyState::Ready]);
    }

    #[test]
    fn other_addresses_are_refused_by_name() {
        for address in ["notify", "vsock:2:1234"] {
            let error = Notifier::to(Some(address.into())).unwrap_err().to_string();
            assert!(error.contains("NOTIFY_SOCKET") && error.contains(address), "{error}");
        }
    }
}
