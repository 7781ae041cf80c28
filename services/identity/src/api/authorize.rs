//! The authorization endpoint (RFC 6749 §3.1, OpenID Connect Core §3.1.2) and the sign-in form behind it.
//!
//! The form carries the whole request with it and is checked from scratch when it comes back, so nothing is kept for people
//! who never finish. What cannot be sent back to a client that was proved to be behind it is shown to the user instead.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use berth_http::problem::{self, Problem};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::form_urlencoded;
use utoipa::ToSchema;

use super::forms::{Form, FormError};
use super::pages::{self, FormContext};
use super::{
    App, FORM_COOKIE, NO_STORE, SESSION_COOKIE, cookie_of, database_problem, grant_problem, login_problem, own_cookie,
    set_cookie,
};
use crate::domain::authorization::{AuthorizationRequest, ErrorCode, Prompt, Refusal};
use crate::domain::client::Client;
use crate::domain::parameters::{MAX_VALUE, Parameters};
use crate::domain::{Session, User};
use crate::logins::{LoginError, Source};
use crate::policy::Purpose;
use crate::secrets::{CryptoError, Token};
use crate::store;

/// Asks a user to let a client act for them.
#[utoipa::path(
    get,
    path = "/identity/authorize",
    tag = "people",
    params(
        ("client_id" = String, Query, description = "Who asks."),
        ("redirect_uri" = String, Query, description = "Where the answer goes: one of the client's own, character for character; the port of a loopback address is free."),
        ("response_type" = String, Query, description = "Always `code`."),
        ("code_challenge" = String, Query, description = "The base64url SHA-256 of the `code_verifier` (RFC 7636)."),
        ("code_challenge_method" = String, Query, description = "Always `S256`."),
        ("scope" = Option<String>, Query, description = "What is asked for; `openid` for an ID token, `offline_access` for a refresh token."),
        ("state" = Option<String>, Query, description = "Given back as it came."),
        ("nonce" = Option<String>, Query, description = "Put into the ID token as it came."),
        ("prompt" = Option<String>, Query, description = "`none`, `login`, `consent` or `select_account`."),
        ("max_age" = Option<u64>, Query, description = "How many seconds ago the user may have signed in."),
        ("login_hint" = Option<String>, Query, description = "A user name to start the form with."),
    ),
    responses(
        (status = 200, description = "A page to sign in on, or to confirm on.", body = String, content_type = "text/html"),
        (status = 303, description = "Back to the client, with `code` or `error`, `state` and `iss` (RFC 9207)."),
        (status = 400, description = "The client or its redirect URI is not known, so there is nobody to send back to.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn authorize(State(app): State<App>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    app.ask(&headers, &query).await.unwrap_or_else(|error| pages::problem(&headers, &error))
}

/// An authorization request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct AuthorizationForm {
    /// Who asks. The other fields are the parameters of the same operation by GET.
    client_id: String,
}

/// The same by POST, as OpenID Connect wants it.
#[utoipa::path(
    post,
    path = "/identity/authorize",
    tag = "people",
    request_body(content = AuthorizationForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "A page to sign in on, or to confirm on.", body = String, content_type = "text/html"),
        (status = 303, description = "Back to the client, with `code` or `error`, `state` and `iss` (RFC 9207)."),
        (status = 400, description = "The client or its redirect URI is not known, so there is nobody to send back to.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no form.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn authorize_by_form(State(app): State<App>, headers: HeaderMap, Form(form): Form) -> Response {
    let answer = match form {
        Ok(parameters) => app.ask(&headers, &parameters.encode()).await,
        Err(error) => Err(error.into()),
    };
    answer.unwrap_or_else(|error| pages::problem(&headers, &error))
}

/// What the sign-in page sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct LoginForm {
    /// The authorization request, as it came.
    request: String,
    /// Proves that the form was made for this browser and this request.
    proof: String,
    /// The user's name.
    username: Option<String>,
    /// The user's password.
    password: Option<String>,
    /// Goes on as the user who has signed in already.
    r#continue: Option<String>,
    /// Asks for another user.
    switch: Option<String>,
    /// Goes back to the client with nothing.
    cancel: Option<String>,
}

/// Takes the answer to the sign-in page.
#[utoipa::path(
    post,
    path = "/identity/login",
    tag = "people",
    request_body(content = LoginForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The page again, for another account.", body = String, content_type = "text/html"),
        (status = 303, description = "Back to the client, with `code` or `error`, `state` and `iss` (RFC 9207)."),
        (status = 400, description = "The form, the client or its redirect URI is not good.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The page again: the name or the password is wrong, or the form is out of date.", body = String, content_type = "text/html"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no form.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The page again: too many wrong passwords; `Retry-After` says how long to wait.", body = String, content_type = "text/html"),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn login(State(app): State<App>, headers: HeaderMap, source: Source, Form(form): Form) -> Response {
    app.take_answer(&headers, &source, form).await.unwrap_or_else(|error| pages::problem(&headers, &error))
}

/// A request whose client and redirect URI are known: from here on the client can be answered.
struct Asked<'a> {
    /// As it came.
    encoded: &'a str,
    client: Client,
    redirect_uri: String,
    state: Option<String>,
    request: Result<AuthorizationRequest, Refusal>,
}

