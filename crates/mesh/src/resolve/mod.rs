//! A declaration into a plan: what its parts mean together. Each file answers one question; this one puts the answers together.

mod capacity;
mod credentials;
mod entrance;
mod events;
mod hosts;
mod layout;
mod order;
mod owners;
mod process;

use std::collections::BTreeMap;

use crate::Placement;
use crate::declaration::{Declaration, Limits, Service};
use crate::diagnostics::{Finding, Findings, Rule};
use crate::name::{Domain, Name};
use crate::plan::{self, Algorithm, JwksFrom, Plan};
use crate::read::Entry;
use crate::units::{MilliCpu, Port};
use credentials::Part;
use entrance::{Entrance, Issuer};
use events::Bus;
use hosts::{Hosts, PublicFace};
use layout::{EVENTS, Layout, Placed};
use order::Calls;
use owners::Owners;

/// Where the issuer of the mesh serves its keys, below its route.
const JWKS: &str = "/.well-known/jwks.json";

/// The plan; nothing exactly when there are findings.
pub(crate) fn resolve(declaration: &Declaration, placement: &Placement, findings: &mut Findings) -> Option<Plan> {
    let entrance = Entrance::new(declaration, findings);
    let gateway = entrance.gateway.map(|service| &service.name);
    let layout = Layout::new(declaration, findings);
    capacity::check(declaration, &layout, gateway, findings);
    let owners = Owners::new(declaration, findings);
    let calls = Calls::new(declaration, gateway, findings);
    let bus = Bus::new(declaration, findings);
    credentials::check(declaration, findings);
    process::check(declaration, &owners, findings);
    let public = PublicFace::new(declaration, placement);
    let hosts = Hosts::new(declaration, &layout, placement, findings);
    if !findings.is_empty() {
        return None;
    }
    let plan = Resolved { declaration, entrance, layout, owners, calls, bus, hosts: hosts?, public: public? }.plan();
    if plan.is_none() {
        // Every gap was reported above; should one not have been, that must not look like success.
        findings.push(
            Finding::new(Rule::Placement, "this declaration cannot be resolved")
                .help("a defect of Berth: please report it with this file"),
        );
    }
    plan
}

/// All the answers, once nothing is left to complain about.
struct Resolved<'d> {
    declaration: &'d Declaration,
    entrance: Entrance<'d>,
    layout: Layout<'d>,
    owners: Owners<'d>,
    calls: Calls<'d>,
    bus: Bus,
    hosts: Hosts,
    public: PublicFace,
}

