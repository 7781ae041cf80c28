//! The users a plan derives, at a real NATS server: each can do all its client does, and nothing beyond that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use mesh::plan::Events;
use mesh::{Placement, resolve};
use testkit::Nats;
use tokio::sync::mpsc;

/// The shop: audit consumes by one subject of a stream, notifier by several.
fn shop() -> Events {
    resolve("mesh.toml", include_str!("../../../mesh.toml"), &Placement::Nodes).unwrap().events.unwrap()
}

/// A server with a user for each service of the plan, and the key of each.
async fn server(events: &Events) -> (Nats, BTreeMap<String, nkeys::KeyPair>) {
    let keys: BTreeMap<String, nkeys::KeyPair> =
        events.users.iter().map(|user| (user.service.to_string(), nkeys::KeyPair::new_user())).collect();
    let users = events.users.iter().map(|user| servers::nats::User {
        public_key: keys[user.service.as_str()].public_key(),
        publish: user.publish.clone(),
        subscribe: user.subscribe.clone(),
    });
    (Nats::start_for(users.collect()).await, keys)
}

/// A service at the event bus.
struct Member {
    service: String,
    client: Client,
    jetstream: jetstream::Context,
    complaints: mpsc::UnboundedReceiver<String>,
}

impl Member {
    async fn join(service: &str, server: &Nats, keys: &BTreeMap<String, nkeys::KeyPair>) -> Self {
        let (sender, complaints) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_nkey(keys[service].seed().unwrap())
            .custom_inbox_prefix(format!("_INBOX_{service}"))
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(error) = event {
                        let _ = sender.send(error.to_string());
                    }
                }
            });
        let client = options.connect(server.url()).await.unwrap();
        Self { service: service.to_owned(), jetstream: jetstream::new(client.clone()), client, complaints }
    }

    /// What a relay does: keeps its stream, publishes into it, reads it back.
    async fn emit(&self, events: &Events, subject: &'static str) {
        let subjects = &events.streams.iter().find(|stream| stream.name == *self.service).unwrap().subjects;
        let config = stream::Config {
            name: self.service.clone(),
            subjects: subjects.iter().map(ToString::to_string).collect(),
            allow_direct: true,
            allow_atomic_publish: true,
            ..stream::Config::default()
        };
        self.jetstream.create_stream(config.clone()).await.unwrap();
        self.jetstream.update_stream(stream::Config { max_messages: 1000, ..config }).await.unwrap();
        let ack = self.jetstream.publish(subject, "{}".into()).await.unwrap().await.unwrap();
        let stream = self.jetstream.get_stream(&self.service).await.unwrap();
        assert_eq!(stream.get_raw_message(ack.sequence).await.unwrap().subject.as_str(), subject);
        assert_eq!(stream.direct_get(ack.sequence).await.unwrap().subject.as_str(), subject);
        assert_eq!(stream.direct_get_last_for_subject(subject).await.unwrap().subject.as_str(), subject);
    }

    /// What a consumer does: makes itself, asks for its state, takes one message and acknowledges it.
    async fn consume(&self, events: &Events, stream: &str) -> String {
        let declared = events.streams.iter().find(|declared| declared.name == *stream).unwrap();
        let filters = &declared.consumers.iter().find(|consumer| consumer.name == *self.service).unwrap().filters;
        let consumer = self.subscribe(stream, &filters.iter().map(|filter| filter.as_str()).collect::<Vec<_>>()).await;
        let consumer = consumer.unwrap();
        let mut messages = consumer.fetch().max_messages(1).expires(Duration::from_secs(20)).messages().await.unwrap();
        let message = messages.next().await.unwrap().unwrap();
        message.double_ack().await.unwrap();
        let stream = self.jetstream.get_stream(stream).await.unwrap();
        let info = stream.consumer_info(&self.service).await.unwrap();
        assert_eq!((info.num_ack_pending, info.ack_floor.consumer_sequence), (0, 1), "the acknowledgement arrived");
        message.subject.to_string()
    }

    async fn subscribe(&self, stream: &str, filters: &[&str]) -> Result<PullConsumer, async_nats::Error> {
        let mut config = pull::Config {
            durable_name: Some(self.service.clone()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        match filters {
            [only] => config.filter_subject = (*only).to_owned(),
            several => config.filter_subjects = several.iter().map(ToString::to_string).collect(),
        }
        Ok(self.jetstream.create_consumer_on_stream(config, stream).await?)
    }

    /// The server's answer to the last thing asked of it, which it does not allow.
    async fn denial(&mut self) -> String {
        self.client.flush().await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.complaints.recv()).await.expect("it was allowed").unwrap()
    }
}

