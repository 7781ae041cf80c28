//! Bodies on their way to and from an instance.

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::BoxError;
use super::{Error, link::Lease};

/// The body of a request.
pub enum Payload {
    /// Known as a whole: can be sent again. Empty bytes are no body.
    Bytes(Bytes),
    /// Passed on as it comes, once.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
}

impl Payload {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }

    /// The same body once more, if it is known as a whole.
    pub(super) fn replay(&self) -> Option<Self> {
        match self {
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(_) => None,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Self::Stream(_) => f.debug_tuple("Stream").finish(),
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// The body of a response, passed on as it comes. Reading it slowly slows the instance down; not reading it to its end
/// cancels the request.
pub struct ResponseBody {
    incoming: Incoming,
    /// Our place at the instance, given back at the end.
    lease: Option<Lease>,
    deadline: Instant,
    /// Made once the body has to be waited for, which most never have.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, deadline: Instant) -> Self {
        let ended = incoming.is_end_stream();
        let mut body = Self { incoming, lease: Some(lease), deadline, timer: None, ended };
        if ended {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.complete();
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            ready!(this.poll_deadline(cx));
            this.ended = true;
            let timeout = this.lease.take().map(Lease::time_out);
            return Poll::Ready(timeout.map(Err));
        };
        let frame = frame.map(|frame| {
            frame.map_err(|error| {
                this.ended = true;
                let service = this.lease.take().map(|lease| lease.service().to_owned()).unwrap_or_default();
                Error::Failed { service, source: error.into() }
            })
        });
        if this.incoming.is_end_stream() || frame.is_none() {
            this.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { self.incoming.size_hint() }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("ended", &self.ended).finish_non_exhaustive()
    }
}