impl App {
    async fn read<'a>(&self, encoded: &'a str) -> Result<Asked<'a>, Problem> {
        if encoded.len() > MAX_VALUE {
            let detail = format!("The request must not be longer than {MAX_VALUE} bytes.");
            return Err(problem::MALFORMED_REQUEST.detail(detail));
        }
        let parameters = Parameters::parse(encoded.as_bytes())?;
        let required =
            |name: &'static str| parameters.get(name).ok_or_else(|| wrong_parameter(name, "must be there, once"));
        let (client_id, redirect_uri) = (required("client_id")?, required("redirect_uri")?);
        let db = self.database.get().await.map_err(database_problem)?;
        let client = store::find_client(&*db, client_id).await.map_err(database_problem)?;
        let client = client.ok_or_else(|| wrong_parameter("client_id", "is not known here"))?;
        self.policy
            .be_answered_at(&client, redirect_uri)
            .map_err(|_| wrong_parameter("redirect_uri", "is not one that was registered for this client"))?;
        let request = AuthorizationRequest::read(&parameters, &client, redirect_uri, &self.policy);
        let (redirect_uri, state) = (redirect_uri.to_owned(), parameters.get("state").map(str::to_owned));
        Ok(Asked { encoded, client, redirect_uri, state, request })
    }

    /// The first answer to a request: a page, or at once what the client asked for.
    async fn ask(&self, headers: &HeaderMap, encoded: &str) -> Result<Response, Problem> {
        let asked = self.read(encoded).await?;
        let request = match &asked.request {
            Ok(request) => request,
            Err(refusal) => return Ok(self.refuse(&asked, *refusal)),
        };
        let Some((session, user)) = self.session_for(headers, request).await? else {
            if request.prompt == Prompt::None {
                let refusal =
                    Refusal { code: ErrorCode::LoginRequired, description: "nobody has signed in, or too long ago" };
                return Ok(self.refuse(&asked, refusal));
            }
            let hint = request.login_hint.as_deref().unwrap_or_default();
            return self.form(headers, &asked, |context| pages::sign_in(context, StatusCode::OK, hint, None));
        };
        match (request.prompt, self.policy.lets_act_unasked(&user, &asked.client)) {
            (Prompt::None, false) => {
                let refusal = Refusal {
                    code: ErrorCode::InteractionRequired,
                    description: "a public client must let the user confirm",
                };
                Ok(self.refuse(&asked, refusal))
            }
            (Prompt::AsNeeded, false) | (Prompt::Confirm, _) => {
                self.form(headers, &asked, |context| pages::confirm(context, &user.name))
            }
            _ => self.answer(&asked, request, &session).await,
        }
    }

    /// What a user did with the page.
    async fn take_answer(
        &self,
        headers: &HeaderMap,
        source: &Source,
        form: Result<Parameters, FormError>,
    ) -> Result<Response, Problem> {
        let form = form?;
        let field = |name: &str| form.get(name).unwrap_or_default();
        let asked = self.read(field("request")).await?;
        let request = match &asked.request {
            Ok(request) => request,
            Err(refusal) => return Ok(self.refuse(&asked, *refusal)),
        };
        let username = field("username");
        let again = |status, alert: Option<&str>| {
            self.form(headers, &asked, |context| pages::sign_in(context, status, username, alert))
        };
        let cookie = cookie_of(headers, FORM_COOKIE).unwrap_or_default();
        let genuine = !cookie.is_empty() && self.master.is_form_proof(field("proof"), &cookie, asked.encoded);
        if self.policy.take_form(Purpose::SignIn, genuine).is_err() {
            return again(StatusCode::FORBIDDEN, Some("This form was out of date. Please try again."));
        }
        if form.get("cancel").is_some() {
            let refusal = Refusal { code: ErrorCode::AccessDenied, description: "the user did not want to" };
            return Ok(self.refuse(&asked, refusal));
        }
        if form.get("continue").is_some()
            && let Some((session, _)) = self.session_for(headers, request).await?
        {
            return self.answer(&asked, request, &session).await;
        }
        if form.get("continue").is_some() || form.get("switch").is_some() {
            return again(StatusCode::OK, None);
        }
        match self.logins.user(username, field("password"), source).await {
            Ok(Some(user)) => {
                self.counters.login("succeeded");
                self.sign_in(headers, &asked, request, &user).await
            }
            Ok(None) => {
                self.counters.login("wrong");
                again(StatusCode::FORBIDDEN, Some("The user name or the password is wrong."))
            }
            Err(LoginError::Wait(wait)) => {
                self.counters.login("too_many");
                let seconds = wait.0.as_secs().saturating_add(u64::from(wait.0.subsec_nanos() > 0)).max(1);
                let alert = format!("Too many wrong passwords. Please wait {seconds} s and try again.");
                let mut response = again(StatusCode::TOO_MANY_REQUESTS, Some(&alert))?;
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                Ok(response)
            }
            Err(error) => {
                self.counters.login("failed");
                Err(login_problem(error))
            }
        }
    }

    async fn sign_in(
        &self,
        headers: &HeaderMap,
        asked: &Asked<'_>,
        request: &AuthorizationRequest,
        user: &User,
    ) -> Result<Response, Problem> {
        // A new session each time: one that somebody planted before must not become the user's.
        if let Some(old) = cookie_of(headers, SESSION_COOKIE) {
            self.logins.close_session(&old).await.map_err(login_problem)?;
        }
        let (token, session) = self.logins.open_session(user).await.map_err(login_problem)?;
        let mut response = self.answer(asked, request, &session).await?;
        set_cookie(&mut response, &own_cookie(SESSION_COOKIE, token.expose().to_owned()));
        Ok(response)
    }

    async fn session_for(
        &self,
        headers: &HeaderMap,
        request: &AuthorizationRequest,
    ) -> Result<Option<(Session, User)>, Problem> {
        let Some(token) = cookie_of(headers, SESSION_COOKIE) else { return Ok(None) };
        let found = self.logins.session(&token).await.map_err(login_problem)?;
        Ok(found.filter(|(session, _)| request.accepts(session, self.grants.clock.now())))
    }

    /// A page with a form, and the cookie its proof is bound to. A cookie that is there stays: another tab may need it.
    fn form(
        &self,
        headers: &HeaderMap,
        asked: &Asked<'_>,
        page: impl FnOnce(&FormContext<'_>) -> Response,
    ) -> Result<Response, Problem> {
        let (cookie, is_new) = self.form_cookie(headers)?;
        let context = FormContext {
            proof: &self.master.form_proof(&cookie, asked.encoded),
            request: asked.encoded,
            client_id: &asked.client.id,
            redirect_uri: &asked.redirect_uri,
        };
        let mut response = page(&context);
        if is_new {
            set_cookie(&mut response, &own_cookie(FORM_COOKIE, cookie));
        }
        Ok(response)
    }

    /// The value of the form cookie, and whether the browser has yet to be given it.
    pub(super) fn form_cookie(&self, headers: &HeaderMap) -> Result<(String, bool), Problem> {
        match cookie_of(headers, FORM_COOKIE).filter(|value| !value.is_empty()) {
            Some(value) => Ok((value, false)),
            None => {
                let token = Token::generate().map_err(|error: CryptoError| Problem::internal(error))?;
                Ok((token.expose().to_owned(), true))
            }
        }
    }

    async fn answer(
        &self,
        asked: &Asked<'_>,
        request: &AuthorizationRequest,
        session: &Session,
    ) -> Result<Response, Problem> {
        let code = self.grants.issue_code(&asked.client, request, session).await.map_err(grant_problem)?;
        Ok(self.redirect(asked, &[("code", code.expose())]))
    }

    fn refuse(&self, asked: &Asked<'_>, refusal: Refusal) -> Response {
        self.redirect(asked, &[("error", refusal.code.name()), ("error_description", refusal.description)])
    }

    /// Back to the client: by 303, so that no browser sends the password along (RFC 9700 §4.12).
    fn redirect(&self, asked: &Asked<'_>, answer: &[(&str, &str)]) -> Response {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(answer)
            .extend_pairs(asked.state.iter().map(|state| ("state", state)))
            .append_pair("iss", &self.issuer)
            .finish();
        let separator = if asked.redirect_uri.contains('?') { '&' } else { '?' };
        let location = HeaderValue::try_from(format!("{}{separator}{query}", asked.redirect_uri));
        match location {
            Ok(location) => {
                let policy = (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                (StatusCode::SEE_OTHER, [NO_STORE, (header::LOCATION, location), policy]).into_response()
            }
            // Registered URIs are plain ASCII, so this is a row that did not come through this service.
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

fn wrong_parameter(name: &str, message: &str) -> Problem {
    problem::INVALID_PARAMETER
        .detail("The program that sent you here did not ask in the right way.")
        .parameter(name, message)
}
