//! The accept loop. It ends when the drain begins, and for no other reason.

use std::{io, sync::Arc, time::Duration};

use runtime::{lifecycle::Lifecycle, retry::Backoff};
use tokio::net::TcpListener;

use super::connection::Connections;

pub(super) struct Acceptor {
    listener: TcpListener,
    lifecycle: Lifecycle,
    backoff: Backoff,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, lifecycle: Lifecycle) -> Self {
        Self { listener, lifecycle, backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)) }
    }

    pub(super) async fn run(mut self, connections: Connections) {
        let (connections, draining) = (Arc::new(connections), self.lifecycle.draining());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = draining.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.backoff.reset();
                    self.lifecycle.tasks().spawn(Arc::clone(&connections).handle(stream));
                }
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// The peer's own failures cost nothing. Others (no descriptors, no memory) last until something is closed, and accepting
    /// again at once would spin.
    async fn pause(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};

        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            let delay = self.backoff.delay();
            tracing::warn!(%error, delay_seconds = delay.as_secs_f64(), "cannot accept connections");
            tokio::time::sleep(delay).await;
        }
    }
}
