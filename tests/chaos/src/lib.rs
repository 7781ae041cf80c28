//! Torments a whole mesh and then counts what it has lost: nothing, or this says what.
//!
//! A run brings the shop up ([`world`]) with the real programs under the real supervisor, lets [`clients`] order through the
//! gateway and remember every answer ([`history`]), and lets [`fault`]s strike by a schedule that a seed decides. Then all is
//! healed, the mesh gets time to finish what it owes (and a person to do what only a person can, [`mending`]), and the [`invariants`]
//! are checked by SQL over all databases and against what the clients were told.
//!
//! The seed decides what is asked and which fault strikes whom, when and for how long. What the machine makes of it in the
//! meantime is not decided by anybody: a replay meets the same faults, not the same microsecond.

pub mod clients;
pub mod fault;
pub mod history;
pub mod invariants;
pub mod mending;
pub mod run;
pub mod world;
