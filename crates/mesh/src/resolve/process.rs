//! What a process of a service is started with: its command line and its environment.

use std::collections::{BTreeMap, BTreeSet};

use super::owners::Owners;
use crate::command;
use crate::declaration::{Declaration, Service};
use crate::diagnostics::{Finding, Findings, Rule, did_you_mean};
use crate::name::Name;
use crate::plan::{COMMAND_VARIABLES, Protocol, RUNNER_VARIABLES};
use crate::read::Entry;
use crate::runtimes::Template;
use crate::units::Port;

/// The names every instance has in its environment, whatever it is.
const COMMON: [&str; 4] = ["BERTH_SERVICE", "BERTH_INSTANCE", "BERTH_DOMAIN", "BERTH_LISTEN"];

/// Refuses variables the mesh sets itself, and `${…}` that nobody could fill.
pub(super) fn check(declaration: &Declaration, owners: &Owners<'_>, findings: &mut Findings) {
    for service in declaration.services.iter() {
        for (variable, _) in &service.body.environment {
            check_variable(variable, findings);
        }
        if service.body.command.as_ref().is_some_and(Vec::is_empty) {
            let finding =
                Finding::new(Rule::InvalidValue, format!("`command` of `services.{}` is empty", service.name))
                    .at(service.span.clone(), "starts nothing")
                    .help("name a program, or leave `command` out");
            findings.push(finding);
        }
        check_words(service, &variables(service, owners.of_service.contains_key(&service.name)), findings);
    }
}

/// The names in an instance's environment.
fn variables(service: &Entry<Service>, has_database: bool) -> BTreeSet<String> {
    let body = &service.body;
    let mut names: BTreeSet<String> = COMMON.iter().map(ToString::to_string).collect();
    let mut add =
        |condition: bool, more: &[&str]| names.extend(more.iter().filter(|_| condition).map(ToString::to_string));
    add(body.protocol == Protocol::Plain, &["HOST", "PORT"]);
    add(body.route.is_some(), &["BERTH_PUBLIC_URL"]);
    add(has_database, &["BERTH_DATABASE_SERVER", "BERTH_DATABASE_URL"]);
    add(body.uses_events(), &["BERTH_EVENTS_URL"]);
    add(!body.consumes.is_empty(), &["BERTH_CONSUMES"]);
    names.extend(
        body.calls.iter().filter_map(|callee| Some(peer_variable(&Name::new(callee.get_ref().as_str()).ok()?))),
    );
    names.extend((Template::of(body.runtime).environment)("", Port::MOST).into_iter().map(|(name, _)| name.to_owned()));
    names.extend(body.environment.iter().map(|(variable, _)| variable.get_ref().clone()));
    names
}

fn check_words(service: &Entry<Service>, variables: &BTreeSet<String>, findings: &mut Findings) {
    for word in service.body.command.iter().flatten().chain(&service.body.args) {
        if word.get_ref().contains('\0') {
            findings.push(Finding::new(Rule::InvalidValue, "a command line cannot hold a NUL").at(word.span(), "here"));
        }
        for name in command::variables(word.get_ref())
            .filter(|name| !variables.contains(*name) && !COMMAND_VARIABLES.contains(name))
        {
            let known = || variables.iter().map(String::as_str).chain(COMMAND_VARIABLES);
            let help = did_you_mean(name, known()).unwrap_or_else(|| {
                let names: Vec<String> = known().map(|name| format!("${{{name}}}")).collect();
                format!("there are {}; a `$` itself is written `$$`", names.join(", "))
            });
            let finding = Finding::new(Rule::UnknownVariable, format!("nothing sets `${{{name}}}`"))
                .at(word.span(), "here")
                .help(help);
            findings.push(finding);
        }
    }
}

/// `BERTH_PEER_ITEM_MANAGEMENT`.
pub(super) fn peer_variable(callee: &Name) -> String {
    format!("BERTH_PEER_{}", callee.as_variable())
}

fn check_variable(variable: &toml::Spanned<String>, findings: &mut Findings) {
    let name = variable.get_ref();
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        let finding = Finding::new(Rule::InvalidName, format!("`{}` is not a variable's name", name.escape_debug()))
            .at(variable.span(), "here")
            .help("letters, digits and underscores, no digit first: `LOG_LEVEL`");
        findings.push(finding);
    } else if name.starts_with("BERTH_")
        || matches!(name.as_str(), "HOST" | "PORT")
        || (RUNNER_VARIABLES.contains(&name.as_str()) && name != "RUST_LOG")
    {
        let finding = Finding::new(Rule::ReservedVariable, format!("`{name}` is set by the mesh itself"))
            .at(variable.span(), "would be overwritten")
            .help("choose another name");
        findings.push(finding);
    }
}

pub(super) fn command_line(service: &Service) -> Vec<String> {
    let words = |words: &[toml::Spanned<String>]| words.iter().map(|word| word.get_ref().clone()).collect::<Vec<_>>();
    let mut command = match &service.command {
        Some(command) => words(command),
        None => (Template::of(service.runtime).command)(service.memory),
    };
    command.extend(words(&service.args));
    command
}

/// The environment of one instance: what all have, `own` of its place in the mesh, and what is declared.
pub(super) fn environment(
    service: &Entry<Service>,
    common: [String; COMMON.len()],
    listen: (&str, Port),
    own: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let (host, port) = listen;
    let mut environment: BTreeMap<String, String> = COMMON.iter().map(ToString::to_string).zip(common).collect();
    environment.extend(own);
    if service.body.protocol == Protocol::Plain {
        environment.extend([("HOST".to_owned(), host.to_owned()), ("PORT".to_owned(), port.to_string())]);
    }
    environment.extend(
        (Template::of(service.body.runtime).environment)(host, port)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    environment.extend(service.body.environment.iter().map(|(name, value)| (name.get_ref().clone(), value.clone())));
    environment
}
