//! What a machine can hold: memory, cores, disk, and one listener a port.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{EVENTS, Layout, Machine, Tenant};
use crate::declaration::{Declaration, Size};
use crate::diagnostics::{Finding, Findings, Rule, Span};
use crate::name::Name;
use crate::read::Entry;
use crate::units::{Bytes, MilliCpu, Port};

pub(super) fn check(declaration: &Declaration, layout: &Layout<'_>, gateway: Option<&Name>, findings: &mut Findings) {
    // Machines of one declared node are alike: what is wrong with several of them is told once.
    let mut told = BTreeSet::new();
    for machine in &layout.machines {
        let node = machine.declared.name.as_str();
        if let Some(size) = machine.size {
            if let Some(finding) = memory(machine, size).filter(|_| told.insert((node, "memory".to_owned()))) {
                findings.push(finding);
            }
            for tenant in &machine.tenants {
                if let Some(finding) =
                    cpu(machine, size, tenant).filter(|_| told.insert((node, format!("cpu of {}", tenant.declared))))
                {
                    findings.push(finding);
                }
            }
            findings_of_disk(declaration, machine, size, findings);
        }
        for (pair, finding) in port_clashes(declaration, machine, gateway) {
            if told.insert((node, pair)) {
                findings.push(finding);
            }
        }
    }
}

fn memory(machine: &Machine<'_>, size: &Entry<Size>) -> Option<Finding> {
    let has = size.body.memory?;
    let tenants = machine.tenants.iter().fold(0_u64, |sum, tenant| sum.saturating_add(tenant.memory.get()));
    let needs = Bytes::new(tenants.saturating_add(size.body.reserved.get()));
    if needs <= has {
        return None;
    }
    let mut shares: BTreeMap<&str, (u32, Bytes)> = BTreeMap::new();
    for tenant in &machine.tenants {
        shares.entry(tenant.declared).or_insert((0, tenant.memory)).0 += 1;
    }
    let shares = shares.into_iter().map(|(name, (copies, each))| {
        if copies == 1 { format!("{name} {each}") } else { format!("{name} {copies} × {each}") }
    });
    let shares: Vec<String> = shares.chain([format!("the system {}", size.body.reserved)]).collect();
    let span = machine.declared.body.size.as_ref().map_or_else(|| machine.declared.span.clone(), toml::Spanned::span);
    let excess = Bytes::new(needs.get() - has.get());
    let finding = Finding::new(
        Rule::MemoryExceeded,
        format!("what runs on `{}` may use {excess} more memory than it has", machine.name),
    )
    .at(span, format!("{has} of memory"))
    .help(format!(
        "{} = {needs}; take a larger size, a smaller `memory`, a lower `max` of `replicas`, or more nodes",
        shares.join(" + ")
    ));
    Some(finding)
}

fn cpu(machine: &Machine<'_>, size: &Entry<Size>, tenant: &Tenant<'_>) -> Option<Finding> {
    let has = MilliCpu::new(size.body.cpus?.saturating_mul(1000));
    let wants = *tenant.cpu.get_ref();
    (wants > has).then(|| {
        Finding::new(
            Rule::CpuExceeded,
            format!("`{}` may use {wants} cores, and `{}` has {has}", tenant.declared, machine.name),
        )
        .at(tenant.cpu.span(), "more than the node has")
        .help(format!("write `cpu = {has}` or less, or take a larger size"))
    })
}

fn findings_of_disk(declaration: &Declaration, machine: &Machine<'_>, size: &Entry<Size>, findings: &mut Findings) {
    let here = machine.tenants.iter().any(|tenant| tenant.declared == EVENTS);
    let Some(events) = declaration.events.as_ref().filter(|events| here && events.storage > size.body.disk) else {
        return;
    };
    let finding = Finding::new(
        Rule::DiskExceeded,
        format!("the event bus may use {} of disk, and `{}` has {}", events.storage, machine.name, size.body.disk),
    )
    .at(events.span.clone(), "more than the node has")
    .help("lower `storage` of `[events]`, or take a size with a larger `disk`");
    findings.push(finding);
}

/// A listener on a machine: who, and where its port is declared.
struct Listener<'d> {
    /// Identical for all copies of a service.
    declared: String,
    name: String,
    port: Port,
    span: Span,
    width: u16,
    tenant: Option<&'d Name>,
}

/// Every pair of listeners on one port, under a key that is the same for all copies of the two.
fn port_clashes(declaration: &Declaration, machine: &Machine<'_>, gateway: Option<&Name>) -> Vec<(String, Finding)> {
    let mut taken: BTreeMap<Port, Listener<'_>> = BTreeMap::new();
    let mut clashes = Vec::new();
    let used: BTreeSet<Port> =
        machine.tenants.iter().map(|tenant| tenant.port).chain(gateway.map(|_| declaration.gateway.port)).collect();
    for listener in listeners(declaration, machine, gateway) {
        match taken.get(&listener.port) {
            None => {
                taken.insert(listener.port, listener);
            }
            Some(first) => {
                let finding = Finding::new(
                    Rule::PortClash,
                    format!(
                        "{} and {} both listen on port {} of `{}`",
                        first.name, listener.name, listener.port, machine.name
                    ),
                )
                .at(listener.span.clone(), format!("{} is taken", listener.port))
                .at(first.span.clone(), "by this")
                .help(mend(&listener, first, &used));
                clashes.push((format!("port of {} and {}", first.declared, listener.declared), finding));
            }
        }
    }
    clashes
}

fn listeners<'d>(declaration: &Declaration, machine: &'d Machine<'_>, gateway: Option<&Name>) -> Vec<Listener<'d>> {
    let mut listeners = Vec::new();
    for tenant in &machine.tenants {
        let copies = machine.tenants.iter().filter(|other| other.declared == tenant.declared).count();
        let width = u16::try_from(copies).unwrap_or(u16::MAX);
        let (declared, name) = (tenant.declared.to_owned(), format!("`{}`", tenant.name));
        listeners.push(Listener {
            declared,
            name,
            port: tenant.port,
            span: tenant.port_span.clone(),
            width,
            tenant: Some(&tenant.name),
        });
        if gateway.is_some_and(|gateway| *gateway == *tenant.declared) {
            let span = declaration.gateway.port_span.clone().unwrap_or_else(|| tenant.port_span.clone());
            let (declared, name) =
                ("the public listener".to_owned(), format!("the public listener of `{}`", tenant.name));
            listeners.push(Listener { declared, name, port: declaration.gateway.port, span, width: 1, tenant: None });
        }
    }
    listeners
}

fn mend(listener: &Listener<'_>, first: &Listener<'_>, used: &BTreeSet<Port>) -> String {
    if listener.tenant.is_none() && first.tenant.is_none() {
        return "one gateway a node: lower `max` of its `replicas`, or give its node a higher `count`".to_owned();
    }
    let free =
        |port: &Port| (0..listener.width).all(|offset| port.plus(offset).is_some_and(|port| !used.contains(&port)));
    let next = (1..=u16::MAX - listener.port.get()).filter_map(|offset| listener.port.plus(offset)).find(free);
    next.map_or_else(
        || "choose another `port` for one of them".to_owned(),
        |port| format!("`port = {port}` is free there"),
    )
}
