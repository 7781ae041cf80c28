//! Lists that are read page by page, each page continuing after the last item of the one before.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// Where a page continues: the sort key of the last item seen, opaque to clients.
///
/// The checksum tells a damaged or invented cursor from a real one. It is no signature: a cursor grants nothing, and what it
/// leads to is authorized like everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor<T>(pub T);

const CHECKSUM_BYTES: usize = 6;

/// No sort key of ours comes near this; longer text is not worth decoding.
const MAX_CURSOR_LENGTH: usize = 1024;

impl<T: Serialize> Cursor<T> {
    /// The text for the `cursor` parameter.
    ///
    /// # Errors
    /// When the key has no JSON form.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        let mut bytes = serde_json::to_vec(&self.0)?;
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl<T: DeserializeOwned> Cursor<T> {
    /// Reads what [`encode`](Self::encode) wrote; `None` for anything else.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR_LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (json, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(json) != *found {
            return None;
        }
        serde_json::from_slice(json).ok().map(Self)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    checksum
}

impl<T: Serialize> Serialize for Cursor<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode().map_err(serde::ser::Error::custom)?)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Cursor<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::decode(&text)
            .ok_or_else(|| de::Error::custom("not a cursor from an earlier answer: start again without one"))
    }
}

impl<T> PartialSchema for Cursor<T> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Where to continue: `next` of the page before. Opaque."))
            .max_length(Some(MAX_CURSOR_LENGTH))
            .into()
    }
}

impl<T> ToSchema for Cursor<T> {
    fn name() -> Cow<'static, str> {
        "Cursor".into()
    }
}

/// How many items a page may have: 1 to 100, 20 unless asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

const MAX_LIMIT: u16 = 100;

impl Limit {
    /// The number of items, for slices and vectors.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The `LIMIT` to query with: one row more than the page, which tells [`Page::of`] whether another page follows.
    pub fn rows(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(20)
    }
}

impl<'de> Deserialize<'de> for Limit {
    /// From a number or from text, because a query string has only text, even inside `#[serde(flatten)]`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Limit;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a whole number from 1 to {MAX_LIMIT}")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Limit, E> {
                match u16::try_from(number) {
                    Ok(limit @ 1..=MAX_LIMIT) => Ok(Limit(limit)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                let number = text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
                self.visit_u64(number)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("How many items the page may have."))
            .minimum(Some(1))
            .maximum(Some(MAX_LIMIT))
            .default(Some(Self::default().0.into()))
            .into()
    }
}

impl ToSchema for Limit {
    fn name() -> Cow<'static, str> {
        "Limit".into()
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// The `cursor` of the next page. Absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of the [`Limit::rows`] rows that were queried; `key` is what the next page continues after.
    ///
    /// # Errors
    /// When a key has no JSON form.
    pub fn of<K: Serialize>(
        mut rows: Vec<T>,
        limit: Limit,
        key: impl FnOnce(&T) -> K,
    ) -> Result<Self, serde_json::Error> {
        let more = rows.len() > limit.get();
        rows.truncate(limit.get());
        let next = rows.last().filter(|_| more).map(|last| Cursor(key(last)).encode()).transpose()?;
        Ok(Self { items: rows, next })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::extract::decode_query;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        cursor: Option<Cursor<(String, i64)>>,
        #[serde(default)]
        limit: Limit,
    }

    #[test]
    fn a_page_leads_to_the_next_and_the_last_to_none() {
        let limit = decode_query::<List>("limit=2").unwrap().limit;
        assert_eq!(limit.rows(), 3);
        let page = Page::of(vec![1, 2, 3], limit, |last| *last).unwrap();
        assert_eq!(page.items, [1, 2]);
        assert_eq!(Cursor::<i32>::decode(&page.next.unwrap()), Some(Cursor(2)));
        assert_eq!(Page::of(vec![1, 2], limit, |last| *last).unwrap().next, None);
        assert_eq!(Page::of(Vec::<i32>::new(), limit, |last| *last).unwrap().next, None);
    }

    #[test]
    fn limits_outside_their_range_are_refused_by_name() {
        assert_eq!(decode_query::<List>("").unwrap().limit, Limit(20));
        assert_eq!(decode_query::<List>("limit=100").unwrap().limit, Limit(100));
        for query in
            ["limit=0", "limit=101", "limit=-1", "limit=", "limit=1.5", "limit=99999999999999999999", "limit=a"]
        {
            let problem = decode_query::<List>(query).unwrap_err();
            assert_eq!(problem.document()["errors"][0]["parameter"], "limit", "{query}");
        }
    }

    #[test]
    fn a_damaged_cursor_is_refused_by_name() {
        let good = Cursor(("a".to_owned(), 7)).encode().unwrap();
        assert_eq!(decode_query::<List>(&format!("cursor={good}")).unwrap().cursor, Some(Cursor(("a".to_owned(), 7))));
        let other_type = Cursor(7).encode().unwrap();
        for bad in ["", "x", "!!!!", &good[1..], &format!("{good}A"), &other_type, &"A".repeat(5000)] {
            let problem = decode_query::<List>(&format!("cursor={bad}")).unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), &problem.document()["errors"][0]["parameter"]),
                (400, &"cursor".into()),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in ".{0,40}", number: i64) {
            let cursor = Cursor((name, number));
            prop_assert_eq!(Cursor::decode(&cursor.encode().unwrap()), Some(cursor));
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = Cursor::<(String, i64)>::decode(&text);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = Cursor::<serde_json::Value>::decode(&URL_SAFE_NO_PAD.encode(bytes));
        }

        #[test]
        fn a_changed_character_is_noticed(at in 0usize..20, to in "[A-Za-z0-9_-]") {
            let good = Cursor(("abcdefghij".to_owned(), 12345)).encode().unwrap();
            let mut bad = good.clone();
            bad.replace_range(at..=at, &to);
            prop_assume!(bad != good);
            prop_assert_eq!(Cursor::<(String, i64)>::decode(&bad), None);
        }
    }
}
