//! How a client proves that it is itself (RFC 6749 §2.3): with its secret in the `Authorization` header or in the form; or,
//! having none, not at all.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::App;
use super::oauth::OAuthError;
use crate::domain::client::Client;
use crate::domain::parameters::Parameters;
use crate::logins::{LoginError, Source};
use crate::store;

impl App {
    /// The client behind a request, proved as far as it can be.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        parameters: &Parameters,
        source: &Source,
    ) -> Result<Client, OAuthError> {
        let (id, secret) = credentials(headers, parameters)?;
        let client = self.find_client(&id).await?;
        match (secret, client) {
            (None, Some(client)) if client.is_public() => Ok(client),
            (None, _) => Err(OAuthError::invalid_client()),
            (Some(secret), client) => {
                let genuine = self.logins.client(&id, client.as_ref(), &secret, source).await?;
                client.filter(|_| genuine).ok_or_else(OAuthError::invalid_client)
            }
        }
    }

    async fn find_client(&self, id: &str) -> Result<Option<Client>, LoginError> {
        Ok(store::find_client(&*self.database.get().await?, id).await?)
    }
}

type Secret = Zeroizing<String>;

fn credentials(headers: &HeaderMap, parameters: &Parameters) -> Result<(String, Option<Secret>), OAuthError> {
    let in_form = parameters.get("client_id").map(str::to_owned);
    let secret_in_form = parameters.get("client_secret").map(|secret| Zeroizing::new(secret.to_owned()));
    let Some(header) = headers.get(header::AUTHORIZATION) else {
        let id = in_form.ok_or_else(OAuthError::invalid_client)?;
        return Ok((id, secret_in_form));
    };
    if secret_in_form.is_some() {
        return Err(OAuthError::invalid_request("the client must prove itself in one way, not in two"));
    }
    let (id, secret) = header.to_str().ok().and_then(basic).ok_or_else(OAuthError::invalid_client)?;
    if in_form.is_some_and(|in_form| in_form != id) {
        return Err(OAuthError::invalid_request("client_id is not the client of the Authorization header"));
    }
    Ok((id, Some(secret)))
}

/// RFC 6749 §2.3.1: both parts are form-urlencoded before they are put together as RFC 7617 has it.
fn basic(header: &str) -> Option<(String, Secret)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded =
        Zeroizing::new(STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?);
    let text = std::str::from_utf8(&decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |part: &str| -> Option<String> {
        let pair = format!("x={}", part.replace('&', "%26"));
        let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
        (!value.contains(['\0', '\u{fffd}'])).then(|| value.into_owned())
    };
    let (id, secret) = (decode(id)?, Zeroizing::new(decode(secret)?));
    (!id.is_empty() && !secret.is_empty()).then_some((id, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_decoded_twice() {
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (header, expected) in [
            (header("reporting:secret"), Some(("reporting", "secret"))),
            (header("a%3Ab:c%20d+e:f%26&"), Some(("a:b", "c d e:f&&"))),
            (header("reporting:secret").replace("Basic", "bASIC"), Some(("reporting", "secret"))),
            (header("reporting:secret").replace("Basic", "Bearer"), None),
            (header("reporting"), None),
            (header(":secret"), None),
            (header("reporting:"), None),
            (header("a%00:b"), None),
            (header("a%ff:b"), None),
            ("Basic !!!".to_owned(), None),
            ("Basic".to_owned(), None),
            (format!("Basic {}", STANDARD.encode([0xff, b':', b'x'])), None),
        ] {
            let found = basic(&header);
            let found = found.as_ref().map(|(id, secret)| (id.as_str(), secret.as_str()));
            assert_eq!(found, expected, "{header}");
        }
    }
}
