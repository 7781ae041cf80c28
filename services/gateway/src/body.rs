//! Bodies on their way through: a request's is bounded in size and in how slowly it may come, a response's is counted.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use berth_http::upstream::{self, BoxError, Payload, ResponseBody};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::access_log::Entry;

/// Bodies whose length is known and no larger than this are read before the request is sent. They can then be sent
/// again, and a client that sends slowly keeps no instance waiting.
const READ_AHEAD: u64 = 64 * 1024;

/// How long an answer that is known already waits for the end of its request.
const LINGER: Duration = Duration::from_secs(1);

/// What a request's body may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Its size.
    pub(crate) bytes: u64,
    /// How long nothing of it may come.
    pub(crate) pause: Duration,
    /// When it must have come.
    pub(crate) deadline: Instant,
}

/// What a client did wrong while sending its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    /// It is larger than is taken.
    #[error("the body is too large")]
    TooLarge = 1,
    /// It does not come.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// It is malformed, or its client is gone.
    #[error("the body is incomplete or malformed")]
    Broken,
}

/// Tells afterwards what went wrong with a body that was streamed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<AtomicU8>);

impl Fault {
    pub(crate) fn get(&self) -> Option<BodyFault> {
        [BodyFault::TooLarge, BodyFault::TooSlow, BodyFault::Broken]
            .into_iter()
            .find(|fault| *fault as u8 == self.0.load(Relaxed))
    }
}

/// Turns a request's body into what is sent upstream.
pub(crate) async fn take(unread: &mut Option<Incoming>, limits: BodyLimits) -> Result<(Payload, Fault), BodyFault> {
    let fault = Fault::default();
    let Some(incoming) = unread.take().filter(|body| !body.is_end_stream()) else {
        return Ok((Payload::empty(), fault));
    };
    match incoming.size_hint().exact() {
        Some(length) if length > limits.bytes => Err(BodyFault::TooLarge),
        Some(length) if length <= READ_AHEAD => Ok((Payload::Bytes(read(incoming, length, limits).await?), fault)),
        _ => {
            let bounded = Bounded { incoming, left: limits.bytes, limits, timer: None, fault: fault.clone() };
            Ok((Payload::Stream(Box::pin(bounded)), fault))
        }
    }
}

/// Reads a short body that nobody needs. An answer may come before its request has ended (RFC 9113 §8.1), but the
/// RST_STREAM that then follows it is taken for a failure by curl 7.88 and others, who never show the answer.
pub(crate) async fn discard(unread: Incoming) {
    let Some(length) = unread.size_hint().exact().filter(|length| (1..=READ_AHEAD).contains(length)) else { return };
    let limits = BodyLimits { bytes: length, pause: LINGER, deadline: Instant::now() + LINGER };
    // Whatever is wrong with it, the answer is the same.
    let _ = read(unread, length, limits).await;
}

async fn read(mut incoming: Incoming, length: u64, limits: BodyLimits) -> Result<Bytes, BodyFault> {
    let mut whole: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let until = limits.deadline.min(Instant::now() + limits.pause);
        let frame = match timeout_at(until, incoming.frame()).await {
            Ok(Some(frame)) => frame.map_err(|_| BodyFault::Broken)?,
            Ok(None) => break,
            Err(_) => return Err(BodyFault::TooSlow),
        };
        // Trailers of a request mean nothing to anybody behind.
        let Ok(data) = frame.into_data() else { continue };
        match &whole {
            None => whole = Some(data),
            Some(first) => {
                if rest.is_empty() {
                    rest.reserve(usize::try_from(length).unwrap_or_default());
                    rest.extend_from_slice(first);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() { whole.unwrap_or_default() } else { rest.freeze() })
}

/// A request's body that is passed on as it comes.
struct Bounded {
    incoming: Incoming,
    left: u64,
    limits: BodyLimits,
    /// Runs while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    fault: Fault,
}

impl Bounded {
    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.fault.0.store(fault as u8, Relaxed);
        Poll::Ready(Some(Err(fault.into())))
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            let until = this.limits.deadline.min(Instant::now() + this.limits.pause);
            ready!(this.timer.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx));
            return this.fail(BodyFault::TooSlow);
        };
        this.timer = None;
        match frame {
            None => Poll::Ready(None),
            Some(Err(_)) => this.fail(BodyFault::Broken),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(length) else { return this.fail(BodyFault::TooLarge) };
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A response's body. Dropping it ends the request's log entry.
pub(crate) struct Outgoing {
    source: Source,
    entry: Entry,
}

enum Source {
    Own(Bytes),
    Upstream(ResponseBody),
}

impl Outgoing {
    /// A body of ours.
    pub(crate) fn own(bytes: Bytes, entry: Entry) -> Self {
        Self { source: Source::Own(bytes), entry }
    }

    /// A body of an instance, passed on as it comes.
    pub(crate) fn upstream(body: ResponseBody, entry: Entry) -> Self {
        Self { source: Source::Upstream(body), entry }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = upstream::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, upstream::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Own(bytes) if bytes.is_empty() => None,
            Source::Own(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => this.entry.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => this.entry.broken(error),
            None => {}
        }
        if this.is_end_stream() || frame.is_none() {
            this.entry.complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(body) => body.size_hint(),
        }
    }
}
