//! The one description of a caller that every other part works with.

use std::collections::BTreeSet;

use tls::SpiffeId;
use uuid::Uuid;

/// What sort of caller a [`Principal`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person.
    User,
    /// A program acting for itself: an OAuth client with its own credentials, or a workload of the mesh.
    Service,
    /// Nobody proved to be anybody: a request on a route that does not require a token.
    Anonymous,
}

/// A caller whose token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What sort of caller this is.
    pub kind: Kind,
    /// User id, OAuth client id or SPIFFE ID.
    pub subject: String,
    /// A name to show to people and in logs; never used to decide anything.
    pub name: Option<String>,
    /// Roles the issuer says the caller has.
    pub roles: BTreeSet<String>,
    /// Scopes the access token was limited to.
    pub scopes: BTreeSet<String>,
    /// SPIFFE IDs of the workloads acting on the caller's behalf, the most recent first (`act` of RFC 8693).
    pub actors: Vec<String>,
    /// Identifies the transaction across every service it touches (`txn`).
    pub transaction: String,
}

impl Principal {
    /// A caller of the given kind with no rights at all, in a transaction of its own.
    #[must_use]
    pub fn new(kind: Kind, subject: impl Into<String>) -> Self {
        Self {
            kind,
            subject: subject.into(),
            name: None,
            roles: BTreeSet::new(),
            scopes: BTreeSet::new(),
            actors: Vec::new(),
            transaction: Uuid::now_v7().to_string(),
        }
    }

    /// A person with these roles.
    #[must_use]
    pub fn user<R: Into<String>>(subject: impl Into<String>, roles: impl IntoIterator<Item = R>) -> Self {
        Self { roles: roles.into_iter().map(Into::into).collect(), ..Self::new(Kind::User, subject) }
    }

    /// A workload of the mesh acting for itself.
    #[must_use]
    pub fn service(id: &SpiffeId) -> Self {
        Self::new(Kind::Service, id.to_string())
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new(Kind::Anonymous, "anonymous")
    }

    /// Whether the issuer gave the caller this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }
}
