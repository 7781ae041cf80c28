//! Query strings.

use axum::extract::FromRequestParts;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::{NUL, NUL_MESSAGE, shortened};
use crate::problem::{INVALID_PARAMETER, Problem};

/// The parameters of a query string; rejects with 400 naming the parameter. Whether unknown ones are refused is up to `T`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        decode(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let invalid = |name: &str, message: String| {
        INVALID_PARAMETER
            .detail("A query parameter is wrong.")
            .parameter(shortened(name.to_owned()), shortened(message))
    };
    let pairs = || form_urlencoded::parse(query.as_bytes());
    if let Some((name, _)) = pairs().find(|(name, value)| name.contains(NUL) || value.contains(NUL)) {
        return Err(invalid(&name, NUL_MESSAGE.into()));
    }
    // The parser above replaces what is no UTF-8, which would silently search for something else.
    if let Some(broken) = query.split('&').find(|pair| percent_decode_str(pair).decode_utf8().is_err()) {
        let name = broken.split('=').next().unwrap_or_default();
        return Err(invalid(name, "is not UTF-8 when percent-decoded".into()));
    }
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs())).map_err(|error| {
        let name = error.path().iter().find_map(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        });
        let message = error.inner().to_string();
        let name = name.or_else(|| quoted(&message)).unwrap_or_default();
        invalid(&name, message)
    })
}

/// serde names a missing parameter only in its message.
fn quoted(message: &str) -> Option<String> {
    message.split('`').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct Search {
        q: String,
        #[serde(default)]
        in_stock: Option<bool>,
        #[serde(default)]
        owner: Option<Uuid>,
        #[serde(default)]
        order: Option<Order>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Order {
        Name,
        Price,
    }

    #[test]
    fn each_wrong_parameter_is_named() {
        for (query, name) in [
            ("", "q"),
            ("q=a&in_stock=maybe", "in_stock"),
            ("q=a&owner=42", "owner"),
            ("q=a&order=colour", "order"),
            ("q=a&colour=red", "colour"),
            ("q=a&q=b", "q"),
            ("q=a%00", "q"),
            ("q=%ff", "q"),
        ] {
            let problem = decode::<Search>(query).unwrap_err();
            assert_eq!(problem.status(), 400);
            assert_eq!(problem.document()["errors"][0]["parameter"], name, "{query}: {}", problem.document());
        }
    }

    #[test]
    fn right_ones_are_read() {
        let search = decode::<Search>("q=caf%C3%A9+au+lait&in_stock=true&order=price").unwrap();
        assert_eq!(search.q, "café au lait");
        assert!(matches!(search.order, Some(Order::Price)));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(query in ".*") {
            let _ = decode::<Search>(&query);
        }
    }
}
