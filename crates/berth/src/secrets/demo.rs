//! The users one tries the mesh with. Their passwords are random, and stand in `.berth/users` for their owner to read.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files;
use crate::{failure::Failure, project::Project};

/// The client `berth token` logs in as; a public one (RFC 8252), so it has no secret.
pub const CLIENT: &str = "berth-cli";
/// Where it is sent back to. Nothing listens there: the CLI takes the answer before it would be followed.
pub const REDIRECT: &str = "http://127.0.0.1/callback";

const USERS: [(&str, &[&str]); 6] = [
    ("alice", &["customer"]),
    ("bob", &["customer"]),
    ("carol", &["clerk"]),
    ("dave", &["auditor"]),
    ("mallory", &[]),
    ("admin", &["admin"]),
];

/// What the identity service reads as `bootstrap.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Bootstrap {
    users: Vec<User>,
    clients: Vec<Client>,
}

#[derive(Debug, Serialize, Deserialize)]
struct User {
    id: Uuid,
    name: String,
    password: String,
    roles: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Client {
    id: String,
    public: bool,
    redirect_uris: Vec<String>,
    grants: Vec<String>,
    scopes: Vec<String>,
}

/// A new `bootstrap.json`.
pub(super) fn bootstrap() -> Result<String, Failure> {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let users = USERS.iter().map(|(name, roles)| User {
        id: Uuid::now_v7(),
        name: (*name).to_owned(),
        password: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>()),
        roles: owned(roles),
    });
    let client = Client {
        id: CLIENT.to_owned(),
        public: true,
        redirect_uris: owned(&[REDIRECT]),
        grants: owned(&["authorization_code", "refresh_token"]),
        scopes: owned(&["openid", "offline_access", "shop"]),
    };
    let bootstrap = Bootstrap { users: users.collect(), clients: vec![client] };
    serde_json::to_string_pretty(&bootstrap).map_err(Failure::other)
}

/// The users of a `bootstrap.json` as a list for people: name, password, roles.
pub(super) fn list(bootstrap: &str) -> serde_json::Result<String> {
    let bootstrap: Bootstrap = serde_json::from_str(bootstrap)?;
    let mut list = String::from("# user password roles\n");
    for user in bootstrap.users {
        // Writing to a text cannot fail.
        let _ = writeln!(list, "{} {} {}", user.name, user.password, user.roles.join(","));
    }
    Ok(list)
}

/// The password of a demo user.
///
/// # Errors
/// There is no such user.
pub fn password_of(project: &Project, name: &str) -> Result<String, Failure> {
    let list = files::read(&project.users())?.unwrap_or_default();
    let entries: Vec<(&str, &str)> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?, words.next()?))
        })
        .collect();
    let found = entries.iter().find(|(user, _)| *user == name).map(|(_, password)| (*password).to_owned());
    found.ok_or_else(|| {
        let known: Vec<&str> = entries.iter().map(|(user, _)| *user).collect();
        Failure::mendable(
            format!("there is no demo user {name}"),
            match known.as_slice() {
                [] => "demo users are made by `berth up`, if the mesh has an identity service".to_owned(),
                known => format!("there are: {}", known.join(", ")),
            },
        )
    })
}
