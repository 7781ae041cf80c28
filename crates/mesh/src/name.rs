//! Names: what a thing of the mesh is called, valid wherever the name ends up.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

impl InvalidName {
    pub(crate) fn new(problem: String) -> Self {
        Self(problem)
    }
}

/// The name of a service, instance, node, database, size, secret or mesh.
///
/// Lower-case ASCII letters, digits and single hyphens; a letter first, no hyphen last; at most 63 characters. So it is at once a
/// systemd unit name, a DNS label (RFC 1123), a container name, a PostgreSQL identifier, a JetStream stream name, a SPIFFE path
/// segment and, with `-` as `_`, an environment variable. A declared name has at most [`Name::MOST_DECLARED`] characters, which leaves room
/// for an instance's number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Characters a name may have.
    pub const MOST: usize = 63;
    /// Characters a name in `mesh.toml` may have.
    pub const MOST_DECLARED: usize = 48;

    /// Checks `text` against the rule above.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let wrong = |why: &str| Err(InvalidName(format!("`{text}` is not a valid name: {why}")));
        if text.is_empty() {
            return Err(InvalidName("a name cannot be empty".to_owned()));
        }
        if text.len() > Self::MOST {
            return wrong("it is longer than 63 characters");
        }
        if let Some(stray) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return wrong(&format!("{stray:?} is not allowed"));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return wrong("it must begin with a letter");
        }
        if text.ends_with('-') || text.contains("--") {
            return wrong("a hyphen stands between two letters or digits");
        }
        Ok(Self(text))
    }

    /// `item-management`, 2 → `item-management-2`. A declared name leaves room for any index.
    pub(crate) fn numbered(&self, index: u16) -> Self {
        Self(format!("{}-{index}", self.0))
    }

    /// Whether it looks like the `index`-th of something (`items-2`): such names belong to instances alone.
    pub(crate) fn is_numbered(&self) -> bool {
        self.0.rsplit_once('-').is_some_and(|(_, tail)| tail.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// `item-management` → `ITEM_MANAGEMENT`.
    pub(crate) fn as_variable(&self) -> String {
        self.0.to_ascii_uppercase().replace('-', "_")
    }
}

/// A DNS domain in lower case: the zone the nodes' hosts live in, and the SPIFFE trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// Leaves room for `<node>.` in front within the 253 characters of a DNS name.
    const MOST: usize = 180;

    /// Checks that `text` is dot-separated DNS labels (RFC 1123) in lower case.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > Self::MOST || !text.split('.').all(label) {
            return Err(InvalidName(format!("`{text}` is not a domain")));
        }
        Ok(Self(text))
    }
}

macro_rules! text {
    ($type:ident) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0
            }
        }

        impl Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
pub(crate) use text;

text!(Name);
text!(Domain);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_valid_wherever_it_ends_up() {
        for text in ["a", "item-management", "x1", "eshop-documents-db", "a-1"] {
            assert!(Name::new(text).is_ok(), "{text}");
        }
        for text in ["", "Items", "1a", "-a", "a-", "a--b", "a_b", "a.b", "ä", "a b", "a/b", &"a".repeat(64)] {
            assert!(Name::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_domain_is_labels_with_dots_between() {
        for text in ["eshop.internal", "localhost", "a.b-c.d1", "1.example"] {
            assert!(Domain::new(text).is_ok(), "{text}");
        }
        for text in ["", ".", "a..b", "a.", "A.b", "-a.b", "a_b.c", &"a.".repeat(100)] {
            assert!(Domain::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_number_at_the_end_makes_a_name_numbered() {
        let numbered = |text: &str| Name::new(text).unwrap().is_numbered();
        assert!(numbered("items-2") && numbered("a-b-10"));
        assert!(!numbered("items") && !numbered("items2") && !numbered("log4j-2x"));
    }
}
