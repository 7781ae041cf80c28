//! Who runs where: nodes multiplied by their count, copies dealt out over them in turn, each with a port of its own there.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use crate::declaration::{Declaration, Node, Service, Size};
use crate::diagnostics::{Finding, Findings, Rule, Span};
use crate::name::Name;
use crate::plan::Replicas;
use crate::read::{Entry, unknown_reference};
use crate::units::{Bytes, MilliCpu, Port};

/// What `[events]` is called where names of things that run are listed.
pub(super) const EVENTS: &str = "nats";
/// What no service may be called: it could mend the outbox of any other.
const OPERATOR: &str = "operator";

/// Every machine with what runs on it, and every copy with its machine.
#[derive(Debug, Default)]
pub(super) struct Layout<'d> {
    pub(super) machines: Vec<Machine<'d>>,
    pub(super) services: BTreeMap<&'d str, Placed>,
    /// Databases and the event bus, by name: the machine each is on.
    pub(super) servers: BTreeMap<&'d str, Name>,
}

/// One machine.
#[derive(Debug)]
pub(super) struct Machine<'d> {
    pub(super) name: Name,
    pub(super) declared: &'d Entry<Node>,
    pub(super) size: Option<&'d Entry<Size>>,
    pub(super) tenants: Vec<Tenant<'d>>,
}

/// Something that runs on a machine and takes a part of it.
#[derive(Debug)]
pub(super) struct Tenant<'d> {
    pub(super) name: Name,
    /// The name it is declared under.
    pub(super) declared: &'d str,
    pub(super) memory: Bytes,
    pub(super) cpu: &'d Spanned<MilliCpu>,
    pub(super) port: Port,
    pub(super) port_span: Span,
}

/// The copies of a service.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) replicas: Replicas,
    pub(super) copies: Vec<PlacedCopy>,
}

/// One copy of a service.
#[derive(Debug)]
pub(super) struct PlacedCopy {
    pub(super) name: Name,
    pub(super) index: u16,
    pub(super) node: Name,
    /// The service's port plus the number of copies before it on this node.
    pub(super) port: Port,
}

/// The machines a name stands on, by their index, and where that is written.
type Homes<'d> = BTreeMap<&'d str, (Vec<usize>, Vec<Span>)>;

impl<'d> Layout<'d> {
    pub(super) fn new(declaration: &'d Declaration, findings: &mut Findings) -> Self {
        let mut layout = Self { machines: machines(declaration, findings), ..Self::default() };
        check_names(declaration, findings);
        let homes = homes(declaration, &layout.machines, findings);
        for service in declaration.services.iter() {
            match homes.get(service.name.as_str()) {
                Some((machines, _)) => layout.deal_out(service, machines, findings),
                None => unplaced("service", &service.name, service.span.clone(), declaration, findings),
            }
        }
        for database in declaration.databases.iter() {
            let body = &database.body;
            let place = Server {
                kind: "database",
                name: &database.name,
                span: &database.span,
                memory: body.memory,
                cpu: &body.cpu,
                port: &body.port,
            };
            layout.settle(&place, &homes, declaration, findings);
        }
        if let (Some(events), Ok(name)) = (&declaration.events, Name::new(EVENTS)) {
            let place = Server {
                kind: "event bus",
                name: &name,
                span: &events.span,
                memory: events.memory,
                cpu: &events.cpu,
                port: &events.port,
            };
            layout.settle(&place, &homes, declaration, findings);
        }
        layout
    }

    /// Deals the copies of a service out over its machines in turn.
    fn deal_out(&mut self, service: &'d Entry<Service>, machines: &[usize], findings: &mut Findings) {
        let body = &service.body;
        let each = u16::try_from(machines.len()).unwrap_or(Replicas::MOST).min(Replicas::MOST);
        let Some(replicas) =
            body.replicas.as_ref().map(|replicas| *replicas.get_ref()).or_else(|| Replicas::new(each, each, each))
        else {
            return;
        };
        let mut copies = Vec::new();
        for (index, machine) in (1..=replicas.max()).zip(machines.iter().cycle()) {
            let before = (usize::from(index) - 1)
                .checked_div(machines.len())
                .and_then(|before| u16::try_from(before).ok())
                .unwrap_or_default();
            let Some(port) = body.port.get_ref().plus(before) else {
                let finding = Finding::new(
                    Rule::InvalidValue,
                    format!("{} copies of `{}` on one node need ports above 65535", before + 1, service.name),
                )
                .at(body.port.span(), "each further copy on a node takes the next port")
                .help("take a lower `port`");
                return findings.push(finding);
            };
            let Some(machine) = self.machines.get_mut(*machine) else { return };
            let name = service.name.numbered(index);
            machine.tenants.push(Tenant {
                name: name.clone(),
                declared: &service.name,
                memory: body.memory,
                cpu: &body.cpu,
                port,
                port_span: body.port.span(),
            });
            copies.push(PlacedCopy { name, index, node: machine.name.clone(), port });
        }
        self.services.insert(&service.name, Placed { replicas, copies });
    }

