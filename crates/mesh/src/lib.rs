//! `mesh.toml` in, [`Plan`] or [`Diagnostics`] out.
//!
//! A person declares a mesh once; [`resolve`] answers every question whoever runs it could ask, and refuses what cannot work, all of it
//! at once and each with its line. Pure: no file is read, nothing is run, the same text gives the same plan. What the plan is used for
//! (processes, images, machines, routing) lives elsewhere.
//!
//! [`declaration`] is what a person wrote, [`plan`] what comes out, [`mod@resolve`] the way between.

mod command;
mod declaration;
mod diagnostics;
mod field;
mod name;
mod path;
pub mod plan;
mod read;
mod resolve;
mod runtimes;
mod schema;
mod subject;
mod units;

pub use diagnostics::{Diagnostics, Finding, Rule};
pub use name::{Domain, InvalidName, Name};
pub use path::UrlPath;
pub use plan::Plan;
pub use runtimes::Template;
pub use schema::schema;
pub use subject::Subject;
pub use units::{Bytes, InvalidQuantity, MilliCpu, Millis, Port};

use diagnostics::Findings;
use toml::de::DeTable;

/// Where the mesh is to run, and so how its parts reach one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On its nodes: a host is `<node>.<domain>`, and each further copy of a service on a node takes the next port.
    Nodes,
    /// All on this machine: every instance, every database and the event bus gets an address of its own in 127.0.0.0/8, so that all keep
    /// their declared ports and two meshes do not meet. The gateway's public listener is `127.0.0.1:public_port`, its public host
    /// `localhost`.
    Loopback {
        /// The first three numbers of the addresses; the first is 127.
        block: [u8; 3],
        /// The port of the public listener; not 0.
        public_port: u16,
    },
    /// Each part a container of its own, all copies of a service under one name: a host is the name of the service, database or event
    /// bus, which resolves to every copy there is. The gateway's public host is `localhost` unless one is declared.
    Containers,
}

/// Resolves the text of a `mesh.toml`. `file_name` is only for the diagnostics, which are of everything that is wrong and not of the
/// first error alone; where the text is no TOML, that is all they are of.
pub fn resolve(file_name: &str, text: &str, placement: &Placement) -> Result<Plan, Diagnostics> {
    let mut findings = Findings::default();
    let (document, errors) = DeTable::parse_recoverable(text);
    let plan = if errors.is_empty() {
        let declaration = declaration::Declaration::read(&document, &mut findings);
        resolve::resolve(&declaration, placement, &mut findings)
    } else {
        for error in errors {
            let place = error.span().unwrap_or(0..0);
            findings.push(Finding::new(Rule::Syntax, error.message()).at(place, "here"));
        }
        None
    };
    plan.ok_or_else(|| Diagnostics::new(file_name, text, findings.into_inner()))
}
