//! The path of a request in its one normal form: what is matched is what is forwarded.
//!
//! Follows RFC 3986, §6.2.2: percent-encoded unreserved characters are decoded, other encodings are written in upper
//! case, dot segments are removed. Beyond it, empty segments are merged, and whatever two programs could read differently
//! is refused: an encoded slash, a backslash, control characters, a dot segment with parameters (`..;x`).

use std::borrow::Cow;

/// Why a path has no normal form here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not begin with a slash.
    #[error("the path must begin with a slash")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("a percent sign must be followed by two hexadecimal digits")]
    BadEncoding,
    /// `%2F`.
    #[error("an encoded slash is not allowed in a path")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("a backslash is not allowed in a path")]
    Backslash,
    /// A control character, encoded or not; NUL above all.
    #[error("a control character is not allowed in a path")]
    Control,
    /// A byte that must be percent-encoded in a URI.
    #[error("characters outside ASCII must be percent-encoded")]
    NotAscii,
    /// `.;x` or `..;x`: some servers take it for a dot segment, others do not.
    #[error("a dot segment must not have parameters")]
    AmbiguousDots,
}

/// The normal form. Borrows what has it already, as nearly every path has.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    if !path.starts_with('/') {
        return Err(InvalidPath::NotAbsolute);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    remove_dots(&decoded).map(Cow::Owned)
}

/// Whether the path is normal for reasons that are quickly seen.
fn is_plain(path: &[u8]) -> bool {
    let ordinary = |byte: &u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'%' | b'\\' | b';');
    path.iter().all(ordinary) && !path.array_windows().any(|pair: &[u8; 2]| matches!(pair, b"//" | b"/."))
}

/// Decodes unreserved characters, once, and refuses what must not stand in a path.
fn decode(path: &str) -> Result<String, InvalidPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = (bytes.next(), bytes.next());
                let (Some(high), Some(low)) = (hex(digits.0), hex(digits.1)) else {
                    return Err(InvalidPath::BadEncoding);
                };
                match high << 4 | low {
                    b'/' => return Err(InvalidPath::EncodedSlash),
                    b'\\' => return Err(InvalidPath::Backslash),
                    0..=0x1f | 0x7f => return Err(InvalidPath::Control),
                    unreserved if is_unreserved(unreserved) => decoded.push(char::from(unreserved)),
                    other => decoded.extend(['%', upper_hex(other >> 4), upper_hex(other & 0xf)]),
                }
            }
            b'\\' => return Err(InvalidPath::Backslash),
            0..=b' ' | 0x7f => return Err(InvalidPath::Control),
            0x80.. => return Err(InvalidPath::NotAscii),
            other => decoded.push(char::from(other)),
        }
    }
    Ok(decoded)
}

/// Removes dot segments (RFC 3986, §5.2.4) and empty ones. A path never climbs above its root.
fn remove_dots(path: &str) -> Result<String, InvalidPath> {
    let mut segments: Vec<&str> = Vec::new();
    // What follows the last slash; empty when the path ends with one.
    let mut last = "";
    for segment in path.split('/') {
        last = segment;
        match segment {
            "" | "." => last = "",
            ".." => {
                segments.pop();
                last = "";
            }
            _ if is_ambiguous(segment) => return Err(InvalidPath::AmbiguousDots),
            _ => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if last.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

fn is_ambiguous(segment: &str) -> bool {
    segment.split_once(';').is_some_and(|(name, _)| matches!(name, "." | ".."))
}

/// RFC 3986, §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

fn upper_hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_and_their_normal_forms() {
        for (path, normal) in [
            ("/", "/"),
            ("/items", "/items"),
            ("/items/", "/items/"),
            ("/items/42;v=1", "/items/42;v=1"),
            ("/%69tems/%7Ealice", "/items/~alice"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b%2bc", "/a%20b%2Bc"),
            ("//", "/"),
            ("//items///42//", "/items/42/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../items", "/items"),
            ("/items/./42", "/items/42"),
            ("/items/../documents", "/documents"),
            ("/items/%2e%2E/internal", "/internal"),
            ("/items/.%2e/internal", "/internal"),
            ("/items/42/..", "/items/"),
            ("/items/42/.", "/items/42/"),
            ("/items/...", "/items/..."),
            ("/items/.hidden", "/items/.hidden"),
            // Once decoded is decoded enough: a second time would be another path.
            ("/items/%252e%252e/x", "/items/%252e%252e/x"),
            ("/items/%252Fx", "/items/%252Fx"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn paths_without_one() {
        use InvalidPath::{AmbiguousDots, Backslash, BadEncoding, Control, EncodedSlash, NotAbsolute, NotAscii};
        for (path, why) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("items", NotAbsolute),
            ("/%", BadEncoding),
            ("/%4", BadEncoding),
            ("/%zz", BadEncoding),
            ("/%+1", BadEncoding),
            ("/items%2f..%2finternal", EncodedSlash),
            ("/items%2F42", EncodedSlash),
            ("/items\\..\\internal", Backslash),
            ("/items%5c42", Backslash),
            ("/items/%00", Control),
            ("/items/%0d%0aX-Role:%20admin", Control),
            ("/items/\u{7f}", Control),
            ("/a b", Control),
            ("/café", NotAscii),
            ("/items/..;/internal", AmbiguousDots),
            ("/items/%2e%2e;x=1/internal", AmbiguousDots),
            ("/items/.;a", AmbiguousDots),
        ] {
            assert_eq!(normalise(path), Err(why), "{path}");
        }
    }

    /// Paths made of the pieces that matter.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "%", "%2f", "%5c", "\\", "%00", ";", "a", "items", "internal",
            "%61", "%c3", "é", "?", "~", "%7e", "%25", "%252e", " ",
        ]);
        prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_normal_form(path in tricky()) {
            if let Ok(normal) = normalise(&path) {
                prop_assert_eq!(normalise(&normal), Ok(Cow::Borrowed(&*normal)));
            }
        }

        #[test]
        fn a_normal_form_never_escapes(path in tricky()) {
            if let Ok(normal) = normalise(&path) {
                prop_assert!(normal.starts_with('/'));
                prop_assert!(!normal.contains("//") && !normal.contains('\\'));
                for segment in normal.split('/') {
                    prop_assert!(!matches!(segment, "." | ".."), "{normal}");
                }
                let lower = normal.to_ascii_lowercase();
                prop_assert!(!["%2f", "%5c", "%00", "%2e", "%61"].iter().any(|encoded| lower.contains(encoded)), "{normal}");
                prop_assert!(normal.is_ascii());
            }
        }

        #[test]
        fn any_text_is_survived(path in ".*") {
            let _ = normalise(&path);
        }
    }
}
