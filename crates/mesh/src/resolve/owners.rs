//! Which service owns which database: exactly one each.

use std::collections::BTreeMap;

use crate::declaration::Declaration;
use crate::diagnostics::{Finding, Findings, Rule, Span};
use crate::name::Name;

/// Owner by database, and database by owner.
#[derive(Debug, Default)]
pub(super) struct Owners<'d> {
    pub(super) of_database: BTreeMap<&'d Name, &'d Name>,
    pub(super) of_service: BTreeMap<&'d Name, &'d Name>,
}

impl<'d> Owners<'d> {
    /// Either side may name the other; where both do, they must agree.
    pub(super) fn new(declaration: &'d Declaration, findings: &mut Findings) -> Self {
        let mut claims: Vec<(&Name, &Name, Span)> = Vec::new();
        let mut dangling: Vec<&Name> = Vec::new();
        for service in declaration.services.iter() {
            if let Some(reference) = &service.body.database
                && let Some(database) = declaration.databases.find(reference, "database", findings)
            {
                claims.push((&database.name, &service.name, reference.span()));
            }
        }
        for database in declaration.databases.iter() {
            let Some(reference) = &database.body.owner else { continue };
            match declaration.services.find(reference, "service", findings) {
                Some(service) => claims.push((&database.name, &service.name, reference.span())),
                // Reported as such; that it has no owner then is no news.
                None => dangling.push(&database.name),
            }
        }
        let mut owners = Self::default();
        for (database, service, span) in &claims {
            let first = *owners.of_database.entry(database).or_insert(service);
            if first != *service {
                findings.push(two_owners(database, first, service, span, &claims));
            }
            let first = *owners.of_service.entry(service).or_insert(database);
            if first != *database {
                let finding = Finding::new(
                    Rule::SharedDatabase,
                    format!("`{service}` would own two databases, `{first}` and `{database}`"),
                )
                .at(span.clone(), "one too many")
                .help("a service has at most one database: put both schemas into one, or make it two services");
                findings.push(finding);
            }
        }
        for database in declaration.databases.iter() {
            if !owners.of_database.contains_key(&database.name) && !dangling.contains(&&database.name) {
                let finding =
                    Finding::new(Rule::UnownedDatabase, format!("nobody owns the database `{}`", database.name))
                        .at(database.span.clone(), "of no use to anybody")
                        .help(format!(
                            "name its service, `owner = \"…\"`, or give a service `database = \"{}\"`",
                            database.name
                        ));
                findings.push(finding);
            }
        }
        owners
    }
}

fn two_owners(database: &Name, first: &Name, second: &Name, span: &Span, claims: &[(&Name, &Name, Span)]) -> Finding {
    let finding = Finding::new(Rule::SharedDatabase, format!("`{first}` and `{second}` would both own `{database}`"))
        .at(span.clone(), format!("`{second}`"))
        .help("a database is never shared: give each service its own, and let one ask the other or consume its events");
    match claims.iter().find(|(name, owner, _)| *name == database && *owner == first) {
        Some((_, _, span)) => finding.at(span.clone(), format!("`{first}`")),
        None => finding,
    }
}
