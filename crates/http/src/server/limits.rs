//! How much a peer may take.

use std::time::Duration;

/// What bounds each resource that a peer can hold. The defaults suit an API with small bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body; beyond is 413.
    pub body_bytes: usize,
    /// Bytes of a request's head; beyond is 431. Over HTTP/1.1 never less than 8192. Whoever forwards others' heads must
    /// stay well below: HTTP/2 ends the whole connection, and with it everybody's requests, over a head that takes much
    /// more than this on the wire, and there a byte may take almost four (RFC 7541, Appendix B).
    pub header_bytes: usize,
    /// Header fields of an HTTP/1.1 request; beyond is 431.
    pub header_fields: usize,
    /// From the opened socket to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Handshakes at the same time. Beyond, the oldest gives way: whoever means it is done within milliseconds.
    pub handshakes: usize,
    /// From an HTTP/1.1 connection's waiting for a request to the end of that request's head: slow heads and idle
    /// connections end the same way.
    pub header_timeout: Duration,
    /// From the end of a request's head to the beginning of its answer. Beyond is 408 when the body is the reason, else 503.
    pub request_timeout: Duration,
    /// A connection without a request for so long is closed.
    pub idle_timeout: Duration,
    /// From the last answer on a connection that was told to go away to its end. It is then long delivered, or never will be.
    pub linger_timeout: Duration,
    /// A connection whose peer takes no bytes for so long is closed.
    pub stall_timeout: Duration,
    /// Connections at the same time. Beyond, a new one is closed.
    pub connections: usize,
    /// Requests at the same time, over all connections. Beyond is 503 with `Retry-After`.
    pub requests: usize,
    /// HTTP/2 streams of one connection at the same time.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            header_bytes: 64 * 1024,
            header_fields: 100,
            handshake_timeout: Duration::from_secs(5),
            handshakes: 256,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            linger_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            connections: 1024,
            requests: 512,
            streams: 256,
        }
    }
}
