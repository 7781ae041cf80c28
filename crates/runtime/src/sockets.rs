//! Listening sockets: passed by the service manager (sd_listen_fds(3)), or bound here.

use std::{
    env, io,
    net::SocketAddr,
    process,
    sync::{Mutex, OnceLock, PoisonError},
};

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

/// The passed socket called `name`, or a new one bound to `fallback`. Must be called within a tokio runtime.
///
/// A passed socket outlives the process: connections queue in it while the service restarts.
///
/// # Errors
/// When `fallback` cannot be bound (the error names the address), or the passed descriptor is no TCP socket.
pub fn listener(name: &str, fallback: SocketAddr) -> io::Result<TcpListener> {
    if let Some(listener) = Passed::get().take(name)? {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener);
    }
    bind(fallback).map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {fallback}: {error}")))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted service must not wait for the connections of its predecessor to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The sockets this process was started with. Read once: a descriptor has exactly one owner.
struct Passed {
    descriptors: Mutex<ListenFd>,
    names: Vec<String>,
}

impl Passed {
    fn get() -> &'static Self {
        static PASSED: OnceLock<Passed> = OnceLock::new();
        PASSED.get_or_init(|| {
            // Without this check a child would take descriptors that were meant for its parent.
            let ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(process::id()));
            Self {
                descriptors: Mutex::new(if ours { ListenFd::from_env() } else { ListenFd::empty() }),
                names: names(env::var("LISTEN_FDNAMES").ok().as_deref()),
            }
        })
    }

    fn take(&self, name: &str) -> io::Result<Option<std::net::TcpListener>> {
        let Some(index) = self.names.iter().position(|passed| passed == name) else {
            return Ok(None);
        };
        self.descriptors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_tcp_listener(index)
            .map_err(|error| io::Error::new(error.kind(), format!("the passed socket `{name}`: {error}")))
    }
}

fn names(variable: Option<&str>) -> Vec<String> {
    variable.map(|names| names.split(':').map(str::to_owned).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_passed_socket_the_fallback_is_bound() {
        let listener = listener("https", "127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), 0);
    }

    #[tokio::test]
    async fn an_occupied_address_is_named() {
        let first = listener("https", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listener("https", address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn names_keep_their_positions() {
        assert_eq!(names(Some("https::admin")), ["https", "", "admin"]);
        assert!(names(None).is_empty());
    }
}
