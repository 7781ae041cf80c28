//! Pages for people: plain HTML that works without scripts, in any browser, with any screen reader.

use axum::response::{IntoResponse, Response};
use berth_http::problem::Problem;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;
use url::Url;

use super::NO_STORE;

/// What the sign-in form carries besides what the user types.
pub(super) struct FormContext<'a> {
    /// Proves that the form was made for this browser and this request.
    pub(super) proof: &'a str,
    /// The authorization request, as it came.
    pub(super) request: &'a str,
    /// Who asks.
    pub(super) client_id: &'a str,
    /// Where the answer goes. Browsers hold redirects after a form to the page's `form-action`, too.
    pub(super) redirect_uri: &'a str,
}

/// The page to sign in on.
pub(super) fn sign_in(context: &FormContext<'_>, status: StatusCode, username: &str, alert: Option<&str>) -> Response {
    let body = html! {
        h1 { "Sign in" }
        p { "to continue to " strong { (context.client_id) } }
        @if let Some(alert) = alert {
            p #alert role="alert" { (alert) }
        }
        form method="post" action="/identity/login" {
            (hidden(context))
            label for="username" { "User name" }
            input #username name="username" value=(username) autocomplete="username" autocapitalize="none" spellcheck="false"
                required autofocus[username.is_empty()] aria-describedby=[alert.map(|_| "alert")];
            label for="password" { "Password" }
            input #password type="password" name="password" autocomplete="current-password" required autofocus[!username.is_empty()];
            div .buttons {
                button type="submit" { "Sign in" }
                button .quiet type="submit" name="cancel" value="yes" formnovalidate { "Cancel" }
            }
        }
    };
    page(status, "Sign in", Some(context.redirect_uri), &body)
}

/// The page for somebody who has signed in already, to say that they mean it: a program on their own machine may pose as
/// another one (RFC 8252 §8.6).
pub(super) fn confirm(context: &FormContext<'_>, name: &str) -> Response {
    let body = html! {
        h1 { "Continue as " (name) "?" }
        p { strong { (context.client_id) } " wants to act for you. Continue only if you have just started it yourself." }
        form method="post" action="/identity/login" {
            (hidden(context))
            div .buttons {
                button type="submit" name="continue" value="yes" { "Continue" }
                button .quiet type="submit" name="switch" value="yes" { "Use another account" }
                button .quiet type="submit" name="cancel" value="yes" { "Cancel" }
            }
        }
    };
    page(StatusCode::OK, "Continue", Some(context.redirect_uri), &body)
}

/// The page to sign out on.
pub(super) fn sign_out(proof: &str) -> Response {
    let body = html! {
        h1 { "Sign out?" }
        p { "You will have to give your password again." }
        form method="post" action="/identity/logout" {
            input type="hidden" name="proof" value=(proof);
            div .buttons { button type="submit" { "Sign out" } }
        }
    };
    page(StatusCode::OK, "Sign out", None, &body)
}

/// The page after it.
pub(super) fn signed_out() -> Response {
    let body = html! {
        h1 { "Signed out" }
        p { "You can close this window." }
    };
    page(StatusCode::OK, "Signed out", None, &body)
}

/// A problem as its reader wants it: a page for a browser, a problem document for a program.
pub(super) fn problem(headers: &HeaderMap, problem: &Problem) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let document = problem.to_response();
    if !accept.contains("text/html") {
        return document.map(axum::body::Body::from);
    }
    let text = problem.document();
    let member = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let errors = text.get("errors").and_then(Value::as_array);
    let body = html! {
        h1 { (member(&text, "title")) }
        p role="alert" { (member(&text, "detail")) }
        @if let Some(errors) = errors {
            ul { @for error in errors { li { code { (member(error, "parameter")) } " " (member(error, "message")) } } }
        }
    };
    let mut page = page(document.status(), "Error", None, &body);
    if let Some(after) = document.headers().get(header::RETRY_AFTER) {
        page.headers_mut().insert(header::RETRY_AFTER, after.clone());
    }
    page
}

fn hidden(context: &FormContext<'_>) -> Markup {
    html! {
        input type="hidden" name="proof" value=(context.proof);
        input type="hidden" name="request" value=(context.request);
    }
}

fn page(status: StatusCode, title: &str, redirect_uri: Option<&str>, body: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href="/identity/style.css";
            }
            body { main { (body) } }
        }
    };
    let headers = [
        NO_STORE,
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy(redirect_uri)),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // The address of this page carries `state`: nobody else is told.
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (status, headers, markup.into_string()).into_response()
}

/// Nothing but the style sheet, and forms that lead nowhere else.
const STRICT: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

fn policy(redirect_uri: Option<&str>) -> HeaderValue {
    let target = redirect_uri.and_then(|uri| Url::parse(uri).ok()).map(|uri| match uri.origin() {
        origin if origin.is_tuple() => origin.ascii_serialization(),
        _ => format!("{}:", uri.scheme()),
    });
    target
        .and_then(|target| HeaderValue::try_from(format!("{STRICT} {target}")).ok())
        .unwrap_or(HeaderValue::from_static(STRICT))
}

/// How the pages look.
#[utoipa::path(
    get,
    path = "/identity/style.css",
    tag = "people",
    responses((status = 200, description = "The style sheet.", body = String, content_type = "text/css")),
)]
pub(super) async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("style.css")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_may_lead_to_where_the_answer_goes_and_nowhere_else() {
        for (uri, action) in [
            (None, "form-action 'self'"),
            (Some("http://127.0.0.1:5555/callback"), "form-action 'self' http://127.0.0.1:5555"),
            (Some("https://shop.test/cb?a=b"), "form-action 'self' https://shop.test"),
            (Some("com.example.app:/cb"), "form-action 'self' com.example.app:"),
        ] {
            let policy = policy(uri);
            let policy = policy.to_str().unwrap();
            assert!(policy.starts_with("default-src 'none';") && policy.ends_with(action), "{policy}");
            assert!(!policy.contains("script") && !policy.contains("unsafe"));
        }
    }

    #[test]
    fn what_others_wrote_stays_text() {
        let evil = r#""><script>alert(1)</script>"#;
        let context = FormContext { proof: evil, request: evil, client_id: evil, redirect_uri: "https://shop.test" };
        for response in [sign_in(&context, StatusCode::OK, evil, Some(evil)), confirm(&context, evil), sign_out(evil)] {
            let body = futures_executor(axum::body::to_bytes(response.into_body(), 100_000));
            let text = String::from_utf8(body.unwrap().to_vec()).unwrap();
            assert!(text.contains("&lt;script&gt;") && !text.contains("<script"), "{text}");
        }
    }

    fn futures_executor<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }
}
