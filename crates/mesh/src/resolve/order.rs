//! Who calls whom, and so who starts before whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::layout::duplicate;
use crate::declaration::{Declaration, Service};
use crate::diagnostics::{Finding, Findings, Rule, Span};
use crate::name::Name;
use crate::read::Entry;

/// The calls between services.
#[derive(Debug, Default)]
pub(super) struct Calls<'d> {
    /// By caller, in the order declared.
    pub(super) from: BTreeMap<&'d Name, Vec<&'d Name>>,
    /// By whom it calls, in the order of the text.
    pub(super) to: BTreeMap<&'d Name, Vec<&'d Name>>,
    /// Every service, each after all it calls; beyond that in the order of the text, with the gateway last.
    pub(super) order: Vec<&'d Entry<Service>>,
}

impl<'d> Calls<'d> {
    pub(super) fn new(declaration: &'d Declaration, gateway: Option<&Name>, findings: &mut Findings) -> Self {
        let mut calls = Self::default();
        let mut places: BTreeMap<(&Name, &Name), Span> = BTreeMap::new();
        for service in declaration.services.iter() {
            for reference in &service.body.calls {
                let Some(callee) = declaration.services.find(reference, "service", findings) else { continue };
                if places.insert((&service.name, &callee.name), reference.span()).is_some() {
                    findings.push(duplicate(reference, &format!("`calls` of `services.{}`", service.name)));
                    continue;
                }
                calls.from.entry(&service.name).or_default().push(&callee.name);
                calls.to.entry(&callee.name).or_default().push(&service.name);
            }
        }
        calls.sort(declaration, gateway, &places, findings);
        calls
    }

    /// Kahn's algorithm; what it cannot reach calls in a circle, or calls somebody who does.
    fn sort(
        &mut self,
        declaration: &'d Declaration,
        gateway: Option<&Name>,
        places: &BTreeMap<(&Name, &Name), Span>,
        findings: &mut Findings,
    ) {
        let mut missing: BTreeMap<&Name, usize> =
            self.from.iter().map(|(caller, callees)| (*caller, callees.len())).collect();
        let mut ready: VecDeque<&Entry<Service>> =
            declaration.services.iter().filter(|service| !missing.contains_key(&service.name)).collect();
        while let Some(service) = ready.pop_front() {
            self.order.push(service);
            for caller in self.to.get(&service.name).into_iter().flatten() {
                let Some(left) = missing.get_mut(caller) else { continue };
                *left = left.saturating_sub(1);
                if *left == 0 {
                    missing.remove(caller);
                    ready.extend(declaration.services.get(caller));
                }
            }
        }
        // Stable: all others keep their order.
        self.order.sort_by_key(|service| gateway == Some(&service.name));
        let mut stuck: BTreeSet<&Name> = missing.into_keys().collect();
        while let Some(start) = stuck.first().copied() {
            self.report_circle(start, &mut stuck, places, findings);
        }
    }

    /// Follows calls from `start` among `stuck` until it meets itself. All it passed is done with.
    fn report_circle(
        &self,
        start: &'d Name,
        stuck: &mut BTreeSet<&'d Name>,
        places: &BTreeMap<(&Name, &Name), Span>,
        findings: &mut Findings,
    ) {
        let mut path: Vec<&Name> = vec![start];
        let mut at = start;
        loop {
            let next = self.from.get(at).into_iter().flatten().find(|callee| stuck.contains(*callee));
            let Some(next) = next else { break };
            if let Some(position) = path.iter().position(|name| name == next) {
                findings.push(circle(path.get(position..).unwrap_or_default(), places));
                break;
            }
            path.push(next);
            at = next;
        }
        for name in path {
            stuck.remove(name);
        }
    }
}

fn circle(members: &[&Name], places: &BTreeMap<(&Name, &Name), Span>) -> Finding {
    let next = members.iter().cycle().skip(1);
    let mut finding = match members {
        [alone] => Finding::new(Rule::CallCycle, format!("`{alone}` calls itself"))
            .help("take it out of `calls`; a service needs no mesh to reach itself"),
        _ => {
            let names: Vec<String> = members.iter().chain(members.first()).map(|name| format!("`{name}`")).collect();
            Finding::new(Rule::CallCycle, format!("services call each other in a circle: {}", names.join(" → "))).help(
                "none of them could start first, and a slow one would stall all: make one of these calls an event",
            )
        }
    };
    for (caller, callee) in members.iter().zip(next) {
        if let Some(span) = places.get(&(*caller, *callee)) {
            finding = finding.at(span.clone(), format!("`{caller}` calls `{callee}`"));
        }
    }
    finding
}
