//! Request bodies of HTML forms and of OAuth requests, and where they come from.

use axum::extract::{FromRequest, FromRequestParts, Request};
use berth_http::problem::{self, Problem};
use berth_http::server::Peer;
use http::request::Parts;
use http::{StatusCode, header};
use std::convert::Infallible;
use std::net::IpAddr;

use crate::domain::parameters::{MAX_VALUE, Parameters, Unreadable};
use crate::logins::Source;

/// The largest form. The sign-in form carries a whole authorization request, percent-encoded once more.
const MAX_BYTES: usize = 4 * MAX_VALUE;

/// The body of an `application/x-www-form-urlencoded` request, or why there is none. Each endpoint says so in its own way.
pub(super) struct Form(pub(super) Result<Parameters, FormError>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    #[error("the body must be application/x-www-form-urlencoded")]
    MediaType,
    #[error("the body is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the body could not be read")]
    Interrupted,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl FormError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Interrupted | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        let kind = match error {
            FormError::Unreadable(unreadable) => return unreadable.into(),
            FormError::MediaType => &problem::UNSUPPORTED_MEDIA_TYPE,
            FormError::TooLarge => &problem::PAYLOAD_TOO_LARGE,
            FormError::Interrupted => &problem::MALFORMED_REQUEST,
        };
        kind.detail(error.to_string())
    }
}

impl From<Unreadable> for Problem {
    fn from(unreadable: Unreadable) -> Self {
        let message = unreadable.to_string();
        match unreadable.parameter() {
            Some(name) => problem::INVALID_PARAMETER.detail("A parameter cannot be read.").parameter(name, message),
            None => problem::MALFORMED_REQUEST.detail(message),
        }
    }
}

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Self(read(request).await))
    }
}

async fn read(request: Request) -> Result<Parameters, FormError> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(FormError::MediaType);
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_BYTES).await.map_err(|error| {
        let too_large =
            std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if too_large { FormError::TooLarge } else { FormError::Interrupted }
    })?;
    Ok(Parameters::parse(&body)?)
}

/// Only the gateway is believed when it says for whom it speaks.
impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let gateway = parts.extensions.get::<Peer>().is_some_and(|Peer(peer)| peer.name() == "gateway");
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back().filter(|_| gateway);
        let address = forwarded
            .and_then(|value| value.to_str().ok())
            .and_then(|list| list.rsplit(',').next())
            .and_then(|last| last.trim().parse::<IpAddr>().ok());
        Ok(address.map_or_else(Source::mesh, Source::of))
    }
}
