//! The one question every handler asks: may this principal do this to that? Answered by Cedar policies that are compiled
//! and checked against their schema once, at start.
//!
//! **Principals.** Whoever came in through the gateway, person or OAuth client, is a `User::"<subject>"`; a workload of the
//! mesh acting for itself is a `Service::"<name>"`; nobody in particular is `Anonymous::"anonymous"`. The attributes on offer
//! are `roles`, `scopes` and `actors` (names of the workloads in between), each a `Set<String>`; a schema declares those it
//! uses. An entity type that the schema does not declare, or that no action applies to, is simply denied.
//!
//! **Policy ids.** A policy annotated `@id("…")` is named so in the log; the others by their place in the file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use berth_http::problem::{self, Problem};
use cedar_policy::{
    Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet, Request,
    RestrictedExpression, Schema, SchemaFragment, ValidationMode, Validator,
};
use serde_json::{Value, json};
use tls::SpiffeId;

use crate::{
    Kind, Principal,
    refusals::{self, Refusals},
};

/// What a service keeps and the policies speak of: what is acted upon, or, by [`Authorizer::authorize_own`], who acts.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its entity type in the schema, such as `Item`.
    pub kind: &'static str,
    /// Which one it is. For an action on none in particular (create, list) the name of the collection.
    pub id: String,
    /// Its attributes as the schema declares them: a JSON object.
    pub attributes: Value,
}

impl Resource {
    /// A resource without attributes.
    #[must_use]
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self { kind, id: id.into(), attributes: json!({}) }
    }

    /// The same with these attributes.
    #[must_use]
    pub fn with(self, attributes: Value) -> Self {
        Self { attributes, ..self }
    }
}

/// The policies do not permit it. Turns into a 403 problem; into a 404 by way of [`Denied::hidden`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{action}` is not permitted")]
pub struct Denied {
    action: String,
}

impl Denied {
    /// For a caller who may not even know that the thing exists: the answer is the one for a thing that does not.
    #[must_use]
    pub fn hidden(self) -> Problem {
        problem::NOT_FOUND.detail("there is no such resource")
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        problem::FORBIDDEN.detail(format!("you may not {}", denied.action))
    }
}

impl axum::response::IntoResponse for Denied {
    fn into_response(self) -> axum::response::Response {
        Problem::from(self).into_response()
    }
}

/// The policies or their schema are not right. Each message says where.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The schema does not parse or contradicts itself.
    #[error("the Cedar schema is not valid: {0}")]
    Schema(String),
    /// The policies do not parse.
    #[error("the Cedar policies do not parse: {0}")]
    Policies(String),
    /// The policies do not fit the schema.
    #[error("the Cedar policies do not fit their schema: {0}")]
    Validation(String),
}

/// A request does not fit the schema, and says how.
type Unfit = Box<dyn std::error::Error>;

/// Why a request is denied: by the policies that forbid it (none, where none permits it), or by what is wrong with it.
struct Refusal {
    policies: Vec<String>,
    errors: Vec<String>,
}

impl Refusal {
    fn logged(self, principal: &str, roles: &BTreeSet<String>, action: &str, resource: &Resource) -> Denied {
        let Self { policies, errors } = self;
        tracing::warn!(
            principal,
            ?roles,
            action,
            kind = resource.kind,
            resource = resource.id,
            ?policies,
            ?errors,
            "denied"
        );
        Denied { action: action.to_owned() }
    }
}

/// Decides by one set of policies.
pub struct Authorizer {
    policies: PolicySet,
    schema: Schema,
    /// The attributes each entity type of the schema declares.
    declared: BTreeMap<String, BTreeSet<String>>,
    decider: cedar_policy::Authorizer,
    refusals: Refusals,
}

impl Authorizer {
    /// Compiles the policies and checks them strictly against the schema (Cedar schema syntax).
    ///
    /// # Errors
    /// When either does not parse, or a policy could go wrong on a request the schema allows. A warning counts: a policy
    /// that can never apply is a mistake.
    pub fn new(policies: &str, schema: &str) -> Result<Self, PolicyError> {
        let fragment =
            SchemaFragment::from_cedarschema_str(schema).map_err(|error| PolicyError::Schema(error.to_string()))?.0;
        let declared = declared_attributes(&fragment)?;
        let schema =
            Schema::from_schema_fragments([fragment]).map_err(|error| PolicyError::Schema(error.to_string()))?;
        let policies: PolicySet =
            policies.parse().map_err(|error: cedar_policy::ParseErrors| PolicyError::Policies(error.to_string()))?;
        let outcome = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        let complaints: Vec<String> = outcome
            .validation_errors()
            .map(ToString::to_string)
            .chain(outcome.validation_warnings().map(ToString::to_string))
            .collect();
        if !complaints.is_empty() {
            return Err(PolicyError::Validation(complaints.join("; ")));
        }
        let (decider, refusals) = (cedar_policy::Authorizer::new(), Refusals::default());
        Ok(Self { policies, schema, declared, decider, refusals })
    }

    /// The same, which notes every denial there.
    #[must_use]
    pub fn reporting(self, refusals: &Refusals) -> Self {
        Self { refusals: refusals.clone(), ..self }
    }

    /// Where denials are noted.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether `principal` may do `action` to `resource`.
    ///
    /// # Errors
    /// [`Denied`] when no policy permits it, one forbids it, or the request does not fit the schema. Every denial is logged
    /// with the policies behind it, and noted as a [refusal](crate::refusals).
    pub fn authorize(&self, principal: &Principal, action: &str, resource: &Resource) -> Result<(), Denied> {
        let who = (principal.kind != Kind::Anonymous).then(|| principal.subject.clone());
        let decision = self.decide(self.principal(principal), action, resource);
        decision.map_err(|refusal| self.refused(refusal, who, &principal.roles, action, resource))
    }

