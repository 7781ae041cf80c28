//! Which secret files each process needs: their names and what they are, never what is in them.

use std::collections::BTreeSet;

use super::layout::duplicate;
use crate::declaration::{Declaration, SecretSource, Service};
use crate::diagnostics::{Finding, Findings, Rule, did_you_mean};
use crate::plan::{Credential, CredentialKind, Protocol};
use crate::read::Entry;

const MESH_CERTIFICATE: &str = "tls-cert.pem";
const MESH_KEY: &str = "tls-key.pem";
const MESH_CA: &str = "mesh-ca.pem";
const DATABASE_PASSWORD: &str = "database-password";
const EVENTS_SEED: &str = "nats-seed";
const EVENT_USERS: &str = "event-users.json";
const TOKEN_KEY: &str = "token-key.pem";
const TOKEN_ISSUERS: &str = "token-issuers.json";
const PUBLIC_CERTIFICATE: &str = "public-cert.pem";
const PUBLIC_KEY: &str = "public-key.pem";
const ISSUER_ROOTS: &str = "issuer-ca.pem";
const KEY_ENCRYPTION_KEY: &str = "key-encryption-key";
const BOOTSTRAP: &str = "bootstrap.json";

/// The files the mesh makes whose names a secret could have, too. The others have a dot, which a name has not.
const OWN: [&str; 3] = [DATABASE_PASSWORD, EVENTS_SEED, KEY_ENCRYPTION_KEY];

/// What a service is in the mesh, as far as its credentials depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) is_gateway: bool,
    pub(super) is_issuer: bool,
    pub(super) has_external_issuer: bool,
    pub(super) has_database: bool,
    pub(super) calls: bool,
    pub(super) is_called: bool,
}

fn file(name: &str, kind: CredentialKind) -> Credential {
    Credential { name: name.to_owned(), kind, optional: false }
}

fn optional(name: &str, kind: CredentialKind) -> Credential {
    Credential { optional: true, ..file(name, kind) }
}

/// What every process of the mesh has: who it is, and by what it knows the others.
fn identity() -> Vec<Credential> {
    use CredentialKind::{MeshCa, MeshCertificate, MeshKey};
    vec![file(MESH_CERTIFICATE, MeshCertificate), file(MESH_KEY, MeshKey), file(MESH_CA, MeshCa)]
}

pub(super) fn of_database() -> Vec<Credential> {
    let mut files = identity();
    files.push(file(DATABASE_PASSWORD, CredentialKind::DatabasePassword));
    files
}

pub(super) fn of_events() -> Vec<Credential> {
    let mut files = identity();
    files.push(file(EVENT_USERS, CredentialKind::EventUsers));
    files
}

pub(super) fn of_service(service: &Entry<Service>, part: Part, declaration: &Declaration) -> Vec<Credential> {
    use CredentialKind::{
        Bootstrap, DatabasePassword, EventsSeed, Generated, IssuerRoots, KeyEncryptionKey, Provided, PublicCertificate,
        PublicKey, TokenIssuers, TokenKey,
    };
    let mut files = identity();
    if part.has_database {
        files.push(file(DATABASE_PASSWORD, DatabasePassword));
    }
    if service.body.uses_events() {
        files.push(file(EVENTS_SEED, EventsSeed));
    }
    if part.is_gateway || part.calls {
        files.push(file(TOKEN_KEY, TokenKey));
    }
    if part.is_called && service.body.protocol == Protocol::Mesh {
        files.push(file(TOKEN_ISSUERS, TokenIssuers));
    }
    if part.is_gateway {
        files.extend([file(PUBLIC_CERTIFICATE, PublicCertificate), file(PUBLIC_KEY, PublicKey)]);
        if part.has_external_issuer {
            files.push(optional(ISSUER_ROOTS, IssuerRoots));
        }
    }
    if part.is_issuer {
        files.extend([file(KEY_ENCRYPTION_KEY, KeyEncryptionKey), optional(BOOTSTRAP, Bootstrap)]);
    }
    for reference in &service.body.secrets {
        let Some(secret) = declaration.secrets.get(reference.get_ref()) else { continue };
        let kind = match secret.body.source {
            SecretSource::Generated => Generated,
            SecretSource::Provided => Provided,
        };
        files.push(Credential { name: secret.name.to_string(), kind, optional: secret.body.optional });
    }
    files
}

/// Every secret a service names must be declared, under a name the mesh does not use itself.
pub(super) fn check(declaration: &Declaration, findings: &mut Findings) {
    for secret in declaration.secrets.iter().filter(|secret| OWN.contains(&secret.name.as_str())) {
        let finding =
            Finding::new(Rule::ReservedName, format!("the mesh has a credential `{}` of its own", secret.name))
                .at(secret.span.clone(), "choose another name")
                .help("the file would overwrite the mesh's own");
        findings.push(finding);
    }
    for service in declaration.services.iter() {
        let mut seen = BTreeSet::new();
        for reference in &service.body.secrets {
            let name = reference.get_ref();
            if !seen.insert(name) {
                findings.push(duplicate(reference, &format!("`secrets` of `services.{}`", service.name)));
            } else if !declaration.secrets.mentions(name) {
                let help = did_you_mean(name, declaration.secrets.names()).unwrap_or_else(|| {
                    format!("declare it: `[secrets.{name}]` with `source = \"generated\"` (made at random) or \"provided\" (you put the file there)")
                });
                let finding = Finding::new(Rule::UndeclaredSecret, format!("nobody provides the secret `{name}`"))
                    .at(reference.span(), "not declared")
                    .help(help);
                findings.push(finding);
            }
        }
    }
}
