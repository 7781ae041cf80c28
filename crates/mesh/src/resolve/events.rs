//! The event bus: a stream for each service that emits, a durable consumer for each that consumes, and for each of both a user that may
//! do exactly what its client library does for that and nothing else.
//!
//! The API subjects are those of JetStream (NATS architecture decisions ADR-1, ADR-10, ADR-15) as async-nats forms them: a consumer with one
//! filter is created on a subject that ends in the filter, which the server holds against the request; one with several is not.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::declaration::{Declaration, Service};
use crate::diagnostics::{Finding, Findings, Rule, did_you_mean};
use crate::name::Name;
use crate::plan::{Consumer, EventUser, Stream};
use crate::read::Entry;
use crate::subject::Subject;

/// The streams and users of the event bus.
#[derive(Debug, Default)]
pub(super) struct Bus {
    pub(super) streams: Vec<Stream>,
    pub(super) users: Vec<EventUser>,
}

impl Bus {
    pub(super) fn new(declaration: &Declaration, findings: &mut Findings) -> Self {
        check_bus_exists(declaration, findings);
        let mut streams = streams(declaration, findings);
        for service in declaration.services.iter() {
            subscribe(service, &mut streams, findings);
        }
        let users = declaration
            .services
            .iter()
            .filter(|service| service.body.uses_events())
            .map(|service| user(service, &streams));
        Self { users: users.collect(), streams: streams.all }
    }

    /// What a service consumes of which stream: `items=items.item.*,items.reservation.* documents=documents.>`.
    pub(super) fn consumed_by(&self, service: &Name) -> String {
        let of_stream = |stream: &Stream| {
            let consumer = stream.consumers.iter().find(|consumer| consumer.name == *service)?;
            let filters: Vec<&str> = consumer.filters.iter().map(Subject::as_str).collect();
            Some(format!("{}={}", stream.name, filters.join(",")))
        };
        self.streams.iter().filter_map(of_stream).collect::<Vec<_>>().join(" ")
    }
}

fn check_bus_exists(declaration: &Declaration, findings: &mut Findings) {
    if declaration.events.is_some() {
        return;
    }
    for service in declaration.services.iter() {
        if let Some(subject) = service.body.emits.iter().chain(&service.body.consumes).next() {
            let finding =
                Finding::new(Rule::NoEvents, format!("`{}` has events, but the mesh has no event bus", service.name))
                    .at(subject.span(), "goes nowhere")
                    .help("declare it with `[events]`, and add \"nats\" to `runs` of a node");
            findings.push(finding);
        }
    }
}

/// The streams, and which of them hold subjects of a domain.
#[derive(Debug, Default)]
struct Streams {
    all: Vec<Stream>,
    by_domain: BTreeMap<String, Vec<usize>>,
}

fn streams(declaration: &Declaration, findings: &mut Findings) -> Streams {
    let mut streams = Streams::default();
    let mut emitted: BTreeMap<String, Vec<(&Name, &Spanned<Subject>)>> = BTreeMap::new();
    for service in declaration.services.iter() {
        let index = streams.all.len();
        let mut subjects = Vec::new();
        for subject in &service.body.emits {
            let Some(domain) = subject.get_ref().domain() else {
                let finding = Finding::new(Rule::InvalidValue, format!("`{}` emits into every domain", service.name))
                    .at(subject.span(), "begins with a wildcard")
                    .help("a stream holds the events of one service: begin with its own domain, `items.>`");
                findings.push(finding);
                continue;
            };
            let others = emitted.entry(domain.to_owned()).or_default();
            if let Some((owner, first)) = others.iter().find(|(_, other)| other.get_ref().overlaps(subject.get_ref())) {
                findings.push(overlap(subject, first, &format!("emitted by `{owner}`"), &service.name));
            }
            others.push((&service.name, subject));
            let holders = streams.by_domain.entry(domain.to_owned()).or_default();
            if holders.last() != Some(&index) {
                holders.push(index);
            }
            subjects.push(subject.get_ref().clone());
        }
        if !subjects.is_empty() {
            streams.all.push(Stream { name: service.name.clone(), subjects, consumers: Vec::new() });
        }
    }
    streams
}

fn overlap(subject: &Spanned<Subject>, first: &Spanned<Subject>, of_first: &str, service: &Name) -> Finding {
    Finding::new(
        Rule::SubjectOverlap,
        format!("`{}` of `{service}` is {of_first} already, as `{}`", subject.get_ref(), first.get_ref()),
    )
    .at(subject.span(), "this")
    .at(first.span(), "and this hold the same event")
    .help("every event has one place: make the subjects disjoint")
}

