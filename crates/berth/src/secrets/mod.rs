//! `berth secrets init`: every secret a mesh needs, one folder for each service, database and event bus, readable by it
//! alone.
//!
//! What each needs stands in the plan. Only what is missing is made, so that it can be repeated at any time; what follows
//! from other files (the authority's certificate, the public token keys of callers) is brought up to date. Nothing secret
//! is ever shown.

mod demo;
pub mod export;
pub mod files;
mod token_keys;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use mesh::plan::{Credential, CredentialKind, Plan};
use runtime::credentials::Credentials;
use tls::{Identity, authority::Authority};

use crate::{failure::Failure, project::Project};

pub use demo::{CLIENT, REDIRECT, password_of};

/// The credential of the event bus that says who its users are: `{"item-management": "U…"}`.
pub const EVENT_USERS: &str = "event-users.json";

/// A certificate is renewed when it has no more than this left: the month that an operator who starts the mesh seldom needs.
const RENEWED_BEFORE_END: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What [`init`] did.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that were made or brought up to date, by folder.
    pub written: BTreeMap<PathBuf, Vec<String>>,
    /// Files that were there already.
    pub kept: usize,
}

impl Report {
    fn note(&mut self, path: &Path, wrote: bool) {
        if !wrote {
            self.kept = self.kept.saturating_add(1);
            return;
        }
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.written.entry(folder).or_default().push(name);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (folder, names) in &self.written {
            writeln!(f, "{}: {}", folder.display(), names.join(", "))?;
        }
        let made: usize = self.written.values().map(Vec::len).sum();
        write!(f, "{made} files written, {} were there already", self.kept)
    }
}

/// Makes what is missing. Demo users only when asked for: a mesh that others reach must not have them.
///
/// # Errors
/// A file cannot be written or read, or a secret that only its operator can provide is missing.
pub fn init(project: &Project, plan: &Plan, demo_users: bool) -> Result<Report, Failure> {
    project.create_folders().map_err(|error| Failure::io("cannot make the folder .berth", error))?;
    let (authority, report) = authority(project, plan)?;
    let mut maker = Maker { project, plan, authority, report, demo_users };
    let databases = plan.databases.iter().map(|database| (database.name.to_string(), &database.credentials));
    let events = plan.events.iter().map(|events| (events.server.to_string(), &events.credentials));
    let services = plan.services.iter().map(|service| (service.name.to_string(), &service.credentials));
    let owners: Vec<(String, &Vec<Credential>)> = databases.chain(events).chain(services).collect();
    for (owner, _) in &owners {
        files::private_folder(&maker.folder(owner))?;
    }
    // What follows from other files comes after them.
    let (derived, own): (Vec<_>, Vec<_>) = owners
        .iter()
        .flat_map(|(owner, credentials)| credentials.iter().map(move |credential| (owner.as_str(), credential)))
        .partition(|(_, credential)| {
            matches!(credential.kind, CredentialKind::TokenIssuers | CredentialKind::EventUsers)
        });
    for (owner, credential) in own.into_iter().chain(derived) {
        maker.provide(owner, credential)?;
    }
    Ok(maker.report)
}

