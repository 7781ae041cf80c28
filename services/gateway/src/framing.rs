//! Watches the raw bytes of an HTTP/1.1 connection for a request that says its length in two ways.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is how requests are smuggled past a proxy (RFC 9112,
//! §6.1 and §11.2). hyper obeys `Transfer-Encoding` and hides the other header, so that nobody behind it can tell; here,
//! such a request is refused and its connection closed. [`Watched`] only looks: it counts request heads as they pass, and
//! the handler of the n-th request asks whether the n-th head was sound.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use httparse::Status;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// More header fields than hyper is told to take.
const MAX_FIELDS: usize = 128;
/// A line that gives a chunk's size, or a trailer, longer than this is nothing that is meant well.
const MAX_LINE: usize = 8 * 1024;

/// What the watch has found out, shared with the handler of the connection's requests.
#[derive(Clone, Debug)]
pub(crate) struct Findings(Arc<AtomicU64>);

impl Findings {
    /// Nothing found.
    pub(crate) fn none() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// Whether the request with this number, counted from 0, was sound.
    pub(crate) fn is_sound(&self, number: u64) -> bool {
        number < self.0.load(Relaxed)
    }
}

/// A stream whose requests are watched.
pub(crate) struct Watched<IO> {
    io: IO,
    framing: Framing,
    findings: Findings,
    head_timeout: Duration,
    /// Runs while the rest of a head is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<IO> Watched<IO> {
    /// A head must not be larger than `max_head`, and not take longer than `head_timeout` from its first byte to its last.
    pub(crate) fn new(io: IO, max_head: usize, head_timeout: Duration) -> (Self, Findings) {
        let findings = Findings::none();
        let framing = Framing::new(max_head);
        (Self { io, framing, findings: findings.clone(), head_timeout, deadline: None }, findings)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = read
            && let Some(bytes) = buffer.filled().get(before..)
            && let Some(unsound) = self.framing.read(bytes)
        {
            self.findings.0.fetch_min(unsound, Relaxed);
        }
        if !self.framing.is_inside_a_head() {
            self.deadline = None;
        } else if read.is_pending() {
            let timeout = self.head_timeout;
            ready!(self.deadline.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head of a request did not arrive in time",
            )));
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Where in the stream of requests the next byte stands.
#[derive(Debug)]
struct Framing {
    state: State,
    /// Heads that have passed.
    heads: u64,
    /// What has come of a head or a line that is not complete.
    partial: Vec<u8>,
    max_head: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk are to come, its line end included.
    Chunk(u64),
    Trailers,
    /// Something was found; nothing that follows will be served.
    Given,
}

/// How the body of a request is delimited.
enum Delimited {
    Length(u64),
    Chunked,
    /// Two ways at once, or none that can be understood.
    Unsound,
}

impl Framing {
    fn new(max_head: usize) -> Self {
        Self { state: State::Head, heads: 0, partial: Vec::new(), max_head }
    }

    /// Takes the next bytes. Says from which request on nothing must be served, when it finds out.
    fn read(&mut self, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Given => return None,
                State::Body(left) => self.skip(bytes, left, State::Body, State::Head),
                State::Chunk(left) => self.skip(bytes, left, State::Chunk, State::ChunkSize),
                State::Head => match self.head(bytes) {
                    Ok(rest) => rest,
                    Err(unsound) => return self.give_up(unsound),
                },
                State::ChunkSize | State::Trailers => match self.line(bytes) {
                    Some(rest) => rest,
                    None => return self.give_up(self.heads),
                },
            };
        }
        None
    }

    fn is_inside_a_head(&self) -> bool {
        self.state == State::Head && !self.partial.is_empty()
    }

    fn give_up(&mut self, unsound: u64) -> Option<u64> {
        self.state = State::Given;
        self.partial = Vec::new();
        Some(unsound)
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, more: impl FnOnce(u64) -> State, done: State) -> &'a [u8] {
        let length = bytes.len() as u64;
        if length < left {
            self.state = more(left - length);
            return &[];
        }
        self.state = done;
        usize::try_from(left).ok().and_then(|left| bytes.get(left..)).unwrap_or_default()
    }

    /// Reads a head. The error is the number of the first request that must not be served.
    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], u64> {
        let known = self.partial.len();
        let parsed = if known == 0 {
            parse_head(bytes)
        } else {
            self.partial.extend_from_slice(bytes);
            parse_head(&self.partial)
        };
        match parsed {
            Ok(Status::Complete((length, delimited))) => {
                self.partial.clear();
                self.state = match delimited {
                    Delimited::Length(0) => State::Head,
                    Delimited::Length(length) => State::Body(length),
                    Delimited::Chunked => State::ChunkSize,
                    Delimited::Unsound => return Err(self.heads),
                };
                self.heads += 1;
                Ok(bytes.get(length.saturating_sub(known)..).unwrap_or_default())
            }
            Ok(Status::Partial) => {
                if known == 0 {
                    self.partial.extend_from_slice(bytes);
                }
                if self.partial.len() > self.max_head { Err(self.heads) } else { Ok(&[]) }
            }
            // hyper refuses it as well.
            Err(_) => Err(self.heads),
        }
    }

    /// Reads a line of the chunked coding (RFC 9112, §7.1), each of which ends with CR LF. Nothing when it is malformed:
    /// then nobody can tell any more where the next request begins.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        self.partial.extend_from_slice(bytes.get(..end.unwrap_or(bytes.len()))?);
        if self.partial.len() > MAX_LINE {
            return None;
        }
        let Some(end) = end else { return Some(&[]) };
        let line = std::mem::take(&mut self.partial);
        let text = line.strip_suffix(b"\r\n")?;
        self.state = match self.state {
            State::ChunkSize => match httparse::parse_chunk_size(&line) {
                Ok(Status::Complete((_, 0))) => State::Trailers,
                Ok(Status::Complete((_, size))) => State::Chunk(size.checked_add(2)?),
                _ => return None,
            },
            _ if text.is_empty() => State::Head,
            state => state,
        };
        bytes.get(end..)
    }
}

