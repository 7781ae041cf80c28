//! `bootstrap.json`: the users and clients that are declared rather than registered. At every start, and on reload, they
//! are brought to the declared state; others are left alone.

use std::collections::BTreeSet;

use database::{Database, ScopedFutureExt, Transaction};
use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::credentials::{CredentialError, Credentials};
use serde::Deserialize;
use uuid::Uuid;

use crate::domain::User;
use crate::domain::client::{Client, GrantType, check_redirect_uri};
use crate::domain::parameters::words;
use crate::logins::MAX_NAME;
use crate::passwords::{MAX_PASSWORD, PasswordError, Passwords};
use crate::store;

/// The credential that holds it.
pub const CREDENTIAL: &str = "bootstrap.json";

/// The document.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    #[serde(default)]
    users: Vec<DeclaredUser>,
    #[serde(default)]
    clients: Vec<DeclaredClient>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredUser {
    id: Uuid,
    name: String,
    password: Password,
    #[serde(default)]
    roles: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredClient {
    id: String,
    #[serde(default)]
    public: bool,
    secret: Option<Password>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    grants: BTreeSet<GrantType>,
    #[serde(default)]
    scopes: BTreeSet<String>,
    #[serde(default)]
    roles: BTreeSet<String>,
}

/// A password that is never printed.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Password(zeroize::Zeroizing<String>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why the declared state could not be brought about.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The credential cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is not the document it should be.
    #[error("the credential `{CREDENTIAL}`: {path}: {mend}")]
    Invalid {
        /// Where, as a path into the document.
        path: String,
        /// What is wrong, or would be right.
        mend: String,
    },
    /// A hash cannot be computed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl BootstrapError {
    /// Whether the same may work later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => error.is_transient(),
            Self::Password(PasswordError::Busy) => true,
            _ => false,
        }
    }
}

fn invalid(path: String, mend: impl Into<String>) -> BootstrapError {
    BootstrapError::Invalid { path, mend: mend.into() }
}

impl Bootstrap {
    /// Reads the credential; without it nothing is declared.
    ///
    /// # Errors
    /// Names the first place that is wrong.
    pub fn load(credentials: &Credentials) -> Result<Self, BootstrapError> {
        match credentials.optional(CREDENTIAL)? {
            None => Ok(Self::default()),
            Some(secret) => Self::parse(secret.expose()),
        }
    }

    /// Reads the document.
    ///
    /// # Errors
    /// Names the first place that is wrong.
    pub fn parse(json: &[u8]) -> Result<Self, BootstrapError> {
        // serde reads an array as a struct, too.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(invalid(".".to_owned(), "must be a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(json);
        let bootstrap: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| invalid(error.path().to_string(), error.inner().to_string()))?;
        json.end().map_err(|error| invalid(".".to_owned(), error.to_string()))?;
        bootstrap.check()?;
        Ok(bootstrap)
    }

    fn check(&self) -> Result<(), BootstrapError> {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (index, user) in self.users.iter().enumerate() {
            let at = |field: &str| format!("users[{index}].{field}");
            check_name(&user.name).map_err(|mend| invalid(at("name"), mend))?;
            check_password(&user.password).map_err(|mend| invalid(at("password"), mend))?;
            check_words(&user.roles).map_err(|mend| invalid(at("roles"), mend))?;
            if !ids.insert(user.id) {
                return Err(invalid(at("id"), "is another user's, too"));
            }
            if !names.insert(user.name.to_lowercase()) {
                return Err(invalid(at("name"), "is another user's, too"));
            }
        }
        let mut ids = BTreeSet::new();
        for (index, client) in self.clients.iter().enumerate() {
            client.check().map_err(|(field, mend)| invalid(format!("clients[{index}].{field}"), mend))?;
            if !ids.insert(client.id.as_str()) {
                return Err(invalid(format!("clients[{index}].id"), "is another client's, too"));
            }
        }
        Ok(())
    }

    /// Brings about what is declared. A user whose password is another than before is signed out everywhere.
    ///
    /// # Errors
    /// When the database is away, or a name is somebody else's.
    pub async fn apply(&self, database: &Database, passwords: &Passwords, clock: &Clock) -> Result<(), BootstrapError> {
        let mut users = Vec::new();
        for (index, declared) in self.users.iter().enumerate() {
            let known = store::find_user(&*database.get().await?, declared.id).await?;
            let known = known.map(|user| user.password_hash);
            let (password_hash, changed) = rehash(passwords, &declared.password, known).await?;
            let (name, roles) = (declared.name.clone(), declared.roles.clone());
            users.push((index, User { id: declared.id, name, password_hash, roles }, changed));
        }
        let mut clients = Vec::new();
        for declared in &self.clients {
            let known = store::find_client(&*database.get().await?, &declared.id).await?;
            let secret_hash = match &declared.secret {
                Some(secret) => Some(rehash(passwords, secret, known.and_then(|client| client.secret_hash)).await?.0),
                None => None,
            };
            clients.push(declared.client(secret_hash));
        }
        database.transaction(|tx| put(tx, &users, &clients, clock.now()).scope_boxed()).await?;
        tracing::info!(users = users.len(), clients = clients.len(), "users and clients are as declared");
        Ok(())
    }
}