/// Adds the consumers of one service to the streams that hold what it consumes.
fn subscribe(service: &Entry<Service>, streams: &mut Streams, findings: &mut Findings) {
    for (index, subject) in service.body.consumes.iter().enumerate() {
        let pattern = subject.get_ref();
        let earlier = service.body.consumes.get(..index).unwrap_or_default();
        if let Some(first) = earlier.iter().find(|other| other.get_ref().overlaps(pattern)) {
            findings.push(overlap(subject, first, "consumed", &service.name));
            continue;
        }
        if !pattern.takes_whole_aggregates() {
            let whole = pattern.rsplit_once('.').map_or(">", |(aggregate, _)| aggregate);
            let finding = Finding::new(Rule::PartialAggregate, format!("`{pattern}` is only one of its aggregate's events"))
                .at(subject.span(), "would see gaps")
                .help(format!("the versions of an aggregate run over all its events: consume `{whole}.*` and ignore what you do not need"));
            findings.push(finding);
            continue;
        }
        let candidates: Vec<usize> = match pattern.domain() {
            Some(domain) => streams.by_domain.get(domain).cloned().unwrap_or_default(),
            None => (0..streams.all.len()).collect(),
        };
        let mut found = false;
        for candidate in candidates {
            let Some(stream) = streams
                .all
                .get_mut(candidate)
                .filter(|stream| stream.subjects.iter().any(|held| held.overlaps(pattern)))
            else {
                continue;
            };
            found = true;
            match stream.consumers.iter_mut().find(|consumer| consumer.name == service.name) {
                Some(consumer) => consumer.filters.push(pattern.clone()),
                None => stream.consumers.push(Consumer { name: service.name.clone(), filters: vec![pattern.clone()] }),
            }
        }
        if !found {
            let emitted = streams.all.iter().flat_map(|stream| &stream.subjects).map(Subject::as_str);
            let finding = Finding::new(Rule::NeverEmitted, format!("nobody emits `{pattern}`"))
                .at(subject.span(), "never comes")
                .maybe_help(
                    did_you_mean(pattern, emitted).or_else(|| Some("a service must have it in `emits`".to_owned())),
                );
            findings.push(finding);
        }
    }
}

/// What the client of one service does on the event bus.
fn user(service: &Entry<Service>, streams: &Streams) -> EventUser {
    let name = &service.name;
    let mut publish = Vec::new();
    if let Some(own) = streams.all.iter().find(|stream| stream.name == *name) {
        publish.extend(own.subjects.iter().map(ToString::to_string));
        publish.extend(["CREATE", "INFO", "UPDATE"].map(|call| format!("$JS.API.STREAM.{call}.{name}")));
        // Whether a batch whose acknowledgement was lost has arrived is read back from the stream.
        publish.push(format!("$JS.API.STREAM.MSG.GET.{name}"));
        publish.push(format!("$JS.API.DIRECT.GET.{name}"));
        publish.push(format!("$JS.API.DIRECT.GET.{name}.>"));
    }
    for stream in &streams.all {
        for consumer in stream.consumers.iter().filter(|consumer| consumer.name == *name) {
            publish.extend(consume(&stream.name, consumer));
        }
    }
    EventUser { service: name.clone(), publish, subscribe: vec![format!("_INBOX_{name}.>")] }
}

fn consume(stream: &Name, Consumer { name, filters }: &Consumer) -> Vec<String> {
    // The second one has delivered again what the service's database has lost, and is removed then. No name has an underscore.
    let again = format!("{name}_again");
    let mut calls = vec![format!("$JS.API.STREAM.INFO.{stream}"), format!("$JS.API.CONSUMER.DELETE.{stream}.{again}")];
    for consumer in [name.as_str(), again.as_str()] {
        calls.push(match filters.as_slice() {
            [only] => format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{only}"),
            _ => format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}"),
        });
        calls.extend([
            format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            format!("$JS.ACK.{stream}.{consumer}.>"),
            // The later form of the same, with JetStream domain and account hash before the stream (ADR-15). It cannot match the older
            // form of another consumer: where the stream stands here, that has a number.
            format!("$JS.ACK.*.*.{stream}.{consumer}.>"),
        ]);
    }
    calls
}
