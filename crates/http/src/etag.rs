//! Entity tags (RFC 9110 §8.8.3) and the conditions made of them.

use std::{convert::Infallible, fmt};

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponseParts, ResponseParts},
};
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::problem::{INVALID_PARAMETER, PRECONDITION_FAILED, PRECONDITION_REQUIRED, Problem};

/// A strong entity tag. Ours are version numbers, `"7"`; foreign ones are carried as they are. As part of a response it
/// sets the `ETag` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// The tag of a thing's version.
    pub fn from_version(version: i64) -> Self {
        Self(version.to_string())
    }

    /// Whether the condition `If-Match` holds for a thing that has this tag.
    pub fn matches(&self, condition: &IfMatch) -> bool {
        match condition {
            IfMatch::Any => true,
            IfMatch::Etags(etags) => etags.contains(self),
        }
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

impl IntoResponseParts for Etag {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            response.headers_mut().insert(header::ETAG, value);
        }
        Ok(response)
    }
}

/// The condition of a write: the `If-Match` header (RFC 9110 §13.1.1). As an extractor it is required: without it the
/// answer is 428 (RFC 6585); `Option<IfMatch>` where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever the version, as long as there is one.
    Any,
    /// One of these. Weak tags are left out, because they never match here; so the list may be empty.
    Etags(Vec<Etag>),
}

impl IfMatch {
    /// Refuses with 412 a write that is not based on `version`.
    ///
    /// # Errors
    /// The problem, when the condition does not hold.
    pub fn require(&self, version: i64) -> Result<(), Problem> {
        if Etag::from_version(version).matches(self) {
            return Ok(());
        }
        Err(PRECONDITION_FAILED
            .detail("Somebody changed it since you read it: read it again, and send its new ETag in If-Match.")
            .request_header(&header::IF_MATCH, "is not the current entity tag"))
    }

    fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        match parse_header(headers, &header::IF_MATCH) {
            None => Ok(None),
            Some(Some(Condition::Any)) => Ok(Some(Self::Any)),
            Some(Some(Condition::Tags(tags))) => {
                Ok(Some(Self::Etags(tags.into_iter().filter(|tag| !tag.weak).map(|tag| Etag(tag.opaque)).collect())))
            }
            Some(None) => Err(INVALID_PARAMETER
                .detail("If-Match must be * or a list of entity tags.")
                .request_header(&header::IF_MATCH, "must be * or entity tags in double quotes, like \"7\"")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers)?.ok_or_else(|| {
            PRECONDITION_REQUIRED
                .detail("Say which version you change: send the ETag of your last read in If-Match.")
                .request_header(&header::IF_MATCH, "is required")
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Self::from_headers(&parts.headers)
    }
}

/// The condition of a read: the `If-None-Match` header (RFC 9110 §13.1.2), answered with 304 where it does not hold. A
/// malformed one is as good as none, since a full answer is never wrong.
#[derive(Clone, Debug)]
pub struct IfNoneMatch(Option<Condition>);

impl IfNoneMatch {
    /// Whether the client already holds this version. Weak comparison.
    pub fn holds(&self, etag: &Etag) -> bool {
        match &self.0 {
            None => false,
            Some(Condition::Any) => true,
            Some(Condition::Tags(tags)) => tags.iter().any(|tag| tag.opaque == etag.0),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parse_header(&parts.headers, &header::IF_NONE_MATCH).flatten()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Any,
    Tags(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    opaque: String,
    weak: bool,
}

/// Outer `None`: there is no such header. Inner `None`: it is malformed.
fn parse_header(headers: &HeaderMap, name: &HeaderName) -> Option<Option<Condition>> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let lines: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    Some(lines.and_then(|lines| parse(&lines.join(","))))
}

/// `"*" / #entity-tag`. A list may have empty elements (RFC 9110 §5.6.1.2), and must have one that is not.
fn parse(text: &str) -> Option<Condition> {
    let mut rest = text.trim_matches([' ', '\t']);
    if rest == "*" {
        return Some(Condition::Any);
    }
    let mut tags = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        let valid = opaque.bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'~'));
        rest = after.trim_start_matches([' ', '\t']);
        if !valid || !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
        tags.push(Tag { opaque: opaque.to_owned(), weak });
    }
    if tags.is_empty() { None } else { Some(Condition::Tags(tags)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn if_match(values: &[&str]) -> Result<Option<IfMatch>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        IfMatch::from_headers(&headers)
    }

    #[test]
    fn conditions_hold_for_the_versions_they_name() {
        for (values, holds_for_seven) in [
            (&["\"7\""] as &[&str], true),
            (&["*"], true),
            (&[" * "], true),
            (&["\"6\", \"7\""], true),
            (&["\"6\",\"7\","], true),
            (&["\"6\"", "\"7\""], true),
            (&["\"6\""], false),
            (&["W/\"7\""], false),
            (&["W/\"7\", \"7\""], true),
            (&["\"a,7\""], false),
            (&["\"\""], false),
        ] {
            let condition = if_match(values).unwrap().unwrap();
            assert_eq!(condition.require(7).is_ok(), holds_for_seven, "{values:?}");
        }
        assert_eq!(if_match(&["\"6\""]).unwrap().unwrap().require(7).unwrap_err().status(), 412);
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused_by_name() {
        for value in ["7", "\"7", "7\"", "\"7\" \"8\"", "", ",", "*, \"7\"", "\"a b\"", "w/\"7\"", "W/ \"7\"", "\"7\";"]
        {
            let problem = if_match(&[value]).unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), &problem.document()["errors"][0]["header"]),
                (400, &"if-match".into()),
                "{value:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_write_without_a_condition_is_refused() {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let problem = <IfMatch as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert_eq!(problem.status(), 428);
        assert_eq!(<IfMatch as OptionalFromRequestParts<()>>::from_request_parts(&mut parts, &()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_read_condition_compares_weakly_and_forgives() {
        for (value, holds) in [("\"7\"", true), ("W/\"7\"", true), ("*", true), ("\"8\"", false), ("nonsense", false)] {
            let (mut parts, ()) =
                http::Request::builder().header("if-none-match", value).body(()).unwrap().into_parts();
            let condition = IfNoneMatch::from_request_parts(&mut parts, &()).await.unwrap();
            assert_eq!(condition.holds(&Etag::from_version(7)), holds, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn lists_of_tags_are_read(versions in proptest::collection::vec((any::<i64>(), any::<bool>()), 1..8)) {
            let text: Vec<String> = versions.iter().map(|(version, weak)| format!("{}{}", if *weak { "W/" } else { "" }, Etag::from_version(*version))).collect();
            let tags = versions.iter().map(|(version, weak)| Tag { opaque: version.to_string(), weak: *weak }).collect();
            prop_assert_eq!(parse(&text.join(" , ")), Some(Condition::Tags(tags)));
        }
    }
}