/// The password of a database's role.
///
/// # Errors
/// There is none.
pub fn database_password(project: &Project, database: &str) -> Result<String, Failure> {
    let path = project.credentials().join(database).join("database-password");
    let password = files::read(&path)?.ok_or_else(|| unusable(&path, &"it is missing"))?;
    Ok(password.trim_end_matches('\n').to_owned())
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> Failure {
    Failure::mendable(
        format!("cannot use {}: {why}", path.display()),
        "remove it, then run `berth secrets init` to make a new one",
    )
}

/// A certificate for whoever may use the mesh's authority, in the name of an operator, for a quarter of an hour. Nothing of it is left
/// on the disk.
///
/// # Errors
/// The authority cannot be used.
pub fn operator(project: &Project, plan: &Plan) -> Result<Arc<Identity>, Failure> {
    let (authority, _) = authority(project, plan)?;
    // Counted from an hour ago.
    let authority = authority.with_leaf_validity(Duration::from_secs(75 * 60));
    let leaf = authority.issue("operator")?;
    let folder = project.state().join(format!("operator-{}", std::process::id()));
    files::private_folder(&folder)?;
    let identity = [
        ("tls-cert.pem", leaf.cert_pem.as_str()),
        ("tls-key.pem", leaf.key_pem.as_str()),
        ("mesh-ca.pem", authority.ca_pem()),
    ]
    .into_iter()
    .try_for_each(|(name, content)| files::replace(&folder.join(name), content.as_bytes()))
    .and_then(|()| Ok(Identity::load(&Credentials::at(&folder), &plan.domain)?));
    fs::remove_dir_all(&folder).map_err(|error| Failure::io(format!("cannot remove {}", folder.display()), error))?;
    identity
}

fn authority(project: &Project, plan: &Plan) -> Result<(Authority, Report), Failure> {
    let folder = project.state().join("authority");
    files::private_folder(&folder)?;
    let (cert, key) = (folder.join("mesh-ca.pem"), folder.join("mesh-ca-key.pem"));
    let mut report = Report::default();
    let (authority, made) = match (files::read(&cert)?, files::read(&key)?) {
        (Some(cert_pem), Some(key_pem)) => (Authority::load(&cert_pem, &key_pem)?, false),
        (Some(_), None) => {
            return Err(Failure::mendable(
                format!("{} has no {} beside it", cert.display(), "mesh-ca-key.pem"),
                "put the authority's key back, or remove the folder .berth/authority to begin with a new authority",
            ));
        }
        (None, _) => {
            let authority = Authority::create(&plan.domain)?;
            files::replace(&key, authority.key_pem().as_bytes())?;
            files::replace(&cert, authority.ca_pem().as_bytes())?;
            (authority, true)
        }
    };
    report.note(&key, made);
    report.note(&cert, made);
    files::replace_public(&project.ca(), authority.ca_pem().as_bytes())?;
    Ok((authority, report))
}

struct Maker<'a> {
    project: &'a Project,
    plan: &'a Plan,
    authority: Authority,
    report: Report,
    demo_users: bool,
}

