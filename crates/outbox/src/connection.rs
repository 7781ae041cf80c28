//! The connection to the event server.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event as ClientEvent,
    connection::State,
    jetstream::{self, Context, context::ContextBuilder, stream::LastRawMessageErrorKind},
};
use runtime::{
    credentials::{CredentialError, Credentials},
    retry::Backoff,
    settings::Settings,
};
use tls::{Identity, SpiffeId};
use tokio::{sync::watch, time::timeout};

use crate::Event;

/// Longest wait for an answer of the event server.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// The SPIFFE name of the event server.
const SERVER: &str = "nats";

/// Why the event server cannot even be named.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// A setting is absent.
    #[error("BERTH_EVENTS_URL is not set: a service that emits or consumes events needs it")]
    NoUrl,
    /// The service's key is missing or unreadable.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The mesh's domain makes no SPIFFE ID.
    #[error("BERTH_DOMAIN cannot stand in a certificate: {0}")]
    Domain(String),
    /// The client refused its options.
    #[error("the event server's address or the service's key cannot be used: {0}")]
    Options(#[from] async_nats::ConnectError),
}

/// A service's connection to the event server. Cheap to clone; it reconnects for ever.
#[derive(Debug, Clone)]
pub struct Events {
    client: Client,
    jetstream: Context,
    /// Tells whoever subscribes whenever the connection comes or goes.
    changed: watch::Sender<()>,
    service: Arc<str>,
    source: Arc<str>,
}

impl Events {
    /// Begins to connect to the server that [`Settings::events_url`] names, with the key from the credential `nats-seed`, over
    /// mutual TLS. Returns at once: the server may be away now and come later.
    ///
    /// # Errors
    /// [`EventsError`] names what is missing or wrong.
    pub async fn connect(
        settings: &Settings,
        credentials: &Credentials,
        identity: &Identity,
    ) -> Result<Self, EventsError> {
        let url = settings.events_url.as_deref().ok_or(EventsError::NoUrl)?;
        let spiffe =
            |name| SpiffeId::new(&settings.domain, name).map_err(|error| EventsError::Domain(error.to_string()));
        let tls = Arc::unwrap_or_clone(identity.client_config(spiffe(SERVER)?, &[]));
        let seed = credentials.read("nats-seed")?.text()?.to_owned();
        let options = ConnectOptions::with_nkey(seed).require_tls(true).tls_client_config(tls).name(&settings.instance);
        Self::open(options, url, &settings.service, spiffe(&settings.service)?.to_string()).await
    }

    /// The events of a service on a server without TLS and users, for tests.
    ///
    /// # Errors
    /// [`EventsError::Options`] when the URL makes no sense.
    pub async fn at(url: &str, service: &str) -> Result<Self, EventsError> {
        Self::open(ConnectOptions::new().name(service), url, service, format!("spiffe://test/{service}")).await
    }

    async fn open(options: ConnectOptions, url: &str, service: &str, source: String) -> Result<Self, EventsError> {
        let changed = watch::Sender::new(());
        let tells = changed.clone();
        let client = options
            .custom_inbox_prefix(format!("_INBOX_{service}"))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| {
                Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
                    .nth(attempts.min(16))
                    .unwrap_or_default()
            })
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(5))
            .event_callback(move |event| {
                if matches!(event, ClientEvent::Connected | ClientEvent::Disconnected) {
                    tells.send_replace(());
                }
                async move {
                    match event {
                        ClientEvent::Connected => tracing::info!("connected to the event server"),
                        ClientEvent::Closed => {}
                        event => tracing::warn!(%event, "event server"),
                    }
                }
            })
            .connect(url)
            .await?;
        let jetstream = ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER).build(client.clone());
        Ok(Self { client, jetstream, changed, service: service.into(), source: source.into() })
    }

    /// Whether the server can be reached now; for a readiness check.
    ///
    /// # Errors
    /// Says what is wrong.
    #[expect(clippy::unused_async, reason = "readiness checks are asynchronous")]
    pub async fn health(&self) -> Result<(), String> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            state => Err(format!("the event server is away (connection {state})")),
        }
    }

    /// The last event that this service's stream has under a subject.
    ///
    /// # Errors
    /// Says why the server cannot be asked, or that what it has is no event.
    pub async fn last(&self, subject: &str) -> Result<Option<Event>, String> {
        let stream = self.jetstream.get_stream_no_info(&*self.service).await.map_err(|error| error.to_string())?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Event::from_json(&message.payload).map(Some).map_err(|error| error.to_string()),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether commands reach the server now instead of waiting for it in a buffer.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until the server can be reached.
    pub(crate) async fn connected(&self) {
        let mut changes = self.changed.subscribe();
        while !self.is_connected() {
            let _ = timeout(Duration::from_millis(500), changes.changed()).await;
        }
    }

    /// Ends as soon as the connection is lost, and with it every answer that is awaited; counted from the call on.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + use<> {
        let (client, mut changes) = (self.client.clone(), self.changed.subscribe());
        async move {
            // A reconnection also means that the answers are lost. Without a sender nothing is ever told.
            if client.connection_state() == State::Connected && changes.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The service's name: of its stream, and of its durable consumers.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// The `source` of the service's events.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Wake, Waker},
    };

    use testkit::{Nats, eventually};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Else every relay and consumer would keep a processor busy for as long as the server is away.
    #[tokio::test]
    async fn who_waits_for_the_server_sleeps() {
        let mut server = Nats::start().await;
        let events = Events::at(&server.url(), "items").await.unwrap();
        eventually("a connection", async || events.is_connected().then_some(())).await;
        server.kill();
        eventually("the loss of it", async || (!events.is_connected()).then_some(())).await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut waits = pin!(events.connected());
        let mut calls = 0;
        woken.0.store(true, Ordering::SeqCst);
        for _ in 0..100 {
            if woken.0.swap(false, Ordering::SeqCst) {
                assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                calls += 1;
            }
            tokio::task::yield_now().await;
        }
        assert!(calls < 10, "called {calls} times");
    }
}
