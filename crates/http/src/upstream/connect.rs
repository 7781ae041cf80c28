//! One connection: TCP, TLS where there is any, and the HTTP handshake.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::BoxError;
use super::{Payload, Protocol};

/// What an HTTP/2 stream may have buffered unread. Small, because a response is read as fast as its client reads.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The largest window a connection may have (RFC 9113, §6.9.1).
const MAX_WINDOW: usize = (1 << 31) - 1;

pub(super) type Http1Connection = http1::Connection<TokioIo<Wary>, Payload>;
pub(super) type Http2Connection = http2::Connection<TokioIo<TlsStream<Wary>>, Payload, TokioExecutor>;

/// The near end of an HTTP/1.1 connection: one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Payload>,
    pub(super) written: Written,
}

/// The near end of an HTTP/2 connection. Clones send on the same one.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Payload>,
    pub(super) written: Written,
}

/// How a service's addresses are spoken to, made once.
pub(super) enum Target {
    Mesh(Arc<Workload>),
    Plain,
}

/// A service of the mesh as a TLS peer.
pub(super) struct Workload {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// What stands for the host in its requests: `<name>.<domain>`.
    pub(super) authority: Authority,
}

impl Target {
    pub(super) fn new(protocol: &Protocol) -> Self {
        let Protocol::Mesh { identity, peer } = protocol else { return Self::Plain };
        let authority = format!("{}.{}", peer.name(), peer.domain());
        Self::Mesh(Arc::new(Workload {
            connector: TlsConnector::from(identity.client_config(peer.clone(), &[b"h2"])),
            name: peer.server_name(),
            // Whatever may stand in a SPIFFE ID may stand in an authority.
            authority: authority.parse().unwrap_or_else(|_| Authority::from_static("localhost")),
        }))
    }
}

impl Workload {
    /// An HTTP/2 connection over mutual TLS. The second part must be polled for the first to work.
    pub(super) async fn connect(
        &self,
        to: SocketAddr,
        max_in_flight: usize,
    ) -> Result<(Http2, Http2Connection), BoxError> {
        let stream = tcp(to).await?;
        let written = stream.written.clone();
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the instance does not speak HTTP/2".into());
        }
        // Room for every stream's window at once: one client that reads slowly must not hold up the others.
        let window = (STREAM_WINDOW as usize).saturating_mul(max_in_flight).min(MAX_WINDOW);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(u32::try_from(window).unwrap_or(STREAM_WINDOW));
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok((Http2 { sender, written }, connection))
    }
}

/// A TCP stream that looks before it writes, and counts what it has written.
///
/// When the other side has died, its FIN may lie in the socket for a while before the event loop sees it. Whatever is
/// written in that time is lost, and nobody can tell whether it was received. So the socket itself is asked before each
/// write, and once it has ended nothing is written any more: a request whose bytes never left can be sent elsewhere.
pub(super) struct Wary {
    stream: TcpStream,
    written: Written,
}

/// How many bytes a connection has put on the wire.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(Arc<AtomicU64>);

impl Written {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Wary {
    fn look(&self) -> io::Result<()> {
        let mut byte = [0; 1];
        match recv(self.stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the instance has closed the connection")),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.written.0.fetch_add(bytes as u64, SeqCst);
        }
        wrote
    }
}

impl AsyncRead for Wary {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wary {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.look()?;
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An HTTP/1.1 connection in the clear. The second part must be polled for the first to work.
pub(super) async fn plain(to: SocketAddr) -> Result<(Http1, Http1Connection), BoxError> {
    let stream = tcp(to).await?;
    let written = stream.written.clone();
    let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
    Ok((Http1 { sender, written }, connection))
}

/// A TCP connection that sends small writes at once.
pub(super) async fn tcp(to: SocketAddr) -> Result<Wary, BoxError> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(Wary { stream, written: Written::default() })
}
