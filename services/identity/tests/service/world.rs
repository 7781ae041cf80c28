//! An identity service of the test's own, and browsers and clients to talk to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::access::{FetchError, Issuer, JwksSource, TokenTypes, Verifier};
use auth::jws::Algorithm;
use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use berth_http::server::Peer;
use bytes::Bytes;
use cookie::Cookie;
use database::Database;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use identity::api::{self, App};
use identity::bootstrap::Bootstrap;
use identity::passwords::Passwords;
use identity::secrets::MasterKeys;
use identity::store;
use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::settings::Settings;
use runtime::telemetry::Metrics;
use serde_json::{Value, json};
use testkit::{Postgres, TestDatabase};
use tls::SpiffeId;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use url::{Url, form_urlencoded};

pub const ISSUER: &str = "https://shop.test:8443/identity";
pub const AUDIENCE: &str = "https://shop.test";
pub const NOW: i64 = 1_800_000_000;

pub const ALICE: &str = "01890000-0000-7000-8000-00000000000a";
pub const PASSWORD: &str = "correct horse battery staple";
pub const SECRET: &str = "a secret of the web shop's own";

/// RFC 7636, appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub const REDIRECT: &str = "http://127.0.0.1:5555/callback";

pub fn declared() -> Value {
    json!({
        "users": [
            { "id": ALICE, "name": "alice", "password": PASSWORD, "roles": ["customer"] },
            { "id": "01890000-0000-7000-8000-00000000000b", "name": "Bob", "password": PASSWORD, "roles": [] },
        ],
        "clients": [
            { "id": "cli", "public": true, "redirect_uris": ["http://127.0.0.1/callback"],
              "grants": ["authorization_code", "refresh_token"], "scopes": ["openid", "offline_access", "profile", "shop"] },
            { "id": "other-cli", "public": true, "redirect_uris": ["http://127.0.0.1/callback"],
              "grants": ["authorization_code", "refresh_token"], "scopes": ["openid", "offline_access", "shop"] },
            { "id": "web", "secret": SECRET, "redirect_uris": ["https://web.test/cb?shop=1"],
              "grants": ["authorization_code"], "scopes": ["openid", "profile", "shop"] },
            { "id": "reporting", "secret": SECRET, "grants": ["client_credentials"], "scopes": ["shop", "openid", "offline_access"], "roles": ["auditor"] },
        ],
    })
}

pub struct World {
    pub postgres: Postgres,
    pub at: TestDatabase,
    pub database: Database,
    pub clock: Clock,
    pub passwords: Arc<Passwords>,
    pub app: App,
    pub router: Router,
}

/// An instance of the service on this database.
pub fn instance(database: &Database, clock: &Clock, passwords: &Arc<Passwords>, key: u8) -> App {
    let settings = Settings::from_vars([
        ("BERTH_SERVICE", "identity"),
        ("BERTH_INSTANCE", "identity-1"),
        ("BERTH_DOMAIN", "shop.test"),
        ("BERTH_LISTEN", "127.0.0.1:0"),
        ("BERTH_PUBLIC_URL", "https://shop.test:8443"),
        ("BERTH_AUDIENCE", AUDIENCE),
    ])
    .unwrap();
    let master = MasterKeys::derive(&[key; 32]).unwrap();
    App::new(&settings, database.clone(), master, passwords.clone(), clock, &Metrics::new()).unwrap()
}

/// A database with the schema and nothing else.
pub async fn empty_database() -> (Postgres, TestDatabase, Database) {
    let postgres = Postgres::start().await;
    let at = postgres.database("identity").await;
    let database = Database::at(&at.url, &at.password).unwrap();
    let (schema, table) = store::schema();
    database.migrate(schema, table, &CancellationToken::new()).await.unwrap();
    (postgres, at, database)
}

impl World {
    pub async fn start() -> Self {
        let (postgres, at, database) = empty_database().await;
        let clock = Clock::manual(Timestamp::from_second(NOW).unwrap());
        let passwords = Arc::new(Passwords::new().unwrap());
        let app = instance(&database, &clock, &passwords, 1);
        let router = api::router(app.clone());
        let world = Self { postgres, at, database, clock, passwords, app, router };
        world.declare(&declared()).await;
        world.app.keyring().turn(&world.database).await.unwrap();
        world
    }

    pub async fn declare(&self, document: &Value) {
        let bootstrap = Bootstrap::parse(document.to_string().as_bytes()).unwrap();
        bootstrap.apply(&self.database, &self.passwords, &self.clock).await.unwrap();
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(std::time::Duration::from_secs(seconds));
    }