    /// The same for a principal that no token names because the service itself keeps it, such as a registered client.
    ///
    /// # Errors
    /// As [`Authorizer::authorize`].
    pub fn authorize_own(&self, principal: &Resource, action: &str, resource: &Resource) -> Result<(), Denied> {
        let decision = self.decide(self.entity(principal), action, resource);
        decision
            .map_err(|refusal| self.refused(refusal, Some(principal.id.clone()), &BTreeSet::new(), action, resource))
    }

    /// Logs and notes a refusal.
    fn refused(
        &self,
        refusal: Refusal,
        who: Option<String>,
        roles: &BTreeSet<String>,
        action: &str,
        resource: &Resource,
    ) -> Denied {
        let reason = match (refusal.policies.as_slice(), refusal.errors.as_slice()) {
            ([], []) => "no policy permits it".to_owned(),
            ([], errors) => errors.join("; "),
            (policies, _) => format!("forbidden by {}", policies.join(", ")),
        };
        let denied = refusal.logged(who.as_deref().unwrap_or("anonymous"), roles, action, resource);
        self.refusals.note(refusals::Refusal {
            principal: who,
            roles: roles.clone(),
            action: action.to_owned(),
            resource: format!("{}/{}", resource.kind, resource.id),
            reason,
            client: None,
        });
        denied
    }

    /// Whether `principal` may do `action` to `resource`, without a word in the log: for choosing what to offer a caller who
    /// did not ask for it. What a caller asks for is for [`Authorizer::authorize`].
    #[must_use]
    pub fn permits(&self, principal: &Principal, action: &str, resource: &Resource) -> bool {
        self.decide(self.principal(principal), action, resource).is_ok()
    }

    fn decide(&self, principal: Result<Entity, Unfit>, action: &str, resource: &Resource) -> Result<(), Refusal> {
        let unfit = |error: Unfit| Refusal { policies: Vec::new(), errors: vec![error.to_string()] };
        let (request, entities) =
            principal.and_then(|principal| self.request(principal, action, resource)).map_err(unfit)?;
        let answer = self.decider.is_authorized(&request, &self.policies, &entities);
        if answer.decision() == Decision::Allow {
            return Ok(());
        }
        let name = |id: &PolicyId| self.policies.annotation(id, "id").unwrap_or_else(|| id.as_ref()).to_owned();
        Err(Refusal {
            policies: answer.diagnostics().reason().map(name).collect(),
            errors: answer.diagnostics().errors().map(ToString::to_string).collect(),
        })
    }

    fn request(&self, principal: Entity, action: &str, resource: &Resource) -> Result<(Request, Entities), Unfit> {
        let resource = self.entity(resource)?;
        let request = Request::new(
            principal.uid(),
            uid("Action", action)?,
            resource.uid(),
            Context::empty(),
            Some(&self.schema),
        )?;
        // A principal may act upon itself; an entity must not stand in the store twice.
        let entities = if principal.uid() == resource.uid() { vec![resource] } else { vec![principal, resource] };
        Ok((request, Entities::from_entities(entities, Some(&self.schema))?))
    }

    fn entity(&self, resource: &Resource) -> Result<Entity, Unfit> {
        let value = json!({
            "uid": { "type": resource.kind, "id": resource.id },
            "attrs": resource.attributes,
            "parents": [],
        });
        Ok(Entity::from_json_value(value, Some(&self.schema))?)
    }

    fn principal(&self, principal: &Principal) -> Result<Entity, Unfit> {
        let name_of = |id: &str| id.parse::<SpiffeId>().map(|id| id.name().to_owned());
        let (kind, id) = match (principal.kind, name_of(&principal.subject)) {
            (Kind::Anonymous, _) => ("Anonymous", "anonymous".to_owned()),
            (Kind::Service, Ok(name)) => ("Service", name),
            (Kind::Service | Kind::User, _) => ("User", principal.subject.clone()),
        };
        let uid = uid(kind, &id)?;
        let Some(declared) = self.declared.get(kind) else {
            return Ok(Entity::with_uid(uid));
        };
        let actors: BTreeSet<String> =
            principal.actors.iter().map(|actor| name_of(actor).unwrap_or_else(|_| actor.clone())).collect();
        let attributes: HashMap<String, RestrictedExpression> =
            [("roles", &principal.roles), ("scopes", &principal.scopes), ("actors", &actors)]
                .into_iter()
                .filter(|(name, _)| declared.contains(*name))
                .map(|(name, values)| (name.to_owned(), set_of_strings(values)))
                .collect();
        Ok(Entity::new(uid, attributes, HashSet::new())?)
    }
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, Unfit> {
    let kind: EntityTypeName = kind.parse()?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn set_of_strings(values: &BTreeSet<String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.iter().cloned().map(RestrictedExpression::new_string))
}

/// Which attributes each entity type declares, read from the schema's JSON form. Services declare everything in the empty
/// namespace.
fn declared_attributes(fragment: &SchemaFragment) -> Result<BTreeMap<String, BTreeSet<String>>, PolicyError> {
    let schema = fragment.clone().to_json_value().map_err(|error| PolicyError::Schema(error.to_string()))?;
    let types = schema.pointer("//entityTypes").and_then(Value::as_object);
    let attributes = |declaration: &Value| {
        declaration
            .pointer("/shape/attributes")
            .and_then(Value::as_object)
            .map(|attributes| attributes.keys().cloned().collect())
            .unwrap_or_default()
    };
    Ok(types.into_iter().flatten().map(|(name, declaration)| (name.clone(), attributes(declaration))).collect())
}
