//! The parameters of an OAuth request, from a query or a form (RFC 6749 §3.1, §3.2): each at most once, an empty one as if
//! it were not there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use url::form_urlencoded;

/// The longest name or value of a parameter, in bytes; and, because the sign-in form carries the whole request in one of its
/// own, the longest request.
pub const MAX_VALUE: usize = 8192;
/// The most parameters a request may have.
const MAX_COUNT: usize = 64;
/// How much of a parameter's name an answer repeats.
const SHOWN: usize = 64;

/// The parameters of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
    repeated: BTreeSet<String>,
}

/// The parameters cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// More than 64.
    #[error("there are more than {MAX_COUNT} parameters")]
    TooMany,
    /// The name or the value of this one has more than 8192 bytes.
    #[error("the parameter {0} is longer than {MAX_VALUE} bytes")]
    TooLong(String),
    /// The name or the value of this one is not UTF-8, or has a NUL.
    #[error("the parameter {0} is not plain UTF-8 text")]
    NotText(String),
}

impl Unreadable {
    /// The parameter that is wrong, if it is one.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::TooMany => None,
            Self::TooLong(name) | Self::NotText(name) => Some(name),
        }
    }
}

impl Parameters {
    /// Reads `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// When it is too large or not text.
    pub fn parse(encoded: &[u8]) -> Result<Self, Unreadable> {
        let mut parameters = Self::default();
        for (count, (name, value)) in form_urlencoded::parse(encoded).enumerate() {
            if count >= MAX_COUNT {
                return Err(Unreadable::TooMany);
            }
            let shown = || name.chars().take(SHOWN).collect();
            if value.len() > MAX_VALUE || name.len() > MAX_VALUE {
                return Err(Unreadable::TooLong(shown()));
            }
            // The parser puts U+FFFD in the place of what is no UTF-8.
            if value.contains(['\0', '\u{fffd}']) || name.contains(['\0', '\u{fffd}']) {
                return Err(Unreadable::NotText(shown()));
            }
            if value.is_empty() {
                continue;
            }
            match parameters.values.entry(name.into_owned()) {
                Entry::Vacant(entry) => {
                    entry.insert(value.into_owned());
                }
                Entry::Occupied(entry) => {
                    parameters.repeated.insert(entry.key().clone());
                }
            }
        }
        Ok(parameters)
    }

    /// The parameters again, for sending on. Of one that stands there more than once both a value and the fact remain.
    #[must_use]
    pub fn encode(&self) -> String {
        let twice = self.repeated.iter().filter_map(|name| self.values.get_key_value(name));
        form_urlencoded::Serializer::new(String::new()).extend_pairs(self.values.iter().chain(twice)).finish()
    }

    /// The value of a parameter that stands there once.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        if self.repeated.contains(name) {
            return None;
        }
        self.values.get(name).map(String::as_str)
    }

    /// A parameter that stands there more than once.
    #[must_use]
    pub fn repeated(&self) -> Option<&str> {
        self.repeated.first().map(String::as_str)
    }
}

/// A list of words apart by single spaces (RFC 6749 §3.3). `None` when a character in it is not allowed.
#[must_use]
pub fn words(text: &str) -> Option<BTreeSet<String>> {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    text.split(' ').map(|word| (!word.is_empty() && word.bytes().all(allowed)).then(|| word.to_owned())).collect()
}

/// The same list as text.
#[must_use]
pub fn spaced(words: &BTreeSet<String>) -> String {
    words.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parameter_counts_once_and_an_empty_one_not_at_all() {
        let parameters = Parameters::parse(b"a=1&b=&c=x+y%26&d=1&d=2").unwrap();
        assert_eq!(parameters.get("a"), Some("1"));
        assert_eq!(parameters.get("b"), None);
        assert_eq!(parameters.get("c"), Some("x y&"));
        assert_eq!(parameters.get("d"), None);
        assert_eq!(parameters.repeated(), Some("d"));
    }

    #[test]
    fn what_is_too_much_or_not_text_is_refused() {
        let long = format!("a={}", "x".repeat(8193));
        let many: String = (0..65).map(|n| format!("a{n}=1&")).collect();
        for (encoded, expected) in [
            (long.as_bytes(), Unreadable::TooLong("a".into())),
            (many.as_bytes(), Unreadable::TooMany),
            (b"a=%ff", Unreadable::NotText("a".into())),
            (b"a=%00", Unreadable::NotText("a".into())),
        ] {
            assert_eq!(Parameters::parse(encoded), Err(expected));
        }
    }

    #[test]
    fn what_is_sent_on_is_what_came() {
        for encoded in ["", "a=1&b=x+y%26", "a=1&a=2&b=3"] {
            let parameters = Parameters::parse(encoded.as_bytes()).unwrap();
            assert_eq!(Parameters::parse(parameters.encode().as_bytes()).unwrap(), parameters, "{encoded}");
        }
    }

    #[test]
    fn words_are_apart_by_one_space() {
        for (text, count) in [
            ("openid", Some(1)),
            ("b a b", Some(2)),
            ("", None),
            ("a  b", None),
            (" a", None),
            ("a\"b", None),
            ("ä", None),
        ] {
            assert_eq!(words(text).map(|words| words.len()), count, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Parameters::parse(&bytes);
        }

        #[test]
        fn words_survive_the_way_there_and_back(list in prop::collection::btree_set("[!#-\\[\\]-~]{1,12}", 1..6)) {
            prop_assert_eq!(words(&spaced(&list)), Some(list));
        }
    }
}
