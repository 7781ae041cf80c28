//! Clients: what each may ask for, and where a user's browser may be sent for it.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

/// A way to get tokens (RFC 6749 §1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// A user signs in, and the client exchanges the code it is sent.
    AuthorizationCode,
    /// A client acts for itself.
    ClientCredentials,
    /// A client goes on for a user who has left.
    RefreshToken,
}

impl GrantType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AuthorizationCode, Self::ClientCredentials, Self::RefreshToken];

    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl FromStr for GrantType {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|grant| grant.name() == name).ok_or(())
    }
}

/// A program that asks for tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name.
    pub id: String,
    /// Argon2id, as a PHC string. `None`: a public client, which could not keep a secret.
    pub secret_hash: Option<String>,
    /// Where it may be answered.
    pub redirect_uris: Vec<String>,
    /// How it may get tokens.
    pub grants: BTreeSet<GrantType>,
    /// The most its tokens can.
    pub scopes: BTreeSet<String>,
    /// Its roles when it acts for itself.
    pub roles: BTreeSet<String>,
}

impl Client {
    /// Whether it has no secret to prove itself by.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.secret_hash.is_none()
    }

    /// Whether `uri` is one of its own, character for character; but the port of a loopback address is
    /// free, because a native application takes whichever it gets (RFC 8252 §7.3, RFC 9700 §2.1).
    #[must_use]
    pub fn has_registered(&self, uri: &str) -> bool {
        let asked = Loopback::parse(uri);
        self.redirect_uris
            .iter()
            .any(|registered| registered == uri || (asked.is_some() && Loopback::parse(registered) == asked))
    }
}

/// An `http` URI of a loopback address, without its port.
#[derive(PartialEq, Eq)]
struct Loopback<'a> {
    host: &'a str,
    /// Path and query.
    rest: &'a str,
}

impl<'a> Loopback<'a> {
    /// Compares text and nothing that was normalised, so that no two readings of one URI can differ.
    fn parse(uri: &'a str) -> Option<Self> {
        ["http://127.0.0.1", "http://[::1]"].into_iter().find_map(|host| {
            let rest = uri.strip_prefix(host)?;
            let rest = match rest.strip_prefix(':') {
                None => rest,
                Some(port) => {
                    let digits = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
                    let (port, rest) = port.split_at_checked(digits)?;
                    port.parse::<u16>().ok().filter(|port| *port != 0)?;
                    rest
                }
            };
            let ends_host = rest.is_empty() || rest.starts_with(['/', '?']);
            (ends_host && !rest.contains('#')).then_some(Self { host, rest })
        })
    }
}

/// Whether a redirect URI may be registered at all, and if not why.
///
/// # Errors
/// Says what would be right.
pub fn check_redirect_uri(uri: &str) -> Result<(), &'static str> {
    let url = Url::parse(uri).map_err(|_| "must be an absolute URI")?;
    if !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be plain ASCII without spaces");
    }
    if uri.contains('#') {
        return Err("must not have a fragment (RFC 6749 §3.1.2)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not name a user");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if Loopback::parse(uri).is_some() => Ok(()),
        "http" => Err("must be https, or http on 127.0.0.1 or [::1] for a native application (RFC 8252 §7.3)"),
        scheme if scheme.contains('.') => Ok(()),
        _ => Err(
            "must be https, or a scheme of the application's own with a dot in it, such as com.example.app (RFC 8252 §7.1)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(uri: &str) -> Client {
        Client {
            id: "c".to_owned(),
            secret_hash: None,
            redirect_uris: vec![uri.to_owned()],
            grants: BTreeSet::new(),
            scopes: BTreeSet::new(),
            roles: BTreeSet::new(),
        }
    }

    #[test]
    fn a_redirect_uri_matches_character_for_character() {
        let client = client("https://shop.test/callback?a=1");
        assert!(client.has_registered("https://shop.test/callback?a=1"));
        for other in [
            "",
            "https://shop.test/callback",
            "https://shop.test/callback?a=1&b=2",
            "https://shop.test/callback/?a=1",
            "https://SHOP.test/callback?a=1",
            "https://shop.test:443/callback?a=1",
            "https://shop.test/x/../callback?a=1",
            "https://shop.test/call%62ack?a=1",
            "https://shop.test.evil.test/callback?a=1",
            "https://evil.test/callback?a=1",
            "https://shop.test@evil.test/callback?a=1",
            "http://shop.test/callback?a=1",
            "https://shop.test/callback?a=1#x",
            "javascript:alert(1)",
        ] {
            assert!(!client.has_registered(other), "{other}");
        }
    }

    #[test]
    fn the_port_of_a_loopback_address_is_free_and_nothing_else_is() {
        let client = client("http://127.0.0.1/callback");
        for same in ["http://127.0.0.1/callback", "http://127.0.0.1:1/callback", "http://127.0.0.1:65535/callback"] {
            assert!(client.has_registered(same), "{same}");
        }
        for other in [
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:8a/callback",
            "http://127.0.0.1:8080/callback/",
            "http://127.0.0.1:8080/callback?x",
            "http://127.0.0.1:8080/callback#x",
            "http://127.0.0.1:8080",
            "http://127.0.0.1:80@evil.test/callback",
            "http://127.0.0.1.evil.test/callback",
            "http://127.0.0.1evil.test/callback",
            "http://127.0.0.2/callback",
            "http://127.1/callback",
            "http://localhost/callback",
            "http://[::1]:8080/callback",
            "https://127.0.0.1:8080/callback",
            "HTTP://127.0.0.1:8080/callback",
        ] {
            assert!(!client.has_registered(other), "{other}");
        }
    }

    #[test]
    fn what_may_be_registered() {
        for uri in [
            "https://shop.test/cb",
            "http://127.0.0.1/callback",
            "http://[::1]:80/",
            "com.example.app:/cb",
            "https://shop.test/cb?a=b",
        ] {
            assert_eq!(check_redirect_uri(uri), Ok(()), "{uri}");
        }
        for (uri, mend) in [
            ("", "absolute"),
            ("/callback", "absolute"),
            ("http://shop.test/cb", "https"),
            ("http://localhost/cb", "https"),
            ("https://shop.test/cb#x", "fragment"),
            ("https://user@shop.test/cb", "user"),
            ("https://shop.test/c b", "spaces"),
            ("https://shöp.test/", "ASCII"),
            ("myapp:/cb", "dot"),
            ("javascript:alert(1)", "dot"),
            ("data:text/html,x", "dot"),
        ] {
            assert!(check_redirect_uri(uri).unwrap_err().contains(mend), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_compared_without_a_panic(uri in "(http://127\\.0\\.0\\.1|http://\\[::1\\])?:?[0-9]{0,6}\\PC{0,40}") {
            let loopback = client("http://127.0.0.1/callback").has_registered(&uri);
            let expected = uri == "http://127.0.0.1/callback"
                || uri.strip_prefix("http://127.0.0.1:").and_then(|rest| rest.strip_suffix("/callback"))
                    .is_some_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port != 0));
            prop_assert_eq!(loopback, expected);
        }
    }
}
