//! The trace a request or message belongs to, as W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use std::{fmt, future::Future};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Which trace something belongs to and which step of it caused it: the contents of a `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The one flag of version 00: the caller recorded this trace.
const SAMPLED: u8 = 0x01;

impl TraceContext {
    /// The start of a new trace.
    #[expect(clippy::new_without_default, reason = "each one is different: a default would promise a fixed value")]
    pub fn new() -> Self {
        Self { trace_id: rand::random_range(1..=u128::MAX), span_id: random_span(), flags: SAMPLED }
    }

    /// Reads a `traceparent` header. `None` when it is not valid: the receiver then starts a new trace (§4.3).
    ///
    /// A later version is read as far as version 00 goes, as the specification asks for.
    pub fn parse(header: &str) -> Option<Self> {
        let (version, rest) = header.split_at_checked(2)?;
        let version = lower_hex(version)?;
        let fields = rest.strip_prefix('-')?;
        let (fields, extra) = fields.split_at_checked(32 + 1 + 16 + 1 + 2)?;
        let extra_allowed = version != 0 && extra.starts_with('-');
        if version == 0xff || !(extra.is_empty() || extra_allowed) {
            return None;
        }
        let mut fields = fields.split('-');
        let (trace_id, span_id, flags) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || trace_id.len() != 32 || span_id.len() != 16 {
            return None;
        }
        let (trace_id, span_id, flags) = (lower_hex(trace_id)?, lower_hex(span_id)?, lower_hex(flags)?);
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, flags: u8::try_from(flags).ok()? & SAMPLED })
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: random_span(), ..self }
    }

    /// The trace's identifier, 32 lower-case hexadecimal digits: what ties log lines of all services together.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// This step's identifier, 16 lower-case hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// The context of the request or message that the running task handles, see [`scope`](Self::scope).
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| *current).ok()
    }

    /// Runs `future` so that [`current`](Self::current) answers this context inside it.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }
}

fn random_span() -> u64 {
    rand::random_range(1..=u64::MAX)
}

/// `from_str_radix` alone would accept upper case and a sign.
fn lower_hex(digits: &str) -> Option<u128> {
    let valid = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(digits, 16).ok() } else { None }
}

impl fmt::Display for TraceContext {
    /// Writes the `traceparent` header.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let header = String::deserialize(deserializer)?;
        Self::parse(&header).ok_or_else(|| de::Error::custom("not a W3C traceparent"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_specification_calls_valid_is_read() {
        for header in [
            EXAMPLE,
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings",
        ] {
            let context = TraceContext::parse(header).unwrap_or_else(|| panic!("{header}"));
            assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(context.span_id(), "b7ad6b7169203331");
        }
    }

    #[test]
    fn what_the_specification_calls_invalid_is_not() {
        for header in [
            "",
            "00",
            "00-",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-+01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "0 -0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
    }

    #[test]
    fn a_child_stays_in_its_trace() {
        let parent = TraceContext::parse(EXAMPLE).unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.span_id(), parent.span_id());
    }

    #[tokio::test]
    async fn the_current_one_is_known_inside_its_scope_alone() {
        let context = TraceContext::new();
        assert_eq!(context.scope(async { TraceContext::current() }).await, Some(context));
        assert_eq!(TraceContext::current(), None);
    }

    #[test]
    fn as_json_it_is_its_header() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        let json = serde_json::to_string(&context).unwrap();
        assert_eq!(json, format!("\"{EXAMPLE}\""));
        assert_eq!(serde_json::from_str::<TraceContext>(&json).unwrap(), context);
        assert!(serde_json::from_str::<TraceContext>("\"nonsense\"").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(header in ".*") {
            let _ = TraceContext::parse(&header);
        }

        #[test]
        fn almost_valid_text_is_survived(header in "[0-9a-f]{2}-[0-9a-f]{30,34}-[0-9a-fé]{14,18}-[0-9a-f]{1,3}.{0,3}") {
            let _ = TraceContext::parse(&header);
        }

        #[test]
        fn what_is_written_is_read(_seed: u8) {
            let context = TraceContext::new();
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
    }
}
