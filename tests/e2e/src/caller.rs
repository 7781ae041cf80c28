//! Somebody who calls the gateway, with a token or without.

use std::time::Duration;

use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;

/// A client of the public API.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Client,
    base: String,
    token: Option<String>,
}

/// What came back: status, headers, and the body as JSON (`null` when there is none).
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Value,
}

impl Caller {
    /// A client of the gateway at this URL, whose certificate the authority has signed.
    pub fn new(base: String, authority: Certificate, token: Option<String>) -> Self {
        let client = Client::builder()
            .tls_certs_only([authority])
            .timeout(Duration::from_secs(40))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("cannot build a client");
        Self { client, base, token }
    }

    /// The same client with another access token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The access token, when there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request to a path of the gateway.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// GET, while the gateway may be away: it was killed or stopped, and a connection kept from before still looks open.
    ///
    /// # Errors
    /// As [`Answer::try_of`].
    pub async fn try_get(&self, path: &str) -> reqwest::Result<Answer> {
        Answer::try_of(self.request(Method::GET, path)).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// POST of JSON under an idempotency key.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).header("idempotency-key", key).json(body)).await
    }
}

impl Answer {
    /// Sends the request and reads the whole answer.
    pub async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.expect("no answer")
    }

    /// Sends the request; an error when no whole answer came.
    ///
    /// # Errors
    /// The connection failed, or the answer broke off.
    pub async fn try_of(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Self { status, headers, body })
    }

    /// The same answer, when its status is `status`.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:#}\n{:?}", self.body, self.headers);
        self
    }

    /// A header field as text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A text field of the body, by JSON pointer.
    pub fn text(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no text at {pointer}: {:#}", self.body))
    }

    /// A whole number of the body, by JSON pointer.
    pub fn number(&self, pointer: &str) -> i64 {
        self.body
            .pointer(pointer)
            .and_then(Value::as_i64)
            .unwrap_or_else(|| panic!("no number at {pointer}: {:#}", self.body))
    }
}
