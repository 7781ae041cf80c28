//! A subscriber to webhooks: takes what is posted to it, answers as a test wants, and verifies signatures by itself.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::eventually;

/// How far a message's time may lie from now.
const TOLERANCE: Duration = Duration::from_secs(300);
/// What HMAC works with (RFC 2104), for SHA-256.
const BLOCK: usize = 64;

/// What was posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Path and query.
    pub target: String,
    /// The header fields, by lower-case names.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

/// A server that takes webhooks, on the loopback interface, in the clear.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    answers: Mutex<VecDeque<u16>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Starts one that answers 204.
    ///
    /// # Panics
    /// No socket can be had.
    pub async fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let router = Router::new().fallback(any(take)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot listen");
        let address = listener.local_addr().expect("a bound socket has an address");
        let serving = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Self { address, shared, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that leads there.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next posts are answered so, in this order; those after them with 204. A redirect leads to `/elsewhere`.
    pub fn answer_next(&self, statuses: impl IntoIterator<Item = u16>) {
        locked(&self.shared.answers).extend(statuses);
    }

    /// All that was posted.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.shared.received).clone()
    }

    /// Waits until so many posts came.
    ///
    /// # Panics
    /// They do not come.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually("posts to the receiver", async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let field = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let target = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    locked(&shared.received).push(Received { target, headers: headers.iter().map(field).collect(), body });
    let status = locked(&shared.answers).pop_front().unwrap_or(204);
    let status = StatusCode::from_u16(status).expect("a test answers with statuses that exist");
    match status.is_redirection() {
        true => (status, [("location", "/elsewhere")]).into_response(),
        false => status.into_response(),
    }
}

/// Verifies a message as the specification of Standard Webhooks tells a subscriber to: written from that text alone, with a HMAC of
/// its own, so that it shares no mistake with what signs.
///
/// # Errors
/// Says what is wrong with the message.
pub fn verify(secret: &str, message: &Received) -> Result<(), String> {
    let header = |name: &str| message.headers.get(name).ok_or_else(|| format!("no {name}"));
    let (id, timestamp, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let sent: u64 = timestamp.parse().map_err(|_| "the timestamp is no number".to_owned())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
    if now.abs_diff(sent) > TOLERANCE.as_secs() {
        return Err(format!("sent at {sent}, and it is {now}"));
    }
    let key = secret.strip_prefix("whsec_").ok_or("the secret has another prefix")?;
    let key = STANDARD.decode(key).map_err(|error| error.to_string())?;
    let expected = STANDARD.encode(hmac_sha256(&key, format!("{id}.{timestamp}.{}", message.body).as_bytes()));
    let signed = signatures.split(' ').filter_map(|signature| signature.split_once(','));
    let mut known = signed.filter(|(version, _)| *version == "v1");
    if known.any(|(_, signature)| signature == expected) { Ok(()) } else { Err("the signature is another".to_owned()) }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > BLOCK { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block.resize(BLOCK, 0);
    let padded = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([padded(0x36), message.to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 1, 2 and 6.
    #[test]
    fn the_hmac_is_that_of_the_rfc() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (key, message, tag) in [
            (vec![0x0b; 20], "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe".to_vec(),
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex(&hmac_sha256(&key, message.as_bytes())), tag);
        }
    }
}
