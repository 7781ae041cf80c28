//! Everybody who calls the mesh, through its gateway.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use berth::{login, project::Project};
use mesh::Plan;
use reqwest::{Certificate, Client, Method, StatusCode, header::LOCATION};
use serde_json::Value;
use tokio::sync::Mutex;

/// Longer than a request may take in the gateway: what is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(40);
/// Well before an access token ends.
const TOKEN_AGE: Duration = Duration::from_secs(120);

/// Logs people in, and in again before their tokens end.
#[derive(Debug)]
pub struct Users {
    project: Project,
    plan: Plan,
    client: Client,
    tokens: Mutex<HashMap<&'static str, (String, Instant)>>,
}

/// Somebody who is logged in when it matters.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    users: &'a Users,
    name: &'static str,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The last part of the `Location`.
    pub location: Option<String>,
    /// The body as JSON (`null` when there is none).
    pub body: Value,
}

impl Users {
    pub(super) fn new(project: &Project, plan: &Plan) -> Result<Self> {
        let ca = Certificate::from_pem(&std::fs::read(project.ca())?)?;
        let client = Client::builder().tls_certs_only([ca]).timeout(PATIENCE).build()?;
        Ok(Self { project: project.clone(), plan: plan.clone(), client, tokens: Mutex::default() })
    }

    /// One of the demo users.
    pub fn caller(&self, name: &'static str) -> Caller<'_> {
        Caller { users: self, name }
    }

    async fn token(&self, user: &'static str) -> Result<String> {
        let mut tokens = self.tokens.lock().await;
        if let Some((token, since)) = tokens.get(user)
            && since.elapsed() < TOKEN_AGE
        {
            return Ok(token.clone());
        }
        let token = login::access_token(&self.project, &self.plan, user).await?;
        tokens.insert(user, (token.clone(), Instant::now()));
        Ok(token)
    }

    async fn forget(&self, user: &'static str) {
        self.tokens.lock().await.remove(user);
    }
}

impl Caller<'_> {
    /// Sends a request with these headers and this body (none if `null`).
    ///
    /// # Errors
    /// No whole answer came: nobody knows whether the request was done.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Answer> {
        let token = self.users.token(self.name).await?;
        let url = format!("{}{path}", self.users.plan.gateway.public_url);
        let mut request = self.users.client.request(method, url).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.context("no answer")?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            self.users.forget(self.name).await;
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| Some(location.rsplit_once('/')?.1.to_owned()));
        let bytes = response.bytes().await.context("half an answer")?;
        Ok(Answer { status, location, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }
}

impl Answer {
    /// A text of the body.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str)
    }
}
