//! From the plan to a server: what a PostgreSQL and the event bus are to be, wherever they run.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use mesh::plan::{Database, Events};
use servers::{
    Account, NatsProgram, PostgresPrograms, TlsFiles,
    nats::{Nats, User},
    postgres::Postgres,
};

use crate::{
    failure::Failure,
    secrets::{EVENT_USERS, files},
};

/// Connections a database accepts: pools of all instances, twice, for the time in which one replaces the other.
const CONNECTIONS: u16 = 200;

/// Where a server lives.
#[derive(Debug)]
pub struct Place {
    /// Its data folder.
    pub data: PathBuf,
    /// Its credentials folder.
    pub credentials: PathBuf,
    /// The address it listens on.
    pub host: IpAddr,
}

impl Place {
    fn tls(&self) -> TlsFiles {
        let file = |name: &str| self.credentials.join(name);
        TlsFiles { cert: file("tls-cert.pem"), key: file("tls-key.pem"), ca: file("mesh-ca.pem") }
    }
}

/// The server of a database.
pub fn postgres(database: &Database, place: Place, programs: PostgresPrograms, account: Option<Account>) -> Postgres {
    Postgres {
        programs,
        tls: Some(place.tls()),
        data: place.data,
        host: place.host,
        port: database.port.get(),
        account,
        max_connections: CONNECTIONS,
        memory: database.memory_bytes.get(),
        durable: true,
    }
}

/// The event bus.
///
/// # Errors
/// Its list of users is missing or unreadable.
pub fn nats(events: &Events, place: Place, program: NatsProgram) -> Result<Nats, Failure> {
    let keys = public_keys(&place.credentials.join(EVENT_USERS))?;
    let users = events.users.iter().map(|user| {
        let key = keys.get(user.service.as_str());
        let public_key = key.cloned().ok_or_else(|| unknown_user(&user.service))?;
        Ok(User { public_key, publish: user.publish.clone(), subscribe: user.subscribe.clone() })
    });
    Ok(Nats {
        program,
        users: users.collect::<Result<_, Failure>>()?,
        tls: Some(place.tls()),
        data: place.data,
        name: events.server.to_string(),
        host: place.host,
        port: events.port.get(),
        max_store: events.storage_bytes.get(),
    })
}

fn public_keys(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text = files::read(path)?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| {
        Failure::mendable(
            format!("cannot use {}: {error}", path.display()),
            "run `berth secrets init`, which writes it",
        )
    })
}

fn unknown_user(service: &str) -> Failure {
    Failure::mendable(format!("the event bus does not know {service}"), "run `berth secrets init`")
}