#[tokio::test]
async fn every_service_can_do_what_its_client_does() {
    let events = shop();
    let (server, keys) = server(&events).await;
    let items = Member::join("item-management", &server, &keys).await;
    let documents = Member::join("eshop-documents", &server, &keys).await;
    let audit = Member::join("audit", &server, &keys).await;
    let notifier = Member::join("notifier", &server, &keys).await;

    items.emit(&events, "items.reservation.reserved").await;
    documents.emit(&events, "documents.stock.reserve").await;
    documents.jetstream.publish("documents.order.placed", "{}".into()).await.unwrap().await.unwrap();

    assert_eq!(documents.consume(&events, "item-management").await, "items.reservation.reserved");
    assert_eq!(items.consume(&events, "eshop-documents").await, "documents.stock.reserve");
    assert_eq!(audit.consume(&events, "item-management").await, "items.reservation.reserved");
    assert_eq!(audit.consume(&events, "eshop-documents").await, "documents.stock.reserve");
    assert_eq!(notifier.consume(&events, "eshop-documents").await, "documents.order.placed");
}

#[tokio::test]
async fn nobody_can_do_anything_else() {
    let events = shop();
    let (server, keys) = server(&events).await;
    let mut items = Member::join("item-management", &server, &keys).await;
    for subject in [
        "documents.order.placed",
        "_INBOX_eshop-documents.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.DELETE.item-management",
        "$JS.API.STREAM.PURGE.item-management",
        "$JS.API.STREAM.MSG.DELETE.item-management",
        "$JS.API.STREAM.CREATE.eshop-documents",
        "$JS.API.STREAM.UPDATE.eshop-documents",
        "$JS.API.STREAM.MSG.GET.eshop-documents",
        "$JS.API.DIRECT.GET.eshop-documents",
        "$JS.API.CONSUMER.CREATE.eshop-documents",
        "$JS.API.CONSUMER.CREATE.eshop-documents.item-management",
        "$JS.API.CONSUMER.CREATE.eshop-documents.item-management.documents.order.*",
        "$JS.API.CONSUMER.DELETE.eshop-documents.item-management",
        "$JS.API.CONSUMER.MSG.NEXT.eshop-documents.audit",
        "$JS.ACK.eshop-documents.audit.1.1.1.1.0",
    ] {
        items.client.publish(subject, "{}".into()).await.unwrap();
        let denial = items.denial().await;
        assert!(denial.to_lowercase().contains("permissions violation") && denial.contains(subject), "{denial}");
    }
    for subject in [">", "items.>", "_INBOX_eshop-documents.>", "_INBOX.>", "$JS.EVENT.>"] {
        let _subscription = items.client.subscribe(subject).await.unwrap();
        let denial = items.denial().await;
        assert!(denial.to_lowercase().contains("permissions violation") && denial.contains(subject), "{denial}");
    }
}

#[tokio::test]
async fn a_filter_allowed_by_its_subject_cannot_be_another_in_the_request() {
    let events = shop();
    let (server, keys) = server(&events).await;
    let documents = Member::join("eshop-documents", &server, &keys).await;
    documents.emit(&events, "documents.stock.reserve").await;
    let items = Member::join("item-management", &server, &keys).await;
    let request = r#"{"stream_name":"eshop-documents","config":{"durable_name":"item-management","ack_policy":"explicit","filter_subject":"documents.order.*"},"action":"create"}"#;
    let subject = "$JS.API.CONSUMER.CREATE.eshop-documents.item-management.documents.stock.*";
    let answer = items.client.request(subject, request.into()).await.unwrap();
    let answer = String::from_utf8(answer.payload.to_vec()).unwrap();
    assert!(answer.contains("\"error\""), "{answer}");
}

#[tokio::test]
async fn a_stranger_is_not_admitted() {
    let events = shop();
    let (server, _) = server(&events).await;
    let stranger = nkeys::KeyPair::new_user().seed().unwrap();
    assert!(ConnectOptions::with_nkey(stranger).connect(server.url()).await.is_err());
    assert!(async_nats::connect(server.url()).await.is_err());
}