    /// Puts a server on its one machine.
    fn settle(
        &mut self,
        server: &Server<'_, 'd>,
        homes: &Homes<'d>,
        declaration: &'d Declaration,
        findings: &mut Findings,
    ) {
        let Some((&declared, (machines, spans))) = homes.get_key_value(server.name.as_str()) else {
            return unplaced(server.kind, server.name, server.span.clone(), declaration, findings);
        };
        let machine = match machines.as_slice() {
            [machine] => self.machines.get_mut(*machine),
            _ => {
                let mut finding = Finding::new(
                    Rule::PlacedTwice,
                    format!("the {} `{}` would be on {} nodes", server.kind, server.name, machines.len()),
                )
                .help("its data can be in one place only: name it in `runs` of one node, whose `count` is 1");
                for span in spans {
                    finding = finding.at(span.clone(), "here");
                }
                return findings.push(finding);
            }
        };
        let Some(machine) = machine else { return };
        machine.tenants.push(Tenant {
            name: server.name.clone(),
            declared,
            memory: server.memory,
            cpu: server.cpu,
            port: *server.port.get_ref(),
            port_span: server.port.span(),
        });
        self.servers.insert(declared, machine.name.clone());
    }

    /// The copies of a service; none if it could not be placed.
    pub(super) fn copies(&self, service: &str) -> &[PlacedCopy] {
        self.services.get(service).map_or(&[], |placed| &placed.copies)
    }
}

/// A database or the event bus.
struct Server<'s, 'd> {
    kind: &'static str,
    name: &'s Name,
    span: &'s Span,
    memory: Bytes,
    cpu: &'d Spanned<MilliCpu>,
    port: &'s Spanned<Port>,
}

fn machines<'d>(declaration: &'d Declaration, findings: &mut Findings) -> Vec<Machine<'d>> {
    let mut machines = Vec::new();
    for node in declaration.nodes.iter() {
        let size = node.body.size.as_ref().and_then(|size| declaration.sizes.find(size, "size", findings));
        for index in 1..=node.body.count {
            let name = if node.body.count == 1 { node.name.clone() } else { node.name.numbered(index) };
            machines.push(Machine { name, declared: node, size, tenants: Vec::new() });
        }
    }
    machines
}

/// Services and databases are units, certificates and folders side by side, and so is the event bus.
fn check_names(declaration: &Declaration, findings: &mut Findings) {
    let things = declaration
        .services
        .iter()
        .map(|entry| (&entry.name, &entry.span))
        .chain(declaration.databases.iter().map(|entry| (&entry.name, &entry.span)));
    for (name, span) in things {
        if *name == EVENTS {
            let finding = Finding::new(Rule::ReservedName, format!("`{EVENTS}` is what the event bus is called"))
                .at(span.clone(), "choose another name")
                .help("the event bus itself is declared by `[events]`");
            findings.push(finding);
        }
        if *name == OPERATOR {
            let what = format!("`{OPERATOR}` is the name in the certificate of whoever operates the mesh");
            let finding = Finding::new(Rule::ReservedName, what)
                .at(span.clone(), "choose another name")
                .help("any other will do, such as `operations`; under this one it could pass for the operator");
            findings.push(finding);
        }
    }
    for database in declaration.databases.iter() {
        if let Some(service) = declaration.services.get(&database.name) {
            let finding = Finding::new(Rule::NameTaken, format!("`{}` is a service and a database", database.name))
                .at(database.span.clone(), "the database")
                .at(service.span.clone(), "the service")
                .help(format!("call the database `{}-db`", database.name));
            findings.push(finding);
        }
    }
}

/// Reads every `runs`.
fn homes<'d>(declaration: &'d Declaration, machines: &[Machine<'d>], findings: &mut Findings) -> Homes<'d> {
    let mut indices: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, machine) in machines.iter().enumerate() {
        indices.entry(machine.declared.name.as_str()).or_default().push(index);
    }
    let mut homes = Homes::new();
    for node in declaration.nodes.iter() {
        let mut seen = BTreeSet::new();
        for reference in &node.body.runs {
            let name = reference.get_ref().as_str();
            if !seen.insert(name) {
                findings.push(duplicate(reference, &format!("`runs` of `nodes.{}`", node.name)));
                continue;
            }
            let (services, databases) = (&declaration.services, &declaration.databases);
            if name == EVENTS && declaration.events.is_none() {
                let finding = Finding::new(
                    Rule::NoEvents,
                    format!("`{EVENTS}` runs on `{}`, but there is no event bus", node.name),
                )
                .at(reference.span(), "not declared")
                .help("declare it: `[events]`");
                findings.push(finding);
            } else if name != EVENTS && !services.mentions(name) && !databases.mentions(name) {
                let candidates =
                    services.names().chain(databases.names()).chain(declaration.events.as_ref().map(|_| EVENTS));
                findings.push(unknown_reference(reference, "service or database", candidates));
            }
            let home = homes.entry(name).or_default();
            home.0.extend(indices.get(node.name.as_str()).into_iter().flatten());
            home.1.push(reference.span());
        }
    }
    homes
}

/// Nobody names it; unless a node's list or a node itself could not be read, that is the mistake.
fn unplaced(kind: &str, name: &str, span: Span, declaration: &Declaration, findings: &mut Findings) {
    if declaration.nodes.is_garbled() || declaration.nodes.iter().any(|node| node.body.is_garbled) {
        return;
    }
    let node = declaration.nodes.names().next().unwrap_or("edge");
    let finding = Finding::new(Rule::Unplaced, format!("the {kind} `{name}` is on no node"))
        .at(span, "runs nowhere")
        .help(format!("name it in `runs` of a node: `[nodes.{node}]` `runs = [\"{name}\"]`"));
    findings.push(finding);
}

/// `reference` stands in its list already.
pub(super) fn duplicate(reference: &Spanned<String>, list: &str) -> Finding {
    Finding::new(Rule::Duplicate, format!("{list} names `{}` twice", reference.get_ref()))
        .at(reference.span(), "again")
        .help("once is enough: take one away")
}
