//! Speaking to the services of a running mesh as its operator: over mutual TLS, with a certificate made for this one command by whoever
//! can read the mesh's authority. What a service answers there is described in the crate `outbox`, module `operator`.

use std::{collections::BTreeMap, env, sync::Arc, time::Duration};

use mesh::{Plan, plan};
use nix::unistd::{Uid, User};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tls::{Identity, SpiffeId};
use tokio::sync::OnceCell;

use crate::{failure::Failure, project::Project, secrets};

/// Longest wait for an instance.
const PATIENCE: Duration = Duration::from_secs(15);

/// The header that names the person.
const WHO: &str = "berth-operator";

/// The variable that names the person where no account of the machine does: in a container.
pub const NAMED: &str = "BERTH_OPERATOR";

/// What the person is called: as [`NAMED`] says, else as the account.
#[must_use]
pub fn who() -> String {
    env::var(NAMED).unwrap_or_else(|_| {
        let user = User::from_uid(Uid::current()).ok().flatten();
        user.map_or_else(|| Uid::current().to_string(), |user| user.name)
    })
}

/// The services of a running mesh, for its operator.
#[derive(Debug)]
pub struct Operator {
    plan: Plan,
    identity: Arc<Identity>,
    /// For each service with messages the connections to it, which may be to no other; made when it is first asked.
    clients: BTreeMap<String, OnceCell<Client>>,
    who: String,
}

impl Operator {
    /// The operator of the mesh that runs with this plan.
    ///
    /// # Errors
    /// The mesh's authority cannot be used.
    pub fn new(project: &Project, plan: Plan) -> Result<Self, Failure> {
        let identity = secrets::operator(project, &plan)?;
        let services = plan.services.iter().filter(|service| has_messages(service));
        let clients = services.map(|service| (service.name.to_string(), OnceCell::new())).collect();
        Ok(Self { plan, identity, clients, who: who() })
    }

    /// The services with an outbox or an inbox.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.clients.keys().map(String::as_str)
    }

    /// Reads what a service has under this path.
    ///
    /// # Errors
    /// No instance answers, or the answer is a refusal.
    pub async fn get(&self, service: &str, path: &str) -> Result<Value, Failure> {
        self.ask(service, Method::GET, path, None).await?.accepted(service)
    }

    /// Reads what a service has under this path. None where it has nothing of the kind.
    ///
    /// # Errors
    /// No instance answers, or the answer is another refusal.
    pub async fn find(&self, service: &str, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask(service, Method::GET, path, None).await?;
        if answer.status == StatusCode::NOT_FOUND { Ok(None) } else { answer.accepted(service).map(Some) }
    }

    /// Has a service do something.
    ///
    /// # Errors
    /// No instance answers, or the answer is a refusal.
    pub async fn post(&self, service: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.ask(service, Method::POST, path, body).await?.accepted(service)
    }

    async fn ask(&self, service: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let found = self.plan.service(service).zip(self.clients.get(service));
        let (declared, client) = found.ok_or_else(|| {
            let names = self.services().collect::<Vec<_>>().join(", ");
            Failure::mendable(format!("{service} is no service with messages"), format!("there are: {names}"))
        })?;
        let client = client.get_or_try_init(|| async { client_of(&self.identity, &self.plan.domain, service) }).await?;
        let mut failure = format!("{service} has no instance");
        for instance in &declared.instances {
            let url = format!("https://{}:{}/internal/messaging/{path}", instance.host, instance.port.get());
            let mut request = client.request(method.clone(), url).header(WHO, &self.who);
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    let body = response.json().await.map_err(Failure::other)?;
                    return Ok(Answer { status, body });
                }
                // Nothing was sent: another one may take it.
                Err(error) if error.is_connect() => failure = format!("{} cannot be reached", instance.name),
                Err(error) => return Err(Failure::other(format!("{}: {error}", instance.name))),
            }
        }
        Err(Failure::mendable(failure, "`berth status` says what runs"))
    }
}

/// Whether it has an outbox or an inbox.
fn has_messages(service: &plan::Service) -> bool {
    service.database.is_some() && !(service.emits.is_empty() && service.consumes.is_empty())
}

fn client_of(identity: &Arc<Identity>, domain: &str, service: &str) -> Result<Client, Failure> {
    let peer = SpiffeId::new(domain, service).map_err(Failure::other)?;
    let tls = Arc::unwrap_or_clone(identity.client_config(peer, &[b"http/1.1"]));
    Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(PATIENCE).build().map_err(Failure::other)
}

/// What a service answered, in JSON in any case.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    /// What was asked for.
    fn accepted(self, service: &str) -> Result<Value, Failure> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let text = |problem: &Value, member: &str| problem.get(member).and_then(Value::as_str).map(str::to_owned);
        let detail = text(&self.body, "detail").unwrap_or_else(|| "it does not say why".to_owned());
        let errors = self.body.get("errors").and_then(Value::as_array).into_iter().flatten();
        let fields =
            errors.filter_map(|error| Some(format!(" {} {}.", text(error, "pointer")?, text(error, "message")?)));
        Err(Failure::other(format!("{service}: {detail}{}", fields.collect::<String>())))
    }
}