    /// As it comes from the gateway.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        self.send(post("/identity/token", fields)).await
    }

    /// Tokens of alice for the public client.
    pub async fn tokens_of_alice(&self, scope: &str) -> Value {
        let code = self.code_of_alice(scope).await;
        let answer = self.exchange(&code).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()
    }

    pub async fn code_of_alice(&self, scope: &str) -> String {
        let mut browser = Browser::new(self, "192.0.2.1");
        let answer = browser.sign_in(&request("cli", REDIRECT, scope, ""), "alice", PASSWORD).await;
        answer.redirected("code")
    }

    pub async fn exchange(&self, code: &str) -> Answer {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", "cli"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        self.token(&fields).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.token(&[("grant_type", "refresh_token"), ("client_id", "cli"), ("refresh_token", token)]).await
    }

    pub async fn userinfo(&self, token: &str) -> Answer {
        let request = Request::get("/identity/userinfo").header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// The gateway's view: a verifier that has nothing but the published keys.
    pub fn verifier(&self) -> Verifier {
        let issuer = Issuer {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            algorithms: vec![Algorithm::EdDsa],
            types: TokenTypes::AtJwt,
            roles_claim: "roles".to_owned(),
        };
        let keys: Box<dyn JwksSource> = Box::new(Published(self.router.clone()));
        Verifier::new([(issuer, keys)], self.clock.clone())
    }
}

struct Published(Router);

impl JwksSource for Published {
    fn fetch(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>> {
        Box::pin(async {
            let request = Request::get("/identity/.well-known/jwks.json").body(Body::empty()).unwrap();
            Ok(send(&self.0, request).await.body.into())
        })
    }
}

pub async fn send(router: &Router, mut request: Request<Body>) -> Answer {
    request.extensions_mut().insert(Peer(SpiffeId::new("shop.test", "gateway").unwrap()));
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

pub fn post(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form(fields)))
        .unwrap()
}

pub fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

/// An authorization request; `more` is appended as it is.
pub fn request(client: &str, redirect_uri: &str, scope: &str, more: &str) -> String {
    let fields = [
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", redirect_uri),
        ("scope", scope),
        ("state", "a state & more"),
        ("nonce", "a nonce"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    format!("{}{more}", form(&fields))
}

/// What the service answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// One parameter of the redirect back to the client.
    pub fn redirected(&self, name: &str) -> String {
        self.redirect().remove(name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    pub fn redirect(&self) -> BTreeMap<String, String> {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        Url::parse(self.header("location")).unwrap().query_pairs().into_owned().collect()
    }

    /// The value of an input of the page's form.
    pub fn input(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let rest =
            self.body.split_once(&marker).unwrap_or_else(|| panic!("no {name}: {} {}", self.status, self.body)).1;
        rest.split_once('"')
            .unwrap()
            .0
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
    }

    /// The error of RFC 6749 §5.2.
    pub fn oauth_error(&self) -> (u16, String) {
        assert_eq!(self.header("cache-control"), "no-store");
        (self.status.as_u16(), self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// A browser: it keeps cookies and fills in forms.
pub struct Browser<'w> {
    world: &'w World,
    address: String,
    pub cookies: BTreeMap<String, String>,
}

impl<'w> Browser<'w> {
    pub fn new(world: &'w World, address: &str) -> Self {
        Self { world, address: address.to_owned(), cookies: BTreeMap::new() }
    }

    pub async fn send(&mut self, mut request: Request<Body>) -> Answer {
        let headers = request.headers_mut();
        headers.insert("accept", "text/html".parse().unwrap());
        headers.insert("x-forwarded-for", self.address.parse().unwrap());
        for (name, value) in &self.cookies {
            headers.append(header::COOKIE, format!("{name}={value}").parse().unwrap());
        }
        let answer = self.world.send(request).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = Cookie::parse(cookie.to_str().unwrap().to_owned()).unwrap();
            assert_eq!(
                (cookie.secure(), cookie.http_only(), cookie.path()),
                (Some(true), Some(true), Some("/identity"))
            );
            assert_eq!(cookie.same_site(), Some(cookie::SameSite::Lax));
            assert!(cookie.name().starts_with("__Secure-"));
            if cookie.max_age().is_some_and(|age| age.is_zero()) {
                self.cookies.remove(cookie.name());
            } else {
                self.cookies.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
        answer
    }

    pub async fn open(&mut self, query: &str) -> Answer {
        self.send(Request::get(format!("/identity/authorize?{query}")).body(Body::empty()).unwrap()).await
    }

    /// Sends the form of `page` with these fields besides the hidden ones.
    pub async fn submit(&mut self, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let (proof, request) = (page.input("proof"), page.input("request"));
        let mut all = vec![("proof", proof.as_str()), ("request", request.as_str())];
        all.extend(fields);
        self.send(post("/identity/login", &all)).await
    }

    pub async fn sign_in(&mut self, query: &str, username: &str, password: &str) -> Answer {
        let page = self.open(query).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        self.submit(&page, &[("username", username), ("password", password)]).await
    }
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The header of a token, unverified.
pub fn token_header(token: &str) -> Value {
    part(token, 0)
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
