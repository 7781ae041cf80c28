//! HTTP in, HTTP out. Pages for people stand in `pages`; what clients get wrong is answered as RFC 6749 §5.2 wants it
//! (`oauth`), everything else as a problem document.

mod authorize;
mod client_auth;
mod discovery;
mod forms;
mod logout;
mod oauth;
mod pages;
mod revoke;
mod token;
mod userinfo;

use std::sync::Arc;
use std::time::Duration;

use auth::access::{Issuer, JwksSource, TokenTypes, Verifier};
use auth::cedar::PolicyError;
use auth::jws::Algorithm;
use axum::response::Response;
use berth_http::problem::{self, Problem};
use cookie::{Cookie, SameSite};
use database::Database;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use runtime::clock::Clock;
use runtime::settings::Settings;
use runtime::telemetry::Metrics;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::grants::{GrantError, Grants};
use crate::keyring::{Keyring, OwnKeys};
use crate::logins::{LoginError, Logins};
use crate::metrics::Counters;
use crate::passwords::{PasswordError, Passwords};
use crate::policy::Policy;
use crate::secrets::MasterKeys;
use crate::tokens::Signer;

/// Where everything of this service lies below the public URL. It is part of the issuer's name.
pub const PREFIX: &str = "/identity";

/// When to try again what the database could not do.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What handlers need.
#[derive(Clone)]
pub struct App {
    database: Database,
    logins: Logins,
    grants: Grants,
    keyring: Arc<Keyring>,
    master: Arc<MasterKeys>,
    verifier: Arc<Verifier>,
    policy: Policy,
    issuer: Arc<str>,
    counters: Counters,
}

/// Something that this service is made of is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The issuer has no name without it.
    #[error("BERTH_PUBLIC_URL is not set: tokens carry it as their issuer")]
    NoPublicUrl,
    /// Sessions and codes must not travel in the clear.
    #[error("BERTH_PUBLIC_URL must begin with https://")]
    NotHttps,
    /// Access tokens are for nobody without it.
    #[error("BERTH_AUDIENCE is not set: access tokens carry it as their audience")]
    NoAudience,
    /// The policies.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl App {
    /// Puts the parts together.
    ///
    /// # Errors
    /// Names the setting that is missing or wrong, or what is wrong with the policies.
    pub fn new(
        settings: &Settings,
        database: Database,
        master: MasterKeys,
        passwords: Arc<Passwords>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, BuildError> {
        let public_url = settings.public_url.as_deref().ok_or(BuildError::NoPublicUrl)?;
        if !public_url.starts_with("https://") {
            return Err(BuildError::NotHttps);
        }
        let issuer: Arc<str> = format!("{public_url}{PREFIX}").into();
        let audience: Arc<str> = settings.audience.as_deref().ok_or(BuildError::NoAudience)?.into();
        let (master, policy) = (Arc::new(master), Policy::compile()?);
        let keyring = Arc::new(Keyring::new(master.clone(), clock.clone()));
        let own = Issuer {
            issuer: issuer.to_string(),
            audience: audience.to_string(),
            algorithms: vec![Algorithm::EdDsa],
            types: TokenTypes::AtJwt,
            roles_claim: "roles".to_owned(),
        };
        let keys: Box<dyn JwksSource> = Box::new(OwnKeys(keyring.clone()));
        let signer = Signer { issuer: issuer.clone(), audience, keyring: keyring.clone(), clock: clock.clone() };
        Ok(Self {
            logins: Logins { database: database.clone(), passwords, clock: clock.clone() },
            grants: Grants { database: database.clone(), policy: policy.clone(), signer, clock: clock.clone() },
            policy,
            verifier: Arc::new(Verifier::new([(own, keys)], clock.clone())),
            counters: Counters::register(metrics),
            database,
            keyring,
            master,
            issuer,
        })
    }

    /// The signing keys, to be turned.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "identity", description = "The mesh's own OpenID provider: OpenID Connect Core, code flow with PKCE; OAuth 2.0 under RFC 9700."),
    tags(
        (name = "metadata", description = "What clients and verifiers need to know."),
        (name = "people", description = "Pages for a browser."),
        (name = "tokens", description = "For clients. Errors are those of RFC 6749 §5.2."),
    ),
)]
struct Description;

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(discovery::discovery))
        .routes(routes!(discovery::jwks))
        .routes(routes!(authorize::authorize, authorize::authorize_by_form))
        .routes(routes!(authorize::login))
        .routes(routes!(logout::logout_page, logout::logout))
        .routes(routes!(pages::style))
        .routes(routes!(token::token))
        .routes(routes!(revoke::revoke))
        .routes(routes!(userinfo::userinfo, userinfo::userinfo_by_post))
}

/// The service's OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    operations().into_openapi()
}

/// The service's routes. Callers come with what the protocols have them show, not with a token of the mesh.
pub fn router(app: App) -> axum::Router {
    operations().with_state(app).split_for_parts().0
}

/// The cookie that holds a browser's session.
const SESSION_COOKIE: &str = "__Secure-identity-session";
/// The cookie that a form's proof is bound to.
const FORM_COOKIE: &str = "__Secure-identity-form";

fn cookie_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == name)
        .map(|cookie| cookie.value().to_owned())
}

/// A cookie of this service: not for scripts, not in the clear, and not for requests that another site's page makes.
fn own_cookie(name: &'static str, value: String) -> Cookie<'static> {
    Cookie::build((name, value)).path(PREFIX).secure(true).http_only(true).same_site(SameSite::Lax).build()
}

fn set_cookie(response: &mut Response, cookie: &Cookie<'_>) {
    // Names and values are ours: plain ASCII.
    if let Ok(value) = HeaderValue::try_from(cookie.to_string()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

fn database_problem(error: database::Error) -> Problem {
    if error.is_transient() {
        problem::UNAVAILABLE
            .detail("The database cannot be reached at the moment.")
            .retry_after(RETRY_AFTER)
            .caused_by(error)
    } else {
        Problem::internal(error)
    }
}

fn login_problem(error: LoginError) -> Problem {
    match error {
        LoginError::Wait(wait) => problem::TOO_MANY_REQUESTS.detail(wait.to_string()).retry_after(wait.0),
        LoginError::Password(PasswordError::Busy) => {
            problem::UNAVAILABLE.detail("Too many people sign in at the moment.").retry_after(RETRY_AFTER)
        }
        LoginError::Database(error) => database_problem(error),
        other => Problem::internal(other),
    }
}

fn grant_problem(error: GrantError) -> Problem {
    match error {
        GrantError::Database(error) => database_problem(error),
        GrantError::Sign(error) => {
            problem::UNAVAILABLE.detail("The signing keys are not known yet.").retry_after(RETRY_AFTER).caused_by(error)
        }
        other => Problem::internal(other),
    }
}
