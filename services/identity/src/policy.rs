//! What clients and users may do here: the questions that `policy.cedar` answers, each asked in one place. What becomes of a
//! denial is up to whoever asks: the protocols have codes of their own for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use auth::Principal;
use auth::cedar::{Authorizer, Denied, PolicyError, Resource};
use serde_json::json;

use crate::domain::client::{Client, GrantType};
use crate::domain::{Grant, User};

/// The policies of this service, compiled.
#[derive(Clone)]
pub struct Policy(Arc<Authorizer>);

/// What a form of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To sign a browser in.
    SignIn,
    /// To sign it out.
    SignOut,
}

/// For whom a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beneficiary {
    /// For a user who signs in, or has.
    User,
    /// For itself.
    Client,
}

impl Policy {
    /// Compiles the policies and checks them against their schema.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn compile() -> Result<Self, PolicyError> {
        let authorizer = Authorizer::new(include_str!("../policy.cedar"), include_str!("../policy.cedarschema"))?;
        Ok(Self(Arc::new(authorizer)))
    }

    /// Whether answers to `client` may go to `uri`.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn be_answered_at(&self, client: &Client, uri: &str) -> Result<(), Denied> {
        let resource = Resource::new("RedirectUri", uri).with(json!({ "registered": client.has_registered(uri) }));
        self.0.authorize_own(&of_client(client), "be-answered-at", &resource)
    }

    /// Whether `client` may get tokens in this way.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn use_grant_type(&self, client: &Client, grant_type: GrantType) -> Result<(), Denied> {
        let name = grant_type.name();
        let resource = Resource::new("GrantType", name).with(json!({ "name": name }));
        self.0.authorize_own(&of_client(client), "use-grant-type", &resource)
    }

    /// Whether `client` may ask for tokens that can do `scopes`.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn ask_for(&self, client: &Client, beneficiary: Beneficiary, scopes: &BTreeSet<String>) -> Result<(), Denied> {
        let action = match beneficiary {
            Beneficiary::User => "ask-for-a-user",
            Beneficiary::Client => "ask-for-itself",
        };
        let resource = Resource::new("Scopes", "asked").with(json!({ "names": scopes }));
        self.0.authorize_own(&of_client(client), action, &resource)
    }

    /// Whether `client` may turn a code or a refresh token of `grant` into tokens.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn redeem(&self, client: &Client, grant: &Grant) -> Result<(), Denied> {
        self.0.authorize_own(&of_client(client), "redeem", &of_grant(grant))
    }

    /// Whether `client` may end `grant`.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn revoke(&self, client: &Client, grant: &Grant) -> Result<(), Denied> {
        self.0.authorize_own(&of_client(client), "revoke", &of_grant(grant))
    }

    /// Whether a form counts that is `genuine`, or is not.
    ///
    /// # Errors
    /// [`Denied`] if it does not.
    pub fn take_form(&self, purpose: Purpose, genuine: bool) -> Result<(), Denied> {
        let (action, id) = match purpose {
            Purpose::SignIn => ("sign-in", "login"),
            Purpose::SignOut => ("sign-out", "logout"),
        };
        let resource = Resource::new("Form", id).with(json!({ "genuine": genuine }));
        self.0.authorize(&Principal::anonymous(), action, &resource)
    }

    /// Whether `client` may act for `user`, who has signed in, without a page to confirm on.
    #[must_use]
    pub fn lets_act_unasked(&self, user: &User, client: &Client) -> bool {
        let user = Principal::user(user.id.to_string(), user.roles.iter().cloned());
        self.0.permits(&user, "let-act-unasked", &of_client(client))
    }

    /// Whether whoever shows an access token is told whose it is.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn read_userinfo(&self, bearer: &Principal) -> Result<(), Denied> {
        self.0.authorize(bearer, "read-userinfo", &Resource::new("UserInfo", &bearer.subject))
    }
}

fn of_client(client: &Client) -> Resource {
    Resource::new("Client", &client.id).with(json!({
        "public": client.is_public(),
        "grant_types": client.grants,
        "scopes": client.scopes,
    }))
}

fn of_grant(grant: &Grant) -> Resource {
    let client = json!({ "type": "Client", "id": grant.client_id });
    Resource::new("Grant", grant.id.to_string()).with(json!({ "client": client }))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(ToString::to_string).collect()
    }

    fn client(secret: Option<&str>) -> Client {
        Client {
            id: "c".to_owned(),
            secret_hash: secret.map(str::to_owned),
            redirect_uris: vec!["https://shop.test/cb".to_owned()],
            grants: GrantType::ALL.into(),
            scopes: set(&["openid", "offline_access", "shop"]),
            roles: BTreeSet::new(),
        }
    }

    #[test]
    fn what_bootstrap_would_refuse_to_register_is_denied_as_well() {
        let policy = Policy::compile().unwrap();
        for grant_type in GrantType::ALL {
            assert!(policy.use_grant_type(&client(Some("hash")), grant_type).is_ok(), "{grant_type:?}");
            let open_to_all = grant_type != GrantType::ClientCredentials;
            assert_eq!(policy.use_grant_type(&client(None), grant_type).is_ok(), open_to_all, "{grant_type:?}");
        }
    }

    #[test]
    fn scopes_are_bounded_by_the_client_and_by_who_they_are_for() {
        use Beneficiary as B;
        let policy = Policy::compile().unwrap();
        for (scopes, beneficiary, permitted) in [
            (&[][..], B::User, true),
            (&["openid", "shop"], B::User, true),
            (&["openid", "admin"], B::User, false),
            (&["shop"], B::Client, true),
            (&["admin"], B::Client, false),
            (&["openid"], B::Client, false),
            (&["offline_access", "shop"], B::Client, false),
        ] {
            let asked = policy.ask_for(&client(Some("hash")), beneficiary, &set(scopes));
            assert_eq!(asked.is_ok(), permitted, "{scopes:?} for {beneficiary:?}");
        }
    }

    #[test]
    fn a_grant_is_its_clients() {
        let policy = Policy::compile().unwrap();
        for (owner, permitted) in [("c", true), ("C", false), ("other", false), ("", false)] {
            let grant = Grant {
                id: Uuid::nil(),
                client_id: owner.to_owned(),
                user_id: Uuid::nil(),
                scopes: BTreeSet::new(),
                authenticated_at: Timestamp::UNIX_EPOCH,
                expires_at: Timestamp::UNIX_EPOCH,
                revoked_at: None,
            };
            assert_eq!(policy.redeem(&client(None), &grant).is_ok(), permitted, "{owner:?}");
            assert_eq!(policy.revoke(&client(None), &grant).is_ok(), permitted, "{owner:?}");
        }
    }
}
