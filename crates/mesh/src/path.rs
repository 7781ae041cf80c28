//! Paths in URLs, in the one form the gateway compares: normalised, so that equal paths are equal texts.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::name::{InvalidName, text};

/// An absolute URL path of unreserved characters (RFC 3986 §2.3): no `//`, no `.` or `..` segment, nothing to decode, and no slash
/// at the end unless it is all there is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlPath(String);

impl UrlPath {
    /// Checks `text` against the rule above. The error is one sentence for the person who wrote it.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let wrong = |why: &str| Err(InvalidName::new(format!("`{text}` is not a path: {why}")));
        let Some(rest) = text.strip_prefix('/') else {
            return wrong("it must begin with `/`");
        };
        if text.len() > 256 {
            return wrong("it is longer than 256 characters");
        }
        if rest.is_empty() {
            return Ok(Self(text));
        }
        for segment in rest.split('/') {
            if segment.is_empty() {
                return wrong("it has an empty segment, or a `/` at its end");
            }
            if segment == "." || segment == ".." {
                return wrong("`.` and `..` are not allowed");
            }
            if let Some(stray) =
                segment.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')))
            {
                return wrong(&format!("{stray:?} is not allowed"));
            }
        }
        Ok(Self(text))
    }

    /// Whether `path` is this path or lies below it: `/items` covers `/items` and `/items/7`, not `/items-old`.
    pub fn covers(&self, path: &str) -> bool {
        match path.strip_prefix(self.0.trim_end_matches('/')) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// This path with `below` appended: `/identity` + `/jwks` = `/identity/jwks`.
    pub(crate) fn join(&self, below: &str) -> Self {
        Self(format!("{}{below}", self.0.trim_end_matches('/')))
    }
}

text!(UrlPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_of_a_path_is_a_path() {
        for text in ["/", "/items", "/items/v1.2", "/.well-known/x~y_z"] {
            assert!(UrlPath::new(text).is_ok(), "{text}");
        }
        for text in ["", "items", "/items/", "//", "/a//b", "/a/../b", "/.", "/%41", "/a?b", "/a b", "/ä"] {
            assert!(UrlPath::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let items = UrlPath::new("/items").unwrap();
        assert!(items.covers("/items") && items.covers("/items/7"));
        assert!(!items.covers("/items-old") && !items.covers("/") && !items.covers("/item"));
        assert!(UrlPath::new("/").unwrap().covers("/anything"));
    }
}
