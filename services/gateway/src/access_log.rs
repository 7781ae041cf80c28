//! One JSON line per request, in the shape of every other log line. Never a token, never a query: both hold secrets.
//!
//! Lines are put together where the request ends and written by a thread of their own, many at a time: a request does not
//! wait for stdout. When stdout is too slow for it, lines are dropped and counted.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use berth_http::server::Answering;
use http::{Method, Request, StatusCode, Version};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use runtime::trace::TraceContext;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    metrics::{GatewayMetrics, RouteMetrics},
    proxy::Place,
};

/// Lines that may wait to be written.
const QUEUE: usize = 8 * 1024;
/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;
/// How long the writing thread lets lines gather after the first: under load it then wakes up hundreds of times a second,
/// and not for each line.
const LINGER: Duration = Duration::from_millis(2);
/// How long the end of the process waits for the last lines to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// What is kept of a text that a client chooses.
const MAX_TEXT: usize = 512;

enum Message {
    Line(Vec<u8>),
    /// To be answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Where lines go.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: String,
    instance: String,
    lines: Option<SyncSender<Message>>,
    dropped: Counter,
}

impl AccessLog {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn stdout(service: &str, instance: &str, metrics: &GatewayMetrics) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&queue))?;
        Ok(Self::new(service, instance, metrics, Some(lines)))
    }

    /// Writes nothing; metrics are counted all the same.
    #[must_use]
    pub fn nowhere(service: &str, instance: &str, metrics: &GatewayMetrics) -> Self {
        Self::new(service, instance, metrics, None)
    }

    fn new(service: &str, instance: &str, metrics: &GatewayMetrics, lines: Option<SyncSender<Message>>) -> Self {
        let dropped = metrics.dropped_lines.clone();
        Self(Arc::new(Inner { service: service.to_owned(), instance: instance.to_owned(), lines, dropped }))
    }

    /// Waits, blocking the thread, until what was noted so far is written: the last thing a process does.
    pub fn flush(&self) {
        let Some(lines) = &self.0.lines else { return };
        let (done, written) = sync_channel(1);
        if lines.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }

    fn put(&self, line: &Line<'_>) {
        let Some(lines) = &self.0.lines else { return };
        let mut bytes = Vec::with_capacity(512);
        if serde_json::to_writer(&mut bytes, line).is_ok() {
            bytes.push(b'\n');
            if lines.try_send(Message::Line(bytes)).is_err() {
                self.0.dropped.inc();
            }
        }
    }
}

/// Ends when the last sender is gone.
fn write(queue: &Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = queue.recv() {
        if matches!(first, Message::Line(_)) {
            std::thread::sleep(LINGER);
        }
        let mut flushed = None;
        for message in std::iter::once(first).chain(queue.try_iter()) {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => flushed = Some(done),
            }
            if batch.len() >= BATCH || flushed.is_some() {
                break;
            }
        }
        let mut stdout = io::stdout().lock();
        // A closed stdout is nobody's business.
        let _ = stdout.write_all(&batch).and_then(|()| stdout.flush());
        batch.clear();
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    service: &'a str,
    instance: &'a str,
    target: &'static str,
    message: &'static str,
    trace_id: String,
    client: IpAddr,
    protocol: &'static str,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    status: u16,
    bytes_sent: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// Whether the client was gone before it had everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    aborted: bool,
}

/// What is noted of one request. Written, and counted, when it is dropped.
pub(crate) struct Entry(Box<Noted>);

struct Noted {
    log: AccessLog,
    started: Instant,
    route_metrics: RouteMetrics,
    client: IpAddr,
    version: Version,
    method: Method,
    host: String,
    path: String,
    route: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    principal: Option<Arc<auth::Principal>>,
    trace: TraceContext,
    status: Option<StatusCode>,
    problem: Option<&'static str>,
    error: Option<String>,
    bytes: u64,
    complete: bool,
    /// Both are given back with the entry.
    held: (Answering, Option<Place>),
}