async fn put(
    tx: &Transaction<'_>,
    users: &[(usize, User, bool)],
    clients: &[Client],
    now: Timestamp,
) -> Result<(), BootstrapError> {
    for (index, user, changed) in users {
        store::put_user(tx, user, now).await.map_err(|error| match error.constraint() {
            Some(store::UNIQUE_NAME) => {
                let mend =
                    format!("{} is the name of another user; keep that user's id, or choose another name", user.name);
                invalid(format!("users[{index}].name"), mend)
            }
            _ => error.into(),
        })?;
        if *changed {
            store::delete_sessions_of(tx, user.id).await?;
            store::revoke_grants_of(tx, user.id, now).await?;
        }
    }
    for client in clients {
        store::put_client(tx, client, now).await?;
    }
    Ok(())
}

/// The known hash if it is this password's, else a new one, and whether it is new.
async fn rehash(
    passwords: &Passwords,
    password: &Password,
    known: Option<String>,
) -> Result<(String, bool), PasswordError> {
    if let Some(known) = known
        && passwords.verify(passwords.turn().await?, &password.0, Some(&known)).await?
    {
        return Ok((known, false));
    }
    Ok((passwords.hash(&password.0).await?, true))
}

impl DeclaredClient {
    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, mend: &str| Err((field.to_owned(), mend.to_owned()));
        if self.id.is_empty() || self.id.len() > MAX_NAME || words(&self.id).is_none_or(|words| words.len() != 1) {
            return wrong("id", "must be 1 to 128 visible ASCII characters");
        }
        if self.id.parse::<Uuid>().is_ok() || self.id.starts_with("spiffe:") {
            return wrong("id", "must not look like a user's id or a workload's");
        }
        match (&self.secret, self.public) {
            (Some(_), true) => return wrong("secret", "a public client cannot keep one; leave it out, or `public`"),
            (None, false) => return wrong("secret", "is missing; give one, or say `\"public\": true`"),
            (Some(secret), false) if secret.0.len() < 16 => return wrong("secret", "must have 16 characters or more"),
            (Some(secret), false) => check_password(secret).map_err(|mend| ("secret".to_owned(), mend.to_owned()))?,
            (None, true) => {}
        }
        if self.public && self.grants.contains(&GrantType::ClientCredentials) {
            return wrong("grants", "a public client cannot act for itself: nobody knows that it is it");
        }
        if self.grants.contains(&GrantType::AuthorizationCode) && self.redirect_uris.is_empty() {
            return wrong("redirect_uris", "must name where the client is answered");
        }
        for (index, uri) in self.redirect_uris.iter().enumerate() {
            check_redirect_uri(uri).map_err(|mend| (format!("redirect_uris[{index}]"), mend.to_owned()))?;
        }
        for (field, set) in [("scopes", &self.scopes), ("roles", &self.roles)] {
            check_words(set).map_err(|mend| (field.to_owned(), mend.to_owned()))?;
        }
        Ok(())
    }

    fn client(&self, secret_hash: Option<String>) -> Client {
        Client {
            id: self.id.clone(),
            secret_hash,
            redirect_uris: self.redirect_uris.clone(),
            grants: self.grants.clone(),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
        }
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = !name.chars().any(|character| character.is_control()) && name.trim() == name;
    if plain && !name.is_empty() && name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err("must be 1 to 128 bytes of text, without control characters and without spaces around it")
    }
}