impl Resolved<'_> {
    fn plan(&self) -> Option<Plan> {
        let mesh = &self.declaration.mesh;
        Some(Plan {
            version: plan::Version,
            name: mesh.name.clone()?,
            domain: mesh.domain.clone()?,
            auth: self.auth()?,
            gateway: self.gateway()?,
            nodes: self.nodes()?,
            databases: self.databases()?,
            events: match self.declaration.events {
                Some(_) => Some(self.events()?),
                None => None,
            },
            services: self.calls.order.iter().map(|service| self.service(service)).collect::<Option<_>>()?,
        })
    }

    fn domain(&self) -> Option<&Domain> {
        self.declaration.mesh.domain.as_ref()
    }

    fn audience(&self) -> Option<String> {
        let default = format!("https://{}", self.domain()?);
        Some(self.declaration.auth.audience.clone().unwrap_or(default))
    }

    fn auth(&self) -> Option<plan::Auth> {
        let declared = &self.declaration.auth;
        let (issuer, jwks, default) = match self.entrance.issuer.as_ref()? {
            Issuer::Service(service, prefix) => {
                let jwks = JwksFrom::Service { service: service.name.clone(), path: prefix.join(JWKS) };
                (format!("{}{}", self.public.url, prefix.trim_end_matches('/')), jwks, Algorithm::EdDSA)
            }
            // The one algorithm every issuer of such tokens must have (RFC 9068 §2.1).
            Issuer::External(url) => ((*url).to_owned(), JwksFrom::Discovery, Algorithm::RS256),
        };
        let mut algorithms =
            declared.algorithms.as_ref().map_or_else(|| vec![default], |algorithms| algorithms.get_ref().clone());
        algorithms.sort_unstable();
        algorithms.dedup();
        let roles_claim = declared.roles_claim.clone().unwrap_or_else(|| "roles".to_owned());
        let typ = declared.typ.as_ref().map(|typ| *typ.get_ref()).unwrap_or_default();
        Some(plan::Auth { issuer, audience: self.audience()?, typ, algorithms, roles_claim, jwks })
    }

    fn gateway(&self) -> Option<plan::Gateway> {
        let mut routes: Vec<plan::Route> =
            self.declaration.services.iter().filter_map(|service| self.route(service)).collect();
        routes.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        Some(plan::Gateway {
            service: self.entrance.gateway?.name.clone(),
            public_url: self.public.url.clone(),
            public_host: self.public.host.clone(),
            public_port: self.public.port,
            routes,
            limits: limits(&self.declaration.gateway.limits),
        })
    }

    fn route(&self, service: &Entry<Service>) -> Option<plan::Route> {
        let route = service.body.route.as_ref()?;
        let upstreams = self.layout.copies(&service.name).iter().filter_map(|copy| {
            let (host, port) = self.address(service, copy)?;
            Some(plan::Endpoint { instance: copy.name.clone(), host, port })
        });
        let mut upstreams: Vec<_> = upstreams.collect();
        // One name may stand for all copies.
        upstreams.dedup_by(|next, first| (&next.host, next.port) == (&first.host, first.port));
        Some(plan::Route {
            prefix: route.prefix.get_ref().clone(),
            service: service.name.clone(),
            auth: *route.auth.get_ref(),
            protocol: service.body.protocol,
            health: health(service),
            upstreams,
        })
    }

    fn nodes(&self) -> Option<Vec<plan::Node>> {
        let node = |machine: &layout::Machine<'_>| {
            let size = machine.size?;
            let named = |is: &dyn Fn(&str) -> bool| {
                machine.tenants.iter().filter(|tenant| is(tenant.declared)).map(|tenant| tenant.name.clone()).collect()
            };
            Some(plan::Node {
                name: machine.name.clone(),
                declared: machine.declared.name.clone(),
                size: size.name.clone(),
                cpu_millis: MilliCpu::new(size.body.cpus?.saturating_mul(1000)),
                memory_bytes: size.body.memory?,
                reserved_bytes: size.body.reserved,
                disk_bytes: size.body.disk,
                host: self.hosts.of_node(&machine.name),
                instances: named(&|name| self.declaration.services.get(name).is_some()),
                databases: named(&|name| self.declaration.databases.get(name).is_some()),
                events: machine.tenants.iter().any(|tenant| tenant.declared == EVENTS),
            })
        };
        self.layout.machines.iter().map(node).collect()
    }

    /// Where a copy of a service listens.
    fn address(&self, service: &Entry<Service>, copy: &layout::PlacedCopy) -> Option<(String, Port)> {
        let declared = *service.body.port.get_ref();
        let (of, node, on_node) = (&service.name, &copy.node, copy.port);
        self.hosts.of(hosts::Part { name: &copy.name, of, node, on_node, declared })
    }

    /// Where a database or the event bus listens, and on which node.
    fn server(&self, name: &Name, port: Port) -> Option<(Name, String, Port)> {
        let node = self.layout.servers.get(name.as_str())?;
        let (host, port) = self.hosts.of(hosts::Part { name, of: name, node, on_node: port, declared: port })?;
        Some((node.clone(), host, port))
    }

    fn databases(&self) -> Option<Vec<plan::Database>> {
        let database = |entry: &Entry<crate::declaration::Database>| {
            let owner = *self.owners.of_database.get(&entry.name)?;
            let (node, host, port) = self.server(&entry.name, *entry.body.port.get_ref())?;
            Some(plan::Database {
                name: entry.name.clone(),
                owner: owner.clone(),
                database: owner.clone(),
                role: owner.clone(),
                node,
                host,
                port,
                memory_bytes: entry.body.memory,
                cpu_millis: *entry.body.cpu.get_ref(),
                credentials: credentials::of_database(),
            })
        };
        self.declaration.databases.iter().map(database).collect()
    }

    fn events(&self) -> Option<plan::Events> {
        let declared = self.declaration.events.as_ref()?;
        let server = Name::new(EVENTS).ok()?;
        let (node, host, port) = self.server(&server, *declared.port.get_ref())?;
        Some(plan::Events {
            server,
            node,
            host,
            port,
            memory_bytes: declared.memory,
            cpu_millis: *declared.cpu.get_ref(),
            storage_bytes: declared.storage,
            credentials: credentials::of_events(),
            users: self.bus.users.clone(),
            streams: self.bus.streams.clone(),
        })
    }

    fn service(&self, entry: &Entry<Service>) -> Option<plan::Service> {
        let (name, body) = (&entry.name, &entry.body);
        let placed = self.layout.services.get(name.as_str())?;
        let part = self.part(entry);
        let database = self.owners.of_service.get(name).map(|database| (*database).clone());
        let calls: Vec<Name> =
            self.calls.from.get(name).into_iter().flatten().map(|callee| (*callee).clone()).collect();
        let events = body.uses_events().then(|| Name::new(EVENTS).ok()).flatten();
        Some(plan::Service {
            name: name.clone(),
            runtime: body.runtime,
            executable: body.executable.clone(),
            command: process::command_line(body),
            jit: body.jit,
            protocol: body.protocol,
            replicas: placed.replicas,
            memory_bytes: body.memory,
            cpu_millis: *body.cpu.get_ref(),
            route: body.route.as_ref().map(|route| route.prefix.get_ref().clone()),
            emits: body.emits.iter().map(|subject| subject.get_ref().clone()).collect(),
            consumes: body.consumes.iter().map(|subject| subject.get_ref().clone()).collect(),
            callers: self.callers(entry),
            credentials: credentials::of_service(entry, part, self.declaration),
            health: health(entry),
            stop_timeout_ms: body.stop_timeout,
            watchdog_ms: body.watchdog,
            after: database.clone().into_iter().chain(events).chain(calls.iter().cloned()).collect(),
            instances: self.instances(entry, placed, part)?,
            database,
            calls,
        })
    }

    fn callers(&self, service: &Entry<Service>) -> Vec<Name> {
        let gateway = self.entrance.gateway.filter(|_| service.body.route.is_some()).map(|gateway| &gateway.name);
        let callers = self.calls.to.get(&service.name).into_iter().flatten().copied();
        // The gateway might declare a call to a service it routes to as well.
        let callers = gateway.into_iter().chain(callers.filter(|caller| gateway != Some(*caller)));
        callers.cloned().collect()
    }

    fn part(&self, service: &Entry<Service>) -> Part {
        let name = &service.name;
        Part {
            is_gateway: self.entrance.gateway.is_some_and(|gateway| gateway.name == *name),
            is_issuer: matches!(self.entrance.issuer, Some(Issuer::Service(issuer, _)) if issuer.name == *name),
            has_external_issuer: matches!(self.entrance.issuer, Some(Issuer::External(_))),
            has_database: self.owners.of_service.contains_key(name),
            calls: self.calls.from.contains_key(name),
            is_called: service.body.route.is_some() || self.calls.to.contains_key(name),
        }
    }

    fn instances(&self, service: &Entry<Service>, placed: &Placed, part: Part) -> Option<Vec<plan::Instance>> {
        let own = self.variables(service, part)?;
        let instance = |copy: &layout::PlacedCopy| {
            let (host, port) = self.address(service, copy)?;
            let listen = self.hosts.listen(&host);
            let common = [
                service.name.to_string(),
                copy.name.to_string(),
                self.domain()?.to_string(),
                format!("{listen}:{port}"),
            ];
            let environment = process::environment(service, common, (listen, port), own.clone());
            Some(plan::Instance {
                name: copy.name.clone(),
                index: copy.index,
                node: copy.node.clone(),
                start: copy.index <= placed.replicas.start(),
                environment,
                host,
                port,
            })
        };
        placed.copies.iter().map(instance).collect()
    }

    /// What the environment of a service's instances says of its place in the mesh; the same for each of them.
    fn variables(&self, service: &Entry<Service>, part: Part) -> Option<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
        if service.body.route.is_some() {
            set("BERTH_PUBLIC_URL", self.public.url.clone());
        }
        if part.is_gateway {
            set("BERTH_PUBLIC_LISTEN", self.public.listen.clone());
        }
        if part.is_issuer {
            set("BERTH_AUDIENCE", self.audience()?);
        }
        if let Some(name) = self.owners.of_service.get(&service.name) {
            let database = self.declaration.databases.get(name)?;
            let (_, host, port) = self.server(name, *database.body.port.get_ref())?;
            let owner = &service.name;
            set("BERTH_DATABASE_URL", format!("postgresql://{owner}@{host}:{port}/{owner}"));
            set("BERTH_DATABASE_SERVER", name.to_string());
        }
        if service.body.uses_events() {
            let events = self.declaration.events.as_ref()?;
            let (_, host, port) = self.server(&Name::new(EVENTS).ok()?, *events.port.get_ref())?;
            set("BERTH_EVENTS_URL", format!("tls://{host}:{port}"));
        }
        if !service.body.consumes.is_empty() {
            set("BERTH_CONSUMES", self.bus.consumed_by(&service.name));
        }
        for callee in self.calls.from.get(&service.name).into_iter().flatten() {
            let callee = self.declaration.services.get(callee)?;
            let addresses = self.layout.copies(&callee.name).iter().map(|copy| {
                let (host, port) = self.address(callee, copy)?;
                Some(format!("{host}:{port}"))
            });
            let mut addresses: Vec<_> = addresses.collect::<Option<_>>()?;
            addresses.dedup();
            set(&process::peer_variable(&callee.name), addresses.join(","));
        }
        Some(variables)
    }
}

fn health(service: &Entry<Service>) -> plan::Health {
    let declared = &service.body.health;
    plan::Health {
        path: declared.path.clone(),
        interval_ms: declared.interval,
        timeout_ms: declared.timeout,
        unhealthy_after: declared.unhealthy_after,
        healthy_after: declared.healthy_after,
    }
}

fn limits(declared: &Limits) -> plan::Limits {
    plan::Limits {
        max_body_bytes: declared.max_body,
        max_header_bytes: declared.max_header,
        max_connections: declared.max_connections,
        max_requests: declared.max_requests,
        connect_timeout_ms: declared.connect_timeout,
        header_timeout_ms: declared.header_timeout,
        total_timeout_ms: declared.total_timeout,
        idle_timeout_ms: declared.idle_timeout,
        retry_budget_percent: declared.retry_budget,
        rate_per_second: declared.rate.map(|rate| rate.per_second),
        rate_burst: declared.rate.map(|rate| rate.burst),
    }
}