impl Entry {
    pub(crate) fn begin<B>(
        log: &AccessLog,
        unrouted: &RouteMetrics,
        request: &Request<B>,
        client: IpAddr,
        answering: Answering,
        trace: TraceContext,
    ) -> Self {
        Self(Box::new(Noted {
            log: log.clone(),
            started: Instant::now(),
            route_metrics: unrouted.clone(),
            client,
            version: request.version(),
            method: request.method().clone(),
            host: String::new(),
            path: String::new(),
            route: None,
            upstream: None,
            principal: None,
            trace,
            status: None,
            problem: None,
            error: None,
            bytes: 0,
            complete: false,
            held: (answering, None),
        }))
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    pub(crate) fn trace(&self) -> TraceContext {
        self.0.trace
    }

    pub(crate) fn hold(&mut self, place: Place) {
        self.0.held.1 = Some(place);
    }

    pub(crate) fn asked(&mut self, host: &str, path: &str) {
        self.0.host = clipped(host).to_owned();
        self.0.path = clipped(path).to_owned();
    }

    pub(crate) fn routed(&mut self, prefix: &Arc<str>, service: &Arc<str>, metrics: &RouteMetrics) {
        self.0.route = Some(Arc::clone(prefix));
        self.0.upstream = Some(Arc::clone(service));
        self.0.route_metrics = metrics.clone();
    }

    pub(crate) fn known(&mut self, principal: &Arc<auth::Principal>) {
        self.0.principal = Some(Arc::clone(principal));
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.0.status = Some(status);
        // Nobody asks for the body.
        self.0.complete |= self.0.method == Method::HEAD;
    }

    pub(crate) fn refused(&mut self, problem: &'static str) {
        self.0.problem = Some(problem);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.0.bytes += bytes as u64;
    }

    pub(crate) fn broken(&mut self, error: &dyn std::error::Error) {
        self.0.error = Some(error.to_string());
        self.0.complete = true;
    }

    pub(crate) fn complete(&mut self) {
        self.0.complete = true;
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        // Without a status the client was gone before there was one. 499 is what others write for it.
        let status = self.status.map_or(499, |status| status.as_u16());
        self.route_metrics.observe(status, took);
        if self.log.0.lines.is_none() {
            return;
        }
        self.log.put(&Line {
            timestamp: format!("{:.6}", Timestamp::now()),
            level: "INFO",
            service: &self.log.0.service,
            instance: &self.log.0.instance,
            target: "access",
            message: "request",
            trace_id: self.trace.trace_id(),
            client: self.client,
            protocol: protocol(self.version),
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            route: self.route.as_deref(),
            upstream: self.upstream.as_deref(),
            subject: self.principal.as_deref().map(|principal| principal.subject.as_str()),
            status,
            bytes_sent: self.bytes,
            duration_ms: milliseconds(took),
            problem: self.problem,
            error: self.error.as_deref(),
            aborted: !self.complete,
        });
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP",
    }
}

fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use berth_http::server::Activity;
    use runtime::telemetry::Metrics;
    use serde_json::Value;

    use super::*;

    fn line(request: &str, note: impl FnOnce(&mut Entry)) -> Value {
        let metrics = GatewayMetrics::register(&Metrics::new());
        let (lines, queue) = sync_channel(1);
        let log = AccessLog::new("gateway", "gateway-1", &metrics, Some(lines));
        let request = Request::get(request).version(Version::HTTP_2).body(()).unwrap();
        let client = IpAddr::from([192, 0, 2, 1]);
        let answering = Activity::new().begin();
        let mut entry = Entry::begin(&log, &metrics.of_route(""), &request, client, answering, TraceContext::new());
        note(&mut entry);
        drop(entry);
        let Message::Line(line) = queue.recv().unwrap() else { panic!("no line") };
        let line = String::from_utf8(line).unwrap();
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn a_line_says_what_happened() {
        let mut trace = None;
        let line = line("https://shop/items?access_token=secret", |entry| {
            trace = Some(entry.trace());
            entry.asked("shop", "/items");
            entry.known(&Arc::new(auth::Principal::user("alice", ["customer"])));
            entry.answered(StatusCode::OK);
            entry.sent(40);
            entry.sent(2);
            entry.complete();
        });
        let expected = [
            ("level", Value::from("INFO")),
            ("service", "gateway".into()),
            ("instance", "gateway-1".into()),
            ("target", "access".into()),
            ("trace_id", trace.unwrap().trace_id().into()),
            ("client", "192.0.2.1".into()),
            ("protocol", "HTTP/2".into()),
            ("method", "GET".into()),
            ("host", "shop".into()),
            ("path", "/items".into()),
            ("subject", "alice".into()),
            ("status", 200.into()),
            ("bytes_sent", 42.into()),
        ];
        for (name, value) in expected {
            assert_eq!(line[name], value, "{name} in {line}");
        }
        assert!(line.get("aborted").is_none() && line.get("error").is_none());
        assert!(!line.to_string().contains("secret"), "the query stays out of it");
    }

    #[tokio::test]
    async fn whoever_leaves_early_is_seen_to() {
        let line = line("https://shop/items", |_| {});
        assert_eq!((&line["status"], &line["aborted"]), (&Value::from(499), &Value::from(true)));
    }

    #[tokio::test]
    async fn what_a_client_chooses_is_clipped_and_escaped() {
        let path = format!("/\"\u{7f}é{}", "é".repeat(1000));
        let line = line("https://shop/", |entry| entry.asked("shop", &path));
        assert!(line["path"].as_str().unwrap().len() <= MAX_TEXT);
        assert!(path.starts_with(line["path"].as_str().unwrap()));
    }
}