fn check_password(password: &Password) -> Result<(), &'static str> {
    if (8..=MAX_PASSWORD).contains(&password.0.len()) { Ok(()) } else { Err("must be 8 to 1024 bytes long") }
}

fn check_words(set: &BTreeSet<String>) -> Result<(), &'static str> {
    if set.iter().all(|word| words(word).is_some_and(|words| words.len() == 1)) {
        Ok(())
    } else {
        Err("must be words of visible ASCII characters without quotes and backslashes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_named_with_its_place() {
        let user = |change: &str| {
            format!(
                r#"{{"users":[{{"id":"01890000-0000-7000-8000-000000000001","name":"alice","password":"long enough"{change}}}]}}"#
            )
        };
        let client = |fields: &str| format!(r#"{{"clients":[{{"id":"c",{fields}}}]}}"#);
        let public = r#""public":true,"grants":["authorization_code"],"redirect_uris":"#;
        for (document, place, mend) in [
            ("", ".", "object"),
            ("[]", ".", "object"),
            ("{", ".", "EOF"),
            (r#"{"user":[]}"#, ".", "unknown field"),
            (&user(r#","role":[]"#), "users[0]", "unknown field"),
            (&user(r#","roles":[7]"#), "users[0].roles[0]", "string"),
            (&user(r#","roles":["a b"]"#), "users[0].roles", "words"),
            (&user("").replace("alice", ""), "users[0].name", "1 to 128"),
            (&user("").replace("alice", " alice"), "users[0].name", "spaces"),
            (&user("").replace("long enough", "short"), "users[0].password", "8 to 1024"),
            (&user("").replace("01890000", "x"), "users[0].id", "UUID"),
            (&client(r#""grants":[]"#), "clients[0].secret", "public"),
            (&client(r#""grants":["password"]"#), "clients[0].grants[0]", "authorization_code"),
            (&client(r#""grants":[],"secret":"0123456789abcdef","public":true"#), "clients[0].secret", "public"),
            (&client(r#""grants":[],"secret":"short""#), "clients[0].secret", "16"),
            (&client(r#""grants":["client_credentials"],"public":true"#), "clients[0].grants", "itself"),
            (&client(&format!("{public}[]")), "clients[0].redirect_uris", "answered"),
            (&client(&format!(r#"{public}["http://shop.test/"]"#)), "clients[0].redirect_uris[0]", "https"),
            (&client(r#""grants":[],"public":true,"scopes":["a b"]"#), "clients[0].scopes", "words"),
            (
                &client(r#""grants":[],"public":true"#).replace(r#""c""#, r#""01890000-0000-7000-8000-000000000001""#),
                "clients[0].id",
                "user's id",
            ),
            (
                &client(r#""grants":[],"public":true"#).replace(r#""c""#, r#""spiffe://a/b""#),
                "clients[0].id",
                "workload",
            ),
        ] {
            let error = Bootstrap::parse(document.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(mend), "{document}: {error}");
            assert!(!error.contains("long enough") && !error.contains("0123456789abcdef"), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let document =
            r#"{"users":[{"id":"01890000-0000-7000-8000-000000000001","name":"alice","password":"long enough"}]}"#;
        let bootstrap = Bootstrap::parse(document.as_bytes()).unwrap();
        assert!(!format!("{bootstrap:?}").contains("long enough"));
    }
}
