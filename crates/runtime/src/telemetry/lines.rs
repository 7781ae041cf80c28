//! Log lines: a `tracing` layer that writes one flat JSON object an event.

use std::{error::Error, fmt, io::Write as _};

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::{
    fmt::MakeWriter,
    layer::{Context, Layer},
    registry::LookupSpan,
};

use crate::trace::TraceContext;

/// What every line begins with. A field of the same name gets an underscore, so that no key stands twice.
const RESERVED: [&str; 6] = ["timestamp", "level", "service", "instance", "target", MESSAGE];
const MESSAGE: &str = "message";
const TRACE_ID: &str = "trace_id";

pub(super) struct JsonLines<W> {
    service: String,
    instance: String,
    writer: W,
}

impl<W> JsonLines<W> {
    pub(super) fn new(service: &str, instance: &str, writer: W) -> Self {
        Self { service: service.to_owned(), instance: instance.to_owned(), writer }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_span.0.iter().for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        event.record(&mut fields);
        if let Some(trace) = TraceContext::current().filter(|_| !fields.contains(TRACE_ID)) {
            fields.set(TRACE_ID, trace.trace_id().into());
        }
        // An event that came through the `log` crate names its true origin in fields.
        let origin = event.normalized_metadata();
        if origin.is_some() {
            fields.0.retain(|(name, _)| !name.starts_with("log."));
        }
        let metadata = origin.as_ref().unwrap_or_else(|| event.metadata());
        let line = Line { service: &self.service, instance: &self.instance, metadata, fields: &fields };
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            // One write a line, so that lines of different threads do not mix; a closed stdout is nobody's business.
            let _ = self.writer.make_writer_for(event.metadata()).write_all(&bytes);
        }
    }
}

struct Line<'a> {
    service: &'a str,
    instance: &'a str,
    metadata: &'a Metadata<'a>,
    fields: &'a Fields,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("timestamp", &format_args!("{:.6}", Timestamp::now()))?;
        line.serialize_entry("level", self.metadata.level().as_str())?;
        line.serialize_entry("service", self.service)?;
        line.serialize_entry("instance", self.instance)?;
        line.serialize_entry("target", self.metadata.target())?;
        if let Some(message) = self.fields.get(MESSAGE) {
            line.serialize_entry(MESSAGE, message)?;
        }
        for (name, value) in self.fields.0.iter().filter(|(name, _)| *name != MESSAGE) {
            if RESERVED.contains(name) {
                line.serialize_entry(&format_args!("{name}_"), value)?;
            } else {
                line.serialize_entry(name, value)?;
            }
        }
        line.end()
    }
}

/// Fields in the order they were first set; an inner value replaces an outer one of the same name.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    /// With its causes: the outermost text alone seldom says what happened.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error: &&(dyn Error + 'static)| (*error).source());
        let texts: Vec<String> = causes.map(ToString::to_string).collect();
        self.set(field.name(), texts.join(": ").into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> (String, Vec<Value>) {
        let captured = Captured::default();
        let writer = captured.clone();
        let lines = JsonLines::new("items", "items-1", move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let values = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (text, values)
    }

    #[test]
    fn a_line_carries_who_where_and_the_fields_of_its_spans() {
        let (text, lines) = logged(|| {
            let outer = tracing::info_span!("request", trace_id = "abc", status = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("status", 201);
            tracing::info_span!("inner", attempt = 2)
                .in_scope(|| tracing::warn!(done = true, ratio = 0.5, "it said \"no\"\nand left"));
        });
        assert_eq!(text.lines().count(), 1);
        let line = &lines[0];
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{line}");
        assert_eq!(line["level"], "WARN");
        assert_eq!((&line["service"], &line["instance"]), (&"items".into(), &"items-1".into()));
        assert_eq!(line["target"], module_path!());
        assert_eq!(line["message"], "it said \"no\"\nand left");
        assert_eq!((&line["trace_id"], &line["status"], &line["attempt"]), (&"abc".into(), &201.into(), &2.into()));
        assert_eq!((&line["done"], &line["ratio"]), (&true.into(), &0.5.into()));
        assert!(text.starts_with("{\"timestamp\":") && text.find("\"message\"") < text.find("\"trace_id\""), "{text}");
    }

    #[test]
    fn a_library_that_logs_is_named_itself() {
        use tracing_log::log::{Level, Record};
        let (text, lines) = logged(|| {
            let mut record = Record::builder();
            record.args(format_args!("it leaks")).target("tank").level(Level::Warn);
            tracing_log::format_trace(&record.build()).unwrap();
        });
        assert_eq!((&lines[0]["target"], &lines[0]["message"]), (&"tank".into(), &"it leaks".into()));
        assert!(!text.contains("log."), "{text}");
    }

    #[test]
    fn no_key_stands_twice() {
        let (text, lines) = logged(|| {
            let _span = tracing::info_span!("outer", id = 1, level = "deep").entered();
            tracing::info!(id = 2, service = "other", "x");
        });
        assert_eq!(lines[0]["id"], 2);
        assert_eq!(
            (&lines[0]["service"], &lines[0]["service_"], &lines[0]["level_"]),
            (&"items".into(), &"other".into(), &"deep".into())
        );
        assert_eq!(text.matches("\"id\"").count(), 1);
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("the pool is closed")]
        struct Outer(#[source] io::Error);
        let (_, lines) = logged(|| {
            let error = Outer(io::Error::other("connection refused"));
            tracing::error!(error = &error as &(dyn Error + 'static), "no database");
        });
        assert_eq!(lines[0]["error"], "the pool is closed: connection refused");
    }

    #[test]
    fn the_running_trace_is_named_without_a_span() {
        let trace = TraceContext::new();
        let (_, lines) = logged(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(trace.scope(async { tracing::info!("consumed") }));
        });
        assert_eq!(lines[0]["trace_id"], trace.trace_id());
    }
}
