//! `mesh.toml` in, [`Plan`] or [`Diagnostics`] out.
//!
//! A person declares a mesh once; [`resolve`] answers every question whoever runs it could ask, and refuses what cannot work. Pure:
//! no file is read, nothing is run, the same text gives the same plan. What the plan is used for (processes, images, machines, routing)
//! lives elsewhere.

mod command;
mod name;
mod path;
pub mod plan;
mod subject;
mod units;

pub use name::{Domain, InvalidName, Name};
pub use path::UrlPath;
pub use plan::Plan;
pub use subject::Subject;
pub use units::{Bytes, InvalidQuantity, MilliCpu, Millis, Port};

/// Where the mesh is to run, and so how its parts reach one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On its nodes: a host is `<node>.<domain>`.
    Nodes,
    /// All on this machine: every instance, every database and the event bus gets an address of its own in 127.0.0.0/8, so that all keep
    /// the ports they have on their nodes and two meshes do not meet. The gateway's public listener is `127.0.0.1:public_port`, its
    /// public host `localhost`.
    Loopback {
        /// The first three numbers of the addresses; the first is 127.
        block: [u8; 3],
        /// The port of the public listener.
        public_port: u16,
    },
}
