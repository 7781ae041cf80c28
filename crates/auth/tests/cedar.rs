//! Policies as data: what they permit, what they refuse, and what is refused as a policy.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::sync::{Arc, Mutex};

use auth::cedar::{Authorizer, PolicyError, Resource};
use auth::{Kind, Principal};
use axum::response::IntoResponse;
use berth_http::problem::Problem;
use proptest::prelude::*;
use serde_json::json;
use tls::SpiffeId;

const SCHEMA: &str = r#"
    entity User { roles: Set<String>, scopes: Set<String> };
    entity Service { actors: Set<String> };
    entity Anonymous;
    entity Order { owner: User, total: Long };
    action read appliesTo { principal: [User, Service, Anonymous], resource: Order };
    action cancel appliesTo { principal: User, resource: Order };
"#;
const POLICIES: &str = r#"
    @id("an owner reads")
    permit (principal is User, action == Action::"read", resource) when { resource.owner == principal };
    @id("a clerk does everything")
    permit (principal is User, action, resource) when { principal.roles.contains("clerk") };
    @id("large orders are not cancelled")
    forbid (principal, action == Action::"cancel", resource) when { resource.total > 1000 };
    permit (principal == Service::"documents", action == Action::"read", resource);
"#;

fn order(owner: &str, total: i64) -> Resource {
    Resource::new("Order", "o1").with(json!({ "owner": { "type": "User", "id": owner }, "total": total }))
}

fn workload(name: &str) -> Principal {
    Principal::service(&SpiffeId::new("shop.test", name).unwrap())
}

#[test]
fn the_policies_decide() {
    let authorizer = Authorizer::new(POLICIES, SCHEMA).unwrap();
    let alice = Principal::user("alice", ["customer"]);
    let clerk = Principal::user("carol", ["clerk"]);
    let client = Principal { roles: ["clerk".to_owned()].into(), ..Principal::new(Kind::Service, "reporting") };
    // An OAuth client that calls itself like a workload is not that workload.
    let pretender = Principal::new(Kind::Service, "documents");
    for (who, action, what, permitted) in [
        (&alice, "read", order("alice", 10), true),
        (&alice, "read", order("bob", 10), false),
        (&alice, "cancel", order("alice", 10), false),
        (&clerk, "read", order("alice", 10), true),
        (&clerk, "cancel", order("alice", 10), true),
        (&clerk, "cancel", order("alice", 1001), false),
        (&client, "read", order("alice", 10), true),
        (&workload("documents"), "read", order("alice", 10), true),
        (&workload("items"), "read", order("alice", 10), false),
        (&workload("documents"), "cancel", order("alice", 10), false),
        (&pretender, "read", order("alice", 10), false),
        (&Principal::anonymous(), "read", order("alice", 10), false),
        // What does not fit the schema is denied, and nothing worse.
        (&clerk, "destroy", order("alice", 10), false),
        (&clerk, "read", Resource::new("Order", "o1"), false),
        (&clerk, "read", Resource::new("Unknown", "o1"), false),
        (&clerk, "read", order("alice", 10).with(json!({ "owner": "alice", "total": "10" })), false),
        (&clerk, "re\"ad", order("alice", 10), false),
    ] {
        assert_eq!(authorizer.authorize(who, action, &what).is_ok(), permitted, "{who:?} {action} {what:?}");
        assert_eq!(authorizer.permits(who, action, &what), permitted, "{who:?} {action} {what:?}");
    }
}

#[test]
fn a_subject_may_act_upon_itself() {
    let schema = "entity User { roles: Set<String> }; action see appliesTo { principal: User, resource: User };";
    let policies = r#"permit (principal, action == Action::"see", resource) when { principal == resource };"#;
    let authorizer = Authorizer::new(policies, schema).unwrap();
    let own = Resource::new("User", "alice").with(json!({ "roles": [] }));
    assert!(authorizer.authorize(&Principal::user("alice", ["x"]), "see", &own).is_ok());
    assert!(authorizer.authorize(&Principal::user("bob", ["x"]), "see", &own).is_err());
}

#[test]
fn a_mistake_is_found_at_start() {
    let case = |policies: &str, schema: &str| Authorizer::new(policies, schema).err();
    assert!(matches!(case(POLICIES, "entity User {"), Some(PolicyError::Schema(_))));
    assert!(matches!(case(POLICIES, "entity User { owner: Nobody };"), Some(PolicyError::Schema(_))));
    assert!(matches!(case("permit (principal", SCHEMA), Some(PolicyError::Policies(_))));
    for (name, policy) in [
        (
            "an attribute that is not there",
            "permit (principal is User, action, resource) when { principal.role == \"x\" };",
        ),
        ("an action that is not there", "permit (principal, action == Action::\"raed\", resource);"),
        ("types that do not compare", "permit (principal, action, resource) when { resource.total == \"x\" };"),
        (
            "an attribute only some principals have",
            "permit (principal, action == Action::\"read\", resource) when { principal.roles.contains(\"x\") };",
        ),
        ("a policy that never applies", "permit (principal is Anonymous, action == Action::\"cancel\", resource);"),
    ] {
        assert!(matches!(case(policy, SCHEMA), Some(PolicyError::Validation(_))), "{name}");
    }
}

#[test]
fn a_denial_is_a_403_or_where_it_must_be_hidden_a_404() {
    let authorizer = Authorizer::new(POLICIES, SCHEMA).unwrap();
    let denied =
        authorizer.authorize(&Principal::user("bob", ["customer"]), "cancel", &order("alice", 10)).unwrap_err();
    assert_eq!(denied.clone().into_response().status(), 403);
    assert_eq!(Problem::from(denied.clone()).into_response().status(), 403);
    assert_eq!(denied.hidden().into_response().status(), 404);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_denial_is_logged_with_the_policies_behind_it() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let authorizer = Authorizer::new(POLICIES, SCHEMA).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let carol = Principal::user("carol", ["clerk"]);
        authorizer.authorize(&carol, "read", &order("alice", 10)).unwrap();
        assert_eq!(log.0.lock().unwrap().len(), 0, "what is permitted is not logged");
        authorizer.authorize(&carol, "cancel", &order("alice", 1001)).unwrap_err();
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for part in ["denied", "carol", "cancel", "o1", "large orders are not cancelled"] {
        assert!(text.contains(part), "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_the_names_a_decision_is_made(subject in ".{0,40}", action in ".{0,20}", id in ".{0,40}", role in ".{0,20}") {
        let authorizer = Authorizer::new(POLICIES, SCHEMA).unwrap();
        let who = Principal::user(subject, [role]);
        let what = Resource { id, ..order("\u{1f600}\" when", 10) };
        prop_assert!(authorizer.authorize(&who, &action, &what).is_err());
    }
}