impl Maker<'_> {
    fn folder(&self, owner: &str) -> PathBuf {
        self.project.credentials().join(owner)
    }

    fn provide(&mut self, owner: &str, credential: &Credential) -> Result<(), Failure> {
        let path = self.folder(owner).join(&credential.name);
        let wrote = match credential.kind {
            CredentialKind::MeshCertificate | CredentialKind::PublicCertificate => self.certify(owner, credential)?,
            // Made together with its certificate.
            CredentialKind::MeshKey | CredentialKind::PublicKey => return Ok(()),
            CredentialKind::MeshCa => files::replace_if_changed(&path, self.authority.ca_pem().as_bytes())?,
            CredentialKind::TokenIssuers => files::replace_if_changed(&path, self.token_issuers(owner)?.as_bytes())?,
            CredentialKind::DatabasePassword => self.share_password(owner, &path)?,
            CredentialKind::EventsSeed => {
                make_if_missing(&path, || nkeys::KeyPair::new_user().seed().map_err(Failure::other))?
            }
            CredentialKind::EventUsers => files::replace_if_changed(&path, self.event_users()?.as_bytes())?,
            CredentialKind::TokenKey => make_if_missing(&path, token_keys::generate)?,
            CredentialKind::KeyEncryptionKey => make_if_missing(&path, || Ok(STANDARD.encode(random())))?,
            CredentialKind::Bootstrap => {
                return if self.demo_users { self.demo_users(&path) } else { Ok(()) };
            }
            CredentialKind::Generated => {
                let shared = self.shared_secret(&credential.name)?;
                let made = make_if_missing(&shared, || Ok(URL_SAFE_NO_PAD.encode(random())))?;
                self.report.note(&shared, made);
                self.copy_secret(&shared, &path)?
            }
            CredentialKind::Provided | CredentialKind::IssuerRoots => {
                let shared = self.shared_secret(&credential.name)?;
                if !shared.is_file() && credential.optional {
                    return Ok(());
                }
                if !shared.is_file() {
                    return Err(Failure::mendable(
                        format!("{owner} needs the secret {}, which only you can provide", credential.name),
                        format!("write it into {} (mode 0600), then start again", shared.display()),
                    ));
                }
                self.copy_secret(&shared, &path)?
            }
        };
        self.report.note(&path, wrote);
        Ok(())
    }

    /// Secrets of the mesh as a whole, from where they are copied to whoever may read them.
    fn shared_secret(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.project.state().join("secrets");
        files::private_folder(&folder)?;
        Ok(folder.join(name))
    }

    fn copy_secret(&self, from: &Path, to: &Path) -> Result<bool, Failure> {
        let content = fs::read(from).map_err(|error| Failure::io(format!("cannot read {}", from.display()), error))?;
        files::replace_if_changed(to, &content)
    }

    /// A certificate and its key; both anew if one of them is missing, the authority is another one, or the certificate ends soon.
    fn certify(&mut self, owner: &str, credential: &Credential) -> Result<bool, Failure> {
        let public = credential.kind == CredentialKind::PublicCertificate;
        let cert = self.folder(owner).join(&credential.name);
        let key = self.folder(owner).join(if public { "public-key.pem" } else { "tls-key.pem" });
        let soon = SystemTime::now() + RENEWED_BEFORE_END;
        let current = files::read(&cert)?.is_some_and(|cert| self.authority.vouches_for(&cert, soon));
        let missing = !current || !key.is_file();
        if missing {
            let leaf = if public { self.public_leaf()? } else { self.authority.issue(owner)? };
            files::replace(&key, leaf.key_pem.as_bytes())?;
            files::replace(&cert, leaf.cert_pem.as_bytes())?;
        }
        self.report.note(&key, missing);
        Ok(missing)
    }

    fn public_leaf(&self) -> Result<tls::authority::Leaf, Failure> {
        let mut names = vec!["localhost", &self.plan.domain];
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let public_host = self.plan.gateway.public_host.as_str();
        match public_host.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_) if names.contains(&public_host) => {}
            Err(_) => names.push(public_host),
        }
        Ok(self.authority.issue_public(&names, &addresses)?)
    }

    /// A database and its owner have the same password.
    fn share_password(&self, owner: &str, path: &Path) -> Result<bool, Failure> {
        let database = self.plan.databases.iter().find(|database| database.name == *owner || database.owner == *owner);
        let database = database.ok_or_else(|| Failure::other(format!("{owner} has no database")))?;
        let both = [&database.name, &database.owner].map(|name| self.folder(name).join("database-password"));
        for known in &both {
            if let Some(password) = files::read(known)? {
                return files::replace_if_changed(path, password.as_bytes());
            }
        }
        files::replace(path, URL_SAFE_NO_PAD.encode(random()).as_bytes())?;
        Ok(true)
    }

    fn token_issuers(&self, service: &str) -> Result<String, Failure> {
        let service = self.plan.service(service).ok_or_else(|| Failure::other(format!("no service {service}")))?;
        let mut issuers = serde_json::Map::new();
        for caller in &service.callers {
            let path = self.folder(caller).join("token-key.pem");
            let key = files::read(&path)?.ok_or_else(|| unusable(&path, &"it is missing"))?;
            let public = token_keys::public_jwk(&key).map_err(|error| unusable(&path, &error))?;
            let issuer = tls::SpiffeId::new(&self.plan.domain, caller).map_err(Failure::other)?;
            issuers.insert(issuer.to_string(), serde_json::json!({ "keys": [public] }));
        }
        serde_json::to_string_pretty(&issuers).map_err(Failure::other)
    }

    fn event_users(&self) -> Result<String, Failure> {
        let mut users = BTreeMap::new();
        for user in self.plan.events.iter().flat_map(|events| &events.users) {
            let path = self.folder(&user.service).join("nats-seed");
            let seed = files::read(&path)?.unwrap_or_default();
            let key = nkeys::KeyPair::from_seed(seed.trim()).map_err(|error| unusable(&path, &error))?;
            users.insert(user.service.to_string(), key.public_key());
        }
        serde_json::to_string_pretty(&users).map_err(Failure::other)
    }

    fn demo_users(&mut self, path: &Path) -> Result<(), Failure> {
        let made = make_if_missing(path, demo::bootstrap)?;
        self.report.note(path, made);
        let users = self.project.users();
        let list = demo::list(&files::read(path)?.unwrap_or_default()).map_err(|error| unusable(path, &error))?;
        let wrote = files::replace_if_changed(&users, list.as_bytes())?;
        self.report.note(&users, wrote);
        Ok(())
    }
}

fn make_if_missing(path: &Path, make: impl FnOnce() -> Result<String, Failure>) -> Result<bool, Failure> {
    if path.is_file() {
        return Ok(false);
    }
    files::replace(path, make()?.as_bytes())?;
    Ok(true)
}

fn random() -> [u8; 32] {
    rand::random()
}