fn parse_head(bytes: &[u8]) -> Result<Status<(usize, Delimited)>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let Status::Complete(length) = request.parse(bytes)? else { return Ok(Status::Partial) };
    Ok(Status::Complete((length, delimited(request.headers))))
}

fn delimited(fields: &[httparse::Header<'_>]) -> Delimited {
    let mut values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-length"));
    let (length, another) = (values.next(), values.next().is_some());
    let mut codings = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("transfer-encoding"));
    let (coding, more) = (codings.next(), codings.next().is_some());
    match (length, coding) {
        _ if another || more => Delimited::Unsound,
        (Some(_), Some(_)) => Delimited::Unsound,
        (None, None) => Delimited::Length(0),
        // Digits alone: no sign, no list, no space inside.
        (Some(length), None) if !length.value.is_empty() && length.value.iter().all(u8::is_ascii_digit) => {
            let digits = std::str::from_utf8(length.value).ok().and_then(|digits| digits.parse().ok());
            digits.map_or(Delimited::Unsound, Delimited::Length)
        }
        (None, Some(coding)) if coding.value.eq_ignore_ascii_case(b"chunked") => Delimited::Chunked,
        _ => Delimited::Unsound,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From which request on nothing is served, when the stream comes in pieces that end at these places.
    fn unsound_from(stream: &[u8], cuts: &[usize]) -> Option<u64> {
        let mut framing = Framing::new(16 * 1024);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).find_map(|ends| framing.read(&stream[ends[0]..ends[1]]))
    }

    const SOUND: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET / HTTP/1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
    ];

    const UNSOUND: &[&str] = &[
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    ];

    proptest! {
        #[test]
        fn sound_requests_pass_however_they_are_cut(
            which in prop::collection::vec(prop::sample::select(SOUND), 1..6),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(unsound_from(which.concat().as_bytes(), &cuts), None);
        }

        #[test]
        fn an_unsound_one_is_found_where_it_stands_however_it_is_cut(
            before in prop::collection::vec(prop::sample::select(SOUND), 0..4),
            unsound in prop::sample::select(UNSOUND),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let stream = format!("{}{unsound}{}", before.concat(), SOUND[0]);
            prop_assert_eq!(unsound_from(stream.as_bytes(), &cuts), Some(before.len() as u64), "{}", stream);
        }

        #[test]
        fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut framing = Framing::new(1024);
            for piece in pieces {
                let _ = framing.read(&piece);
            }
        }
    }

    #[test]
    fn after_chunks_that_cannot_be_read_nothing_more_is_served() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for chunks in ["5\nhello\r\n", "zz\r\n", "-1\r\n", "ffffffffffffffff\r\n", "0\r\nX: 1\n\r\n"] {
            assert_eq!(unsound_from(format!("{head}{chunks}").as_bytes(), &[]), Some(1), "{chunks:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut framing = Framing::new(1024);
        let line = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
        assert_eq!(framing.read(b"GET / HTTP/1.1\r\n"), None);
        let found = (0..1000).find_map(|_| framing.read(line));
        assert_eq!(found, Some(0));
        assert_eq!(framing.partial.capacity(), 0);
    }
}
