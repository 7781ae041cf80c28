//! What a client asks of a user at the authorization endpoint (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1), read
//! under RFC 9700: code flow alone, PKCE always.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::client::{Client, GrantType};
use super::parameters::{Parameters, words};
use super::pkce::Challenge;
use super::{OFFLINE_ACCESS, OPENID, Session, between};
use crate::policy::{Beneficiary, Policy};

/// A request that is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// Where the answer goes.
    pub redirect_uri: String,
    /// Given back as it came.
    pub state: Option<String>,
    /// What is asked for, all of it allowed to the client.
    pub scopes: BTreeSet<String>,
    /// What the exchange of the code must prove.
    pub challenge: Challenge,
    /// Goes into the ID token as it came.
    pub nonce: Option<String>,
    /// Whether the user must be asked.
    pub prompt: Prompt,
    /// How long ago the user may have signed in.
    pub max_age: Option<Duration>,
    /// A name to start the form with.
    pub login_hint: Option<String>,
}

/// Whether the user must, may or must not see a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// As needed.
    AsNeeded,
    /// The password is asked for even of somebody signed in.
    Login,
    /// A page at least to confirm by.
    Confirm,
    /// No page, whatever comes of it.
    None,
}

/// The error codes of an authorization response (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the standards")]
pub enum ErrorCode {
    InvalidRequest,
    UnauthorizedClient,
    AccessDenied,
    UnsupportedResponseType,
    InvalidScope,
    LoginRequired,
    InteractionRequired,
    RequestNotSupported,
    RequestUriNotSupported,
    RegistrationNotSupported,
}

impl ErrorCode {
    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::AccessDenied => "access_denied",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::LoginRequired => "login_required",
            Self::InteractionRequired => "interaction_required",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
            Self::RegistrationNotSupported => "registration_not_supported",
        }
    }
}

/// Why a request is refused, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For whoever writes the client.
    pub description: &'static str,
}

const fn refusal(code: ErrorCode, description: &'static str) -> Refusal {
    Refusal { code, description }
}

impl AuthorizationRequest {
    /// Reads a request of `client` whose redirect URI is known to be the client's own, as far as `policy` lets it ask.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(
        parameters: &Parameters,
        client: &Client,
        redirect_uri: &str,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        use ErrorCode as E;
        if parameters.repeated().is_some() {
            return Err(refusal(E::InvalidRequest, "a parameter stands there more than once"));
        }
        for (name, code) in [
            ("request", E::RequestNotSupported),
            ("request_uri", E::RequestUriNotSupported),
            ("registration", E::RegistrationNotSupported),
        ] {
            if parameters.get(name).is_some() {
                return Err(refusal(code, "this parameter is not supported; send the request's own parameters"));
            }
        }
        match parameters.get("response_type") {
            Some("code") => {}
            Some(_) => return Err(refusal(E::UnsupportedResponseType, "response_type must be code")),
            None => return Err(refusal(E::InvalidRequest, "response_type is missing; it must be code")),
        }
        policy
            .use_grant_type(client, GrantType::AuthorizationCode)
            .map_err(|_| refusal(E::UnauthorizedClient, "this client may not use the authorization code grant"))?;
        if parameters.get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(refusal(E::InvalidRequest, "response_mode must be query"));
        }
        if parameters.get("code_challenge_method") != Some("S256") {
            return Err(refusal(E::InvalidRequest, "code_challenge_method must be S256 (RFC 7636)"));
        }
        let challenge = parameters.get("code_challenge").and_then(Challenge::parse).ok_or(refusal(
            E::InvalidRequest,
            "code_challenge must be the base64url SHA-256 of the code_verifier (RFC 7636)",
        ))?;
        let max_age = match parameters.get("max_age").map(str::parse) {
            None => None,
            Some(Ok(seconds)) => Some(Duration::from_secs(seconds)),
            Some(Err(_)) => return Err(refusal(E::InvalidRequest, "max_age must be a number of seconds")),
        };
        let scopes = scopes(parameters.get("scope"), client)
            .filter(|scopes| policy.ask_for(client, Beneficiary::User, scopes).is_ok())
            .ok_or(refusal(E::InvalidScope, SCOPE))?;
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            state: parameters.get("state").map(str::to_owned),
            scopes,
            challenge,
            nonce: parameters.get("nonce").map(str::to_owned),
            prompt: prompt(parameters.get("prompt"))?,
            max_age,
            login_hint: parameters.get("login_hint").map(str::to_owned),
        })
    }

    /// Whether somebody who has signed in before need not give the password again.
    #[must_use]
    pub fn accepts(&self, session: &Session, now: Timestamp) -> bool {
        now < session.expires_at
            && self.prompt != Prompt::Login
            && self.max_age.is_none_or(|age| between(session.authenticated_at, now) <= age)
    }
}

