//! Path parameters.

use axum::extract::{FromRequestParts, RawPathParams, path::ErrorKind, rejection::PathRejection};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::{NUL, NUL_MESSAGE, shortened};
use crate::problem::{INVALID_PARAMETER, Problem};

/// The parameters of the matched route; rejects with 400 naming the parameter.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let extracted = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let names = names(parts, state).await?;
        match extracted {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(problem(error.into_kind(), &names)),
            Err(error) => Err(Problem::internal(error)),
        }
    }
}

/// The names of the route's parameters, in order. Refuses values no text column could hold.
async fn names<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Vec<String>, Problem> {
    // Values that are no UTF-8 fail here as they do in the extractor, which names them.
    let Ok(raw) = RawPathParams::from_request_parts(parts, state).await else { return Ok(Vec::new()) };
    if let Some((name, _)) = raw.iter().find(|(_, value)| value.contains(NUL)) {
        return Err(invalid(name, NUL_MESSAGE.into()));
    }
    Ok(raw.iter().map(|(name, _)| name.to_owned()).collect())
}

fn problem(kind: ErrorKind, names: &[String]) -> Problem {
    let at = |index: usize| names.get(index).map_or("", String::as_str);
    match kind {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => {
            invalid(&key, format!("`{value}` is no {expected_type}"))
        }
        ErrorKind::ParseErrorAtIndex { index, value, expected_type } => {
            invalid(at(index), format!("`{value}` is no {expected_type}"))
        }
        ErrorKind::ParseError { value, expected_type } => invalid(at(0), format!("`{value}` is no {expected_type}")),
        ErrorKind::InvalidUtf8InPathParam { key } => invalid(&key, "is not UTF-8 when percent-decoded".into()),
        ErrorKind::DeserializeError { key, message, .. } => invalid(&key, message),
        // Without a key the type is not a struct: then the first parameter is the only one, or the best guess.
        ErrorKind::Message(message) => invalid(at(0), message),
        defect => Problem::internal(defect.to_string()),
    }
}

fn invalid(name: &str, message: String) -> Problem {
    INVALID_PARAMETER.detail("A parameter of the path is wrong.").parameter(name, shortened(message))
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt as _;
    use serde::Deserialize;
    use serde_json::Value;
    use tower::ServiceExt as _;
    use uuid::Uuid;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Named {
        item: Uuid,
        line: u32,
    }

    fn router() -> Router {
        Router::new()
            .route("/items/{id}", get(async |_: Path<Uuid>| "ok"))
            .route("/numbers/{number}", get(async |_: Path<u32>| "ok"))
            .route("/names/{name}", get(async |_: Path<String>| "ok"))
            .route("/pairs/{item}/{line}", get(async |_: Path<(Uuid, u32)>| "ok"))
            .route("/named/{item}/{line}", get(async |_: Path<Named>| "ok"))
            .route("/defect", get(async |_: Path<Uuid>| "ok"))
    }

    async fn get_document(path: &str) -> (u16, Value) {
        let response = router().oneshot(http::Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn each_wrong_parameter_is_named() {
        let id = Uuid::nil();
        for (path, name) in [
            ("/items/42".to_owned(), "id"),
            ("/items/%ff".to_owned(), "id"),
            ("/numbers/-1".to_owned(), "number"),
            ("/names/a%00b".to_owned(), "name"),
            (format!("/pairs/{id}/x"), "line"),
            ("/pairs/x/1".to_owned(), "item"),
            (format!("/named/{id}/x"), "line"),
            ("/named/x/1".to_owned(), "item"),
        ] {
            let (status, document) = get_document(&path).await;
            assert_eq!((status, &document["errors"][0]["parameter"]), (400, &name.into()), "{path}: {document}");
        }
    }

    #[tokio::test]
    async fn right_ones_pass_and_a_route_without_parameters_is_our_defect() {
        assert_eq!(get_document(&format!("/items/{}", Uuid::nil())).await.0, 200);
        assert_eq!(get_document("/defect").await.0, 500);
    }
}
