//! Event subjects: `<domain>.<aggregate type>.<event>`, and the patterns over them that NATS knows.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::name::{InvalidName, text};

/// A pattern of event subjects: lower-case tokens separated by dots, `*` for any one token, `>` for one or more at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// Tokens of an event's subject: domain, aggregate type, event.
const TOKENS: usize = 3;

impl Subject {
    /// Checks `text`; a pattern that no event's subject can match is refused too.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let wrong = |why: String| Err(InvalidName::new(format!("`{text}` is not an event subject: {why}")));
        if text.len() > 200 {
            return wrong("it is longer than 200 characters".to_owned());
        }
        let tokens: Vec<&str> = text.split('.').collect();
        for (index, token) in tokens.iter().enumerate() {
            match *token {
                "" => return wrong("a part of it is empty".to_owned()),
                "*" => {}
                ">" if index + 1 == tokens.len() => {}
                ">" => return wrong("`>` may only be the last part".to_owned()),
                token => {
                    if let Some(stray) = token.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')) {
                        return wrong(format!("{stray:?} is not allowed"));
                    }
                }
            }
        }
        let open = tokens.last() == Some(&">");
        if tokens.len() > TOKENS || (tokens.len() < TOKENS && !open) {
            return wrong("an event's subject has three parts, <domain>.<aggregate type>.<event>".to_owned());
        }
        Ok(Self(text))
    }

    /// Whether some subject matches both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }

    /// The domain this pattern is about, unless it is about several.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.0.split('.').next().filter(|token| !matches!(*token, "*" | ">"))
    }

    /// Whether it takes aggregates whole, with every event of theirs: versions of an aggregate are only contiguous over all its events.
    pub(crate) fn takes_whole_aggregates(&self) -> bool {
        self.0.split('.').nth(TOKENS - 1).is_none_or(|event| matches!(event, "*" | ">"))
    }
}

text!(Subject);

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> Subject {
        Subject::new(text).unwrap()
    }

    #[test]
    fn a_pattern_must_be_able_to_match_an_event() {
        for text in ["items.>", "items.item.*", "items.item.created", "*.order.*", ">", "a.b.>", "credit-note.a_b.x1"] {
            assert!(Subject::new(text).is_ok(), "{text}");
        }
        for text in [
            "",
            ".",
            "items",
            "items.*",
            "items.item",
            "a.b.c.d",
            "a.b.c.>",
            "a.>.c",
            "a..c",
            "Items.>",
            "a.b*.c",
            "$JS.API.>",
            "a b.c.d",
        ] {
            assert!(Subject::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn overlap_is_symmetric_and_knows_both_wildcards() {
        for (a, b, expected) in [
            ("items.>", "items.item.created", true),
            ("items.item.*", "items.reservation.*", false),
            ("*.order.*", "documents.>", true),
            ("*.order.*", "documents.invoice.*", false),
            ("items.item.>", "items.item.*", true),
            (">", "a.b.c", true),
            ("a.b.c", "a.b.c", true),
            ("a.b.c", "a.b.d", false),
        ] {
            assert_eq!(subject(a).overlaps(&subject(b)), expected, "{a} {b}");
            assert_eq!(subject(b).overlaps(&subject(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_single_event_is_not_a_whole_aggregate() {
        assert!(subject("documents.stock.*").takes_whole_aggregates());
        assert!(subject("documents.>").takes_whole_aggregates());
        assert!(!subject("documents.order.placed").takes_whole_aggregates());
    }
}
