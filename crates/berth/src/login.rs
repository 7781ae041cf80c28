//! Logs a demo user in as a browser would: authorization code with PKCE (RFC 6749 §4.1, RFC 7636), through the gateway, on
//! the identity service's own login page. For native applications see RFC 8252.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh::Plan;
use reqwest::{Certificate, Client, Response, StatusCode, header::LOCATION, redirect};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    failure::Failure,
    project::Project,
    secrets::{self, files},
};

/// Pages between the first request and the code.
const MOST_PAGES: usize = 8;

/// What is needed of the issuer's discovery document.
#[derive(Debug, Deserialize)]
struct Discovery {
    authorization_endpoint: Url,
    token_endpoint: Url,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    access_token: String,
}

/// An access token for a demo user.
///
/// # Errors
/// There is no such user, the issuer cannot be reached, or it refuses.
pub async fn access_token(project: &Project, plan: &Plan, user: &str) -> Result<String, Failure> {
    let password = secrets::password_of(project, user)?;
    let client = client(project)?;
    let discovery: Discovery =
        json(client.get(format!("{}/.well-known/openid-configuration", plan.auth.issuer)).send().await).await?;
    let verifier = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let state = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
    let mut start = discovery.authorization_endpoint.clone();
    start
        .query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", secrets::CLIENT)
        .append_pair("redirect_uri", secrets::REDIRECT)
        .append_pair("scope", "openid shop")
        .append_pair("state", &state)
        .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier)))
        .append_pair("code_challenge_method", "S256");
    let code = code(&client, start, &state, user, &password).await?;
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", secrets::CLIENT),
        ("redirect_uri", secrets::REDIRECT),
        ("code", &code),
        ("code_verifier", &verifier),
    ];
    let tokens: Tokens = json(client.post(discovery.token_endpoint).form(&form).send().await).await?;
    Ok(tokens.access_token)
}

fn client(project: &Project) -> Result<Client, Failure> {
    let pem = files::read(&project.ca())?.ok_or(Failure::NotRunning)?;
    let ca = Certificate::from_pem(pem.as_bytes()).map_err(Failure::other)?;
    Client::builder()
        .tls_certs_only([ca])
        .cookie_store(true)
        .redirect(redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(Failure::other)
}

/// Follows the issuer's pages, fills in the login form once, and takes the code from the last redirect.
async fn code(client: &Client, start: Url, state: &str, user: &str, password: &str) -> Result<String, Failure> {
    let mut response = client.get(start).send().await.map_err(|error| unreachable_issuer(&error))?;
    let mut logged_in = false;
    for _ in 0..MOST_PAGES {
        if response.status().is_redirection() {
            let next = redirect_of(&response)?;
            if next.as_str().starts_with(secrets::REDIRECT) {
                return code_of(&next, state);
            }
            response = client.get(next).send().await.map_err(|error| unreachable_issuer(&error))?;
            continue;
        }
        let (status, page) = (response.status(), response.url().clone());
        let text = response.text().await.map_err(|error| unreachable_issuer(&error))?;
        let form = (status == StatusCode::OK && !logged_in).then(|| Form::find(&text)).flatten();
        let Some(mut form) = form else { return Err(refused(user, status, &text)) };
        form.fields.extend([("username".to_owned(), user.to_owned()), ("password".to_owned(), password.to_owned())]);
        let action = page.join(&form.action).map_err(Failure::other)?;
        response = client.post(action).form(&form.fields).send().await.map_err(|error| unreachable_issuer(&error))?;
        logged_in = true;
    }
    Err(Failure::other("the identity service redirects without end"))
}

fn redirect_of(response: &Response) -> Result<Url, Failure> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    response.url().join(location).map_err(Failure::other)
}

fn code_of(redirect: &Url, state: &str) -> Result<String, Failure> {
    let parameter =
        |name: &str| redirect.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if parameter("state").as_deref() != Some(state) {
        return Err(Failure::other("the identity service answered another request than this one"));
    }
    parameter("code").ok_or_else(|| {
        let error = parameter("error_description").or_else(|| parameter("error")).unwrap_or_default();
        Failure::other(format!("the identity service refuses: {error}"))
    })
}

fn refused(user: &str, status: StatusCode, page: &str) -> Failure {
    let answer: String = page.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    Failure::mendable(
        format!("the identity service did not log {user} in ({status}): {answer}"),
        "look with `berth logs identity`; after several wrong passwords it waits a while",
    )
}

fn unreachable_issuer(error: &reqwest::Error) -> Failure {
    let why = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let why: Vec<String> = why.map(ToString::to_string).collect();
    Failure::mendable(why.join(": "), "see with `berth status` whether the gateway and identity are ready")
}

async fn json<T: serde::de::DeserializeOwned>(response: reqwest::Result<Response>) -> Result<T, Failure> {
    let response = response.map_err(|error| unreachable_issuer(&error))?;
    let (status, url) = (response.status(), response.url().clone());
    if !status.is_success() {
        let body = response.text().await.unwrap_or_default();
        return Err(Failure::other(format!("{url} answered {status}: {body}")));
    }
    response.json().await.map_err(|error| unreachable_issuer(&error))
}

/// The first form of a page: where it goes, and its hidden fields.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Form {
    /// Enough HTML for a login page: a form, and inputs inside it.
    fn find(page: &str) -> Option<Self> {
        let form = page.split_once("<form")?.1;
        let (head, rest) = form.split_once('>')?;
        let body = rest.split_once("</form").map_or(rest, |(body, _)| body);
        let inputs = body.split("<input").skip(1).filter_map(|input| Some(input.split_once('>')?.0));
        let hidden = inputs.filter(|input| attribute(input, "type").as_deref() == Some("hidden"));
        let fields =
            hidden.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default())));
        Some(Self { action: attribute(head, "action").unwrap_or_default(), fields: fields.collect() })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
    let plain = [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#x27;", "'"),
        ("&#39;", "'"),
        ("&#x2F;", "/"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    Some(plain.iter().fold(value.to_owned(), |text, (entity, character)| text.replace(entity, character)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_form_is_found() {
        let page = r#"<html><form method="post" action="login?a=1&amp;b=2"><input type="hidden" name="csrf" value="x&quot;y">
            <input type="text" name="username"><input type="password" name="password"></form></html>"#;
        let expected = Form { action: "login?a=1&b=2".into(), fields: vec![("csrf".into(), "x\"y".into())] };
        assert_eq!(Form::find(page), Some(expected));
        assert_eq!(Form::find("<p>no form</p>"), None);
    }

    #[test]
    fn a_code_is_taken_only_for_our_own_request() {
        let url = |query: &str| Url::parse(&format!("http://127.0.0.1/callback?{query}")).unwrap();
        assert_eq!(code_of(&url("code=c&state=s"), "s").unwrap(), "c");
        assert!(code_of(&url("code=c&state=other"), "s").is_err());
        assert!(code_of(&url("error=access_denied&state=s"), "s").unwrap_err().to_string().contains("access_denied"));
    }
}