/// What to say about a scope that is not allowed.
pub const SCOPE: &str = "scope must be a list of scopes this client may ask for, apart by single spaces";

/// The scopes asked for, if they can be read. Who asks for none asks for what the client can, but neither for a refresh token
/// nor for an ID token: those are asked for by name.
#[must_use]
pub fn scopes(asked: Option<&str>, client: &Client) -> Option<BTreeSet<String>> {
    match asked {
        None => {
            let unasked = |scope: &&String| *scope != OPENID && *scope != OFFLINE_ACCESS;
            Some(client.scopes.iter().filter(unasked).cloned().collect())
        }
        Some(asked) => words(asked),
    }
}

fn prompt(asked: Option<&str>) -> Result<Prompt, Refusal> {
    let Some(asked) = asked else { return Ok(Prompt::AsNeeded) };
    let asked: Vec<&str> = asked.split(' ').collect();
    if !asked.iter().all(|value| ["none", "login", "consent", "select_account"].contains(value)) {
        return Err(refusal(ErrorCode::InvalidRequest, "prompt must be of none, login, consent and select_account"));
    }
    match asked.as_slice() {
        ["none"] => Ok(Prompt::None),
        several if several.contains(&"none") => {
            Err(refusal(ErrorCode::InvalidRequest, "prompt none goes with nothing else"))
        }
        several if several.contains(&"login") => Ok(Prompt::Login),
        _ => Ok(Prompt::Confirm),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::after;
    use super::*;

    /// Compiled once: that takes longer than any question.
    static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::compile().unwrap());

    const GOOD: &str = "response_type=code&client_id=c&redirect_uri=https://shop.test/cb&scope=openid%20shop&state=s&nonce=n\
        &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";

    fn client() -> Client {
        let set = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Client {
            id: "c".to_owned(),
            secret_hash: None,
            redirect_uris: vec!["https://shop.test/cb".to_owned()],
            grants: [GrantType::AuthorizationCode].into(),
            scopes: set(&["openid", "offline_access", "profile", "shop"]),
            roles: BTreeSet::new(),
        }
    }

    fn read(query: &str) -> Result<AuthorizationRequest, Refusal> {
        let parameters = Parameters::parse(query.as_bytes()).unwrap();
        AuthorizationRequest::read(&parameters, &client(), "https://shop.test/cb", &POLICY)
    }

    fn changed(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        GOOD.replace(from, to)
    }

    #[test]
    fn a_request_in_order_is_read() {
        let request = read(&format!("{GOOD}&prompt=login&max_age=60&login_hint=alice")).unwrap();
        assert_eq!(request.scopes.iter().collect::<Vec<_>>(), ["openid", "shop"]);
        assert_eq!((request.state.as_deref(), request.nonce.as_deref()), (Some("s"), Some("n")));
        assert_eq!((request.prompt, request.max_age), (Prompt::Login, Some(Duration::from_secs(60))));
        assert_eq!(request.login_hint.as_deref(), Some("alice"));
    }

    #[test]
    fn each_fault_has_its_code() {
        use ErrorCode as E;
        for (query, expected) in [
            (changed("response_type=code", ""), E::InvalidRequest),
            (changed("response_type=code", "response_type=token"), E::UnsupportedResponseType),
            (changed("response_type=code", "response_type=code%20id_token"), E::UnsupportedResponseType),
            (changed("&code_challenge_method=S256", ""), E::InvalidRequest),
            (changed("S256", "plain"), E::InvalidRequest),
            (changed("S256", "s256"), E::InvalidRequest),
            (changed("code_challenge=E9", "code_challenge="), E::InvalidRequest),
            (changed("&code_challenge=", "&x="), E::InvalidRequest),
            (changed("scope=openid%20shop", "scope=openid%20admin"), E::InvalidScope),
            (changed("scope=openid%20shop", "scope=openid%20%20shop"), E::InvalidScope),
            (format!("{GOOD}&state=t"), E::InvalidRequest),
            (format!("{GOOD}&response_mode=fragment"), E::InvalidRequest),
            (format!("{GOOD}&request=x"), E::RequestNotSupported),
            (format!("{GOOD}&request_uri=https://evil.test"), E::RequestUriNotSupported),
            (format!("{GOOD}&registration=x"), E::RegistrationNotSupported),
            (format!("{GOOD}&prompt=none%20login"), E::InvalidRequest),
            (format!("{GOOD}&prompt=please"), E::InvalidRequest),
            (format!("{GOOD}&max_age=-1"), E::InvalidRequest),
            (format!("{GOOD}&max_age=99999999999999999999"), E::InvalidRequest),
        ] {
            assert_eq!(read(&query).map_err(|refusal| refusal.code), Err(expected), "{query}");
        }
        let parameters = Parameters::parse(GOOD.as_bytes()).unwrap();
        let machine = Client { grants: [GrantType::ClientCredentials].into(), ..client() };
        let refused = AuthorizationRequest::read(&parameters, &machine, "https://shop.test/cb", &POLICY);
        assert_eq!(refused.map_err(|refusal| refusal.code), Err(E::UnauthorizedClient));
    }

    #[test]
    fn who_asks_for_no_scope_gets_no_refresh_token() {
        let request = read(&changed("&scope=openid%20shop", "")).unwrap();
        assert_eq!(request.scopes.iter().collect::<Vec<_>>(), ["profile", "shop"]);
    }

    #[test]
    fn a_session_is_enough_while_it_is_fresh_and_nobody_asks_for_more() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let hour = Duration::from_secs(3600);
        let session = Session { user_id: uuid::Uuid::nil(), authenticated_at: now, expires_at: after(now, hour) };
        for (query, age, enough) in [
            (GOOD.to_owned(), 3599, true),
            (GOOD.to_owned(), 3600, false),
            (format!("{GOOD}&max_age=60"), 60, true),
            (format!("{GOOD}&max_age=60"), 61, false),
            (format!("{GOOD}&max_age=0"), 1, false),
            (format!("{GOOD}&prompt=login"), 0, false),
            (format!("{GOOD}&prompt=consent"), 10, true),
            (format!("{GOOD}&prompt=none"), 10, true),
        ] {
            let then = after(now, Duration::from_secs(age));
            assert_eq!(read(&query).unwrap().accepts(&session, then), enough, "{query} after {age} s");
        }
    }

    proptest! {
        #[test]
        fn any_value_of_any_parameter_is_read_or_refused(
            name in prop::sample::select(vec!["response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method", "prompt", "max_age", "x"]),
            value in "[^\\u{0}\\u{fffd}\\p{C}]{0,60}",
        ) {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            for (key, old) in url::form_urlencoded::parse(GOOD.as_bytes()).filter(|(key, _)| key != name) {
                query.append_pair(&key, &old);
            }
            let query = query.append_pair(name, &value).finish();
            if let Ok(request) = read(&query) {
                prop_assert!(request.scopes.is_subset(&client().scopes));
            }
        }
    }
}
