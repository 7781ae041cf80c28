//! Under which address each part is reached: the one thing that depends on where the mesh runs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::layout::{EVENTS, Layout};
use crate::Placement;
use crate::declaration::Declaration;
use crate::diagnostics::{Finding, Findings, Rule};
use crate::name::{Domain, Name};
use crate::units::Port;

/// Listening on every address of a machine.
const ANY: &str = "0.0.0.0";

/// Addresses of all that listens.
#[derive(Debug)]
pub(super) enum Hosts {
    /// By the node's DNS name, on a port of its own there.
    Nodes(Domain),
    /// Each on an address of its own.
    Loopback(BTreeMap<Name, Ipv4Addr>),
    /// By the name of what it is a copy of.
    Containers(Domain),
}

/// What is to be reached: a copy of a service, or a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    /// Its own name.
    pub(super) name: &'a Name,
    /// What it is a copy of; a server's own name.
    pub(super) of: &'a Name,
    /// The node it is on.
    pub(super) node: &'a Name,
    /// The port it has on its node.
    pub(super) on_node: Port,
    /// The port it declares.
    pub(super) declared: Port,
}

impl Hosts {
    pub(super) fn new(
        declaration: &Declaration,
        layout: &Layout<'_>,
        placement: &Placement,
        findings: &mut Findings,
    ) -> Option<Self> {
        match placement {
            Placement::Nodes => declaration.mesh.domain.clone().map(Self::Nodes),
            Placement::Loopback { block, public_port } => loopback(declaration, layout, *block, *public_port, findings),
            Placement::Containers => declaration.mesh.domain.clone().map(Self::Containers),
        }
    }

    /// Where it is reached.
    pub(super) fn of(&self, part: Part<'_>) -> Option<(String, Port)> {
        match self {
            Self::Nodes(domain) => Some((format!("{}.{domain}", part.node), part.on_node)),
            Self::Loopback(addresses) => Some((addresses.get(part.name)?.to_string(), part.declared)),
            Self::Containers(_) => Some((part.of.to_string(), part.declared)),
        }
    }

    /// The address to bind for what is reached under `host`.
    pub(super) fn listen<'h>(&self, host: &'h str) -> &'h str {
        match self {
            Self::Nodes(_) | Self::Containers(_) => ANY,
            Self::Loopback(_) => host,
        }
    }

    pub(super) fn of_node(&self, node: &Name) -> String {
        match self {
            Self::Nodes(domain) | Self::Containers(domain) => format!("{node}.{domain}"),
            Self::Loopback(_) => Ipv4Addr::LOCALHOST.to_string(),
        }
    }
}

/// Numbers the servers, then every copy of every service, in the order of the text.
fn loopback(
    declaration: &Declaration,
    layout: &Layout<'_>,
    block: [u8; 3],
    public_port: u16,
    findings: &mut Findings,
) -> Option<Hosts> {
    let mut wrong = |message: String, help: &str| {
        findings.push(
            Finding::new(Rule::Placement, message)
                .at(declaration.mesh.span.clone(), "on this machine alone")
                .help(help),
        );
        None
    };
    let [first, a, b] = block;
    if first != 127 || public_port == 0 {
        return wrong(
            format!("{first}.{a}.{b}.x with public port {public_port} is no place on this machine"),
            "a block begins with 127, a port is not 0",
        );
    }
    let servers = declaration
        .databases
        .names()
        .chain(declaration.events.as_ref().map(|_| EVENTS))
        .filter(|name| layout.servers.contains_key(name));
    let copies =
        declaration.services.iter().flat_map(|service| layout.copies(&service.name)).map(|copy| copy.name.clone());
    let names: Vec<Name> = servers.filter_map(|name| Name::new(name).ok()).chain(copies).collect();
    if names.len() > 254 {
        return wrong(
            format!("{} instances and servers do not fit on one machine", names.len()),
            "at most 254 do: lower `max` of `replicas`",
        );
    }
    let addresses = names.into_iter().zip(1..=254_u8).map(|(name, number)| (name, Ipv4Addr::new(first, a, b, number)));
    Some(Hosts::Loopback(addresses.collect()))
}

/// The gateway as seen from outside.
#[derive(Debug)]
pub(super) struct PublicFace {
    pub(super) url: String,
    pub(super) host: String,
    pub(super) port: Port,
    pub(super) listen: String,
}

impl PublicFace {
    pub(super) fn new(declaration: &Declaration, placement: &Placement) -> Option<Self> {
        let declared = &declaration.gateway;
        let (host, port, address) = match placement {
            Placement::Nodes => (
                declared.host.as_ref().or(declaration.mesh.domain.as_ref())?.to_string(),
                declared.port,
                ANY.to_owned(),
            ),
            Placement::Containers => (
                declared.host.as_ref().map_or_else(|| "localhost".to_owned(), ToString::to_string),
                declared.port,
                ANY.to_owned(),
            ),
            Placement::Loopback { public_port, .. } => {
                ("localhost".to_owned(), Port::new(*public_port)?, Ipv4Addr::LOCALHOST.to_string())
            }
        };
        let url = if port.get() == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
        Some(Self { url, host, listen: format!("{address}:{port}"), port })
    }
}
