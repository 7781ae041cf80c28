//! Signing out (OpenID Connect RP-Initiated Logout 1.0). The user is always asked, and never sent anywhere afterwards.

use axum::extract::State;
use axum::response::Response;
use berth_http::problem::{self, Problem};
use cookie::Cookie;
use http::HeaderMap;
use utoipa::ToSchema;

use super::forms::{Form, FormError};
use super::{App, FORM_COOKIE, SESSION_COOKIE, cookie_of, login_problem, own_cookie, pages, set_cookie};
use crate::domain::parameters::Parameters;
use crate::policy::Purpose;

/// What the form's proof is bound to besides the browser.
const BOUND_TO: &str = "logout";

/// The page to sign out on.
#[utoipa::path(
    get,
    path = "/identity/logout",
    tag = "people",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(super) async fn logout_page(State(app): State<App>, headers: HeaderMap) -> Response {
    let (cookie, is_new) = match app.form_cookie(&headers) {
        Ok(cookie) => cookie,
        Err(error) => return pages::problem(&headers, &error),
    };
    let mut response = pages::sign_out(&app.master.form_proof(&cookie, BOUND_TO));
    if is_new {
        set_cookie(&mut response, &own_cookie(FORM_COOKIE, cookie));
    }
    response
}

/// What that page sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct LogoutForm {
    /// Proves that the form was made for this browser.
    proof: String,
}

/// Signs the browser out.
#[utoipa::path(
    post,
    path = "/identity/logout",
    tag = "people",
    request_body(content = LogoutForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Done, or the page to confirm on.", body = String, content_type = "text/html"),
        (status = 400, description = "The form is not good.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The form was not made for this browser.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no form.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn logout(State(app): State<App>, headers: HeaderMap, Form(form): Form) -> Response {
    app.sign_out(&headers, form).await.unwrap_or_else(|error| pages::problem(&headers, &error))
}

impl App {
    async fn sign_out(&self, headers: &HeaderMap, form: Result<Parameters, FormError>) -> Result<Response, Problem> {
        let form = form?;
        let cookie = cookie_of(headers, FORM_COOKIE).unwrap_or_default();
        let proof = form.get("proof").unwrap_or_default();
        let genuine = !cookie.is_empty() && self.master.is_form_proof(proof, &cookie, BOUND_TO);
        self.policy.take_form(Purpose::SignOut, genuine).map_err(|_| {
            problem::FORBIDDEN.detail("This form was out of date. Go back, reload the page and try again.")
        })?;
        if let Some(session) = cookie_of(headers, SESSION_COOKIE) {
            self.logins.close_session(&session).await.map_err(login_problem)?;
        }
        let mut response = pages::signed_out();
        let mut gone: Cookie<'_> = own_cookie(SESSION_COOKIE, String::new());
        gone.make_removal();
        set_cookie(&mut response, &gone);
        Ok(response)
    }
}
