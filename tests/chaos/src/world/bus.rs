//! The event server, as its administrator: somebody who may do everything, and whom a real mesh does not have.

use std::fs;

use anyhow::{Context as _, Result};
use async_nats::{ConnectOptions, HeaderMap, jetstream};
use berth::project::Project;
use mesh::Plan;
use nkeys::KeyPair;
use runtime::credentials::Credentials;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tls::{Identity, SpiffeId};
use tokio::time::{sleep, timeout};

use super::ITEMS;

/// Writes one more user into the server's configuration, and gives the seed of its key.
pub(super) fn admit_administrator(project: &Project, plan: &Plan) -> Result<String> {
    let events = plan.events.as_ref().context("the mesh has no event bus")?;
    let file = project.data().join(events.server.as_str()).join("nats.conf");
    let mut configuration: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let key = KeyPair::new_user();
    let users = configuration.pointer_mut("/authorization/users").and_then(Value::as_array_mut);
    let everything = json!({ "publish": { "allow": [">"] }, "subscribe": { "allow": [">"] } });
    users.context("the event bus has no users")?.push(json!({ "nkey": key.public_key(), "permissions": everything }));
    fs::write(&file, configuration.to_string())?;
    Ok(key.seed()?)
}

/// Longest time for a relay and a consumer to make anew what was deleted.
const MADE_ANEW_WITHIN: Duration = Duration::from_secs(90);

/// A connection that may do everything.
#[derive(Debug, Clone)]
pub struct Bus {
    jetstream: jetstream::Context,
}

impl Bus {
    pub(super) async fn connect(project: &Project, plan: &Plan, seed: &str) -> Result<Self> {
        let events = plan.events.as_ref().context("the mesh has no event bus")?;
        // Any certificate of the mesh opens the connection; who one is, the key says.
        let identity = Identity::load(&Credentials::at(project.credentials().join(ITEMS)), &plan.domain)?;
        let server = SpiffeId::new(&plan.domain, &events.server)?;
        let client = ConnectOptions::with_nkey(seed.to_owned())
            .require_tls(true)
            .tls_client_config(Arc::unwrap_or_clone(identity.client_config(server, &[])))
            .retry_on_initial_connect()
            .request_timeout(Some(Duration::from_secs(5)))
            .connect(format!("tls://{}:{}", events.host, events.port.get()))
            .await?;
        Ok(Self { jetstream: jetstream::new(client) })
    }

    /// A service's stream.
    ///
    /// # Errors
    /// It does not exist, or the server is away.
    pub async fn stream(&self, service: &str) -> Result<jetstream::stream::Stream> {
        self.jetstream.get_stream(service).await.with_context(|| format!("no stream {service}"))
    }

    /// Waits until a service's stream is there, and this consumer of it: they were deleted, and nobody said when they would be back.
    ///
    /// # Errors
    /// They are not made anew.
    pub async fn made_anew(&self, service: &str, consumer: &str) -> Result<()> {
        let there = async {
            loop {
                if let Ok(stream) = self.stream(service).await
                    && stream.consumer_info(consumer).await.is_ok()
                {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let made = timeout(MADE_ANEW_WITHIN, there).await;
        made.with_context(|| format!("the stream {service} with its consumer {consumer} is not made anew"))
    }

    /// Everything else that can be done.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Publishes past every outbox. Gives the sequence.
    ///
    /// # Errors
    /// The stream did not take it.
    pub async fn publish(&self, subject: &str, payload: Vec<u8>) -> Result<u64> {
        let acknowledged = self.jetstream.publish_with_headers(subject.to_owned(), HeaderMap::new(), payload.into());
        Ok(acknowledged.await?.await?.sequence)
    }
}
