//! `berth outbox`, `inbox`, `dead-letters`, `sagas`, `interventions`: what services owe each other, seen and mended from outside.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{print, running_plan, width};
use crate::{
    cli::{DeadLetters, Gap, Inbox, Letters, One, Outbox, Sagas, Services},
    contained,
    failure::Failure,
    operator::Operator,
    project::Project,
    view,
};

/// A column of a table: its title, and where in a row of the answer (RFC 6901) its cell is.
type Column = (&'static str, &'static str);

/// What is said instead of an empty table.
const NONE: &str = "there are none";

pub(super) async fn outbox(project: &Project, command: Outbox) -> Result<(), Failure> {
    match command {
        Outbox::Status(services) => {
            let columns = [
                ("owed", "/unpublished"),
                ("oldest", "/oldest_age_seconds"),
                ("batches", "/batches"),
                ("stream at", "/stream/last_sequence"),
                ("server at", "/stream/server/last_sequence"),
                ("dead letters", "/dead_letters"),
            ];
            show_all(project, &services, "outbox", &columns).await
        }
        Outbox::List { services, unpublished, lines } => {
            let columns = [
                ("id", "/id"),
                ("subject", "/subject"),
                ("aggregate", "/aggregate"),
                ("version", "/version"),
                ("written", "/created_at"),
                ("published", "/published_at"),
                ("at", "/stream_sequence"),
            ];
            show_all(project, &services, &format!("outbox/events?unpublished={unpublished}&limit={lines}"), &columns)
                .await
        }
        Outbox::Show(One { service, id, json }) => show(project, &service, &format!("outbox/events/{id}"), json).await,
        Outbox::Republish(One { service, id, json }) => {
            let done = format!("the event {id} will be published once more");
            order(project, &service, &format!("outbox/events/{id}/republish"), None, json, &done).await
        }
    }
}

pub(super) async fn inbox(project: &Project, command: Inbox) -> Result<(), Failure> {
    match command {
        Inbox::Status(services) => {
            let columns = [
                ("consumer", "/consumer"),
                ("undelivered", "/server/undelivered"),
                ("unacknowledged", "/server/unacknowledged"),
                ("handled to", "/floor"),
                ("parked", "/parked"),
                ("oldest", "/oldest_parked_at"),
                ("failing", "/failing"),
                ("dead letters", "/dead_letters"),
            ];
            show_all(project, &services, "inbox", &columns).await
        }
        Inbox::List(services) => {
            let columns = [
                ("consumer", "/consumer"),
                ("event", "/id"),
                ("subject", "/subject"),
                ("aggregate", "/aggregate"),
                ("version", "/version"),
                ("waits for", "/waits_for"),
                ("since", "/since"),
                ("tries", "/attempts"),
                ("last error", "/last_error"),
            ];
            show_all(project, &services, "inbox/waiting", &columns).await
        }
        Inbox::Show(One { service, id, json }) => show(project, &service, &format!("inbox/events/{id}"), json).await,
        Inbox::Skip(gap) => go_on(project, gap, "skip").await,
        Inbox::Adopt(gap) => go_on(project, gap, "adopt").await,
    }
}

async fn go_on(project: &Project, gap: Gap, action: &str) -> Result<(), Failure> {
    let Gap { service, consumer, aggregate, accept_loss, json } = gap;
    let done = format!("{consumer} goes on with {aggregate}");
    let body = json!({ "consumer": consumer, "aggregate": aggregate, "accept_loss": accept_loss });
    order(project, &service, &format!("inbox/{action}"), Some(&body), json, &done).await
}

pub(super) async fn dead_letters(project: &Project, command: DeadLetters) -> Result<(), Failure> {
    match command {
        DeadLetters::List { services, resolved } => {
            let columns = [
                ("id", "/id"),
                ("consumer", "/consumer"),
                ("subject", "/subject"),
                ("event", "/message_id"),
                ("died", "/died_at"),
                ("status", "/status"),
                ("reason", "/reason"),
            ];
            show_all(project, &services, &format!("dead-letters?resolved={resolved}&limit=1000"), &columns).await
        }
        DeadLetters::Show(One { service, id, json }) => {
            show(project, &service, &format!("dead-letters/{id}"), json).await
        }
        DeadLetters::Replay(letters) => each(project, letters, "replay").await,
        DeadLetters::Discard(letters) => each(project, letters, "discard").await,
    }
}

async fn each(project: &Project, letters: Letters, action: &str) -> Result<(), Failure> {
    let Letters { service, mut ids, all, json } = letters;
    let operator = connect(project).await?;
    if all {
        ids = open_letters(&operator, &service).await?;
    }
    if ids.is_empty() && !json {
        return print(NONE);
    }
    let mut answers = Vec::new();
    for id in ids {
        answers.push(operator.post(&service, &format!("dead-letters/{id}/{action}"), None).await?);
        if !json {
            let done = if action == "replay" { "will be handled again" } else { "is discarded" };
            print(&format!("dead letter {id} {done}"))?;
        }
    }
    if json { print_json(&Value::Array(answers)) } else { Ok(()) }
}

/// The ids of all dead letters that nobody has replayed or discarded.
async fn open_letters(operator: &Operator, service: &str) -> Result<Vec<i64>, Failure> {
    let mut ids: Vec<i64> = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or_default();
        let portion = operator.get(service, &format!("dead-letters?limit=1000&after={after}")).await?;
        let before = ids.len();
        ids.extend(rows(&portion).iter().filter_map(|letter| letter.get("id")?.as_i64()));
        if ids.len() == before {
            return Ok(ids);
        }
    }
}

pub(super) async fn sagas(project: &Project, command: Sagas) -> Result<(), Failure> {
    match command {
        Sagas::List { services, ended } => {
            let columns = [
                ("id", "/id"),
                ("about", "/about"),
                ("state", "/state"),
                ("due", "/due_at"),
                ("asked again", "/repeats"),
                ("began", "/created_at"),
                ("by", "/initiator"),
            ];
            show_all(project, &services, &format!("sagas?ended={ended}&limit=1000"), &columns).await
        }
        Sagas::Show(One { service, id, json }) => show(project, &service, &format!("sagas/{id}"), json).await,
        Sagas::Retry(One { service, id, json }) => {
            let done = format!("the saga {id} asks again");
            order(project, &service, &format!("sagas/{id}/retry"), None, json, &done).await
        }
        Sagas::Cancel(One { service, id, json }) => {
            let done = format!("the saga {id} is called off");
            order(project, &service, &format!("sagas/{id}/cancel"), None, json, &done).await
        }
        Sagas::Abandon { one: One { service, id, json }, reason } => {
            let (done, body) = (format!("the saga {id} is given up"), json!({ "reason": reason }));
            order(project, &service, &format!("sagas/{id}/abandon"), Some(&body), json, &done).await
        }
    }
}

pub(super) async fn interventions(project: &Project, services: &Services) -> Result<(), Failure> {
    let columns = [("when", "/at"), ("who", "/operator"), ("did", "/action"), ("to", "/subject"), ("why", "/reason")];
    show_all(project, services, "interventions?limit=1000", &columns).await
}

async fn connect(project: &Project) -> Result<Operator, Failure> {
    let plan = if contained::is_operator() { contained::plan()? } else { running_plan(project).await? };
    Operator::new(project, plan)
}

/// Shows what one service has under a path, or all that have it.
async fn show_all(project: &Project, services: &Services, path: &str, columns: &[Column]) -> Result<(), Failure> {
    let operator = connect(project).await?;
    let mut answers = Map::new();
    match &services.service {
        Some(service) => {
            let found = operator.find(service, path).await?;
            let answer = found.ok_or_else(|| Failure::other(format!("{service} has nothing of the kind")))?;
            answers.insert(service.clone(), answer);
        }
        None => {
            for service in operator.services() {
                if let Some(answer) = operator.find(service, path).await? {
                    answers.insert(service.to_owned(), answer);
                }
            }
        }
    }
    if services.json {
        return print_json(&Value::Object(answers));
    }
    let mut table = view::empty_table(width());
    table.set_header(["service"].into_iter().chain(columns.iter().map(|(title, _)| *title)));
    let mut empty = true;
    for (service, answer) in &answers {
        for row in rows(answer) {
            empty = false;
            let cells = columns.iter().map(|(_, pointer)| cell(row.pointer(pointer)));
            table.add_row([service.clone()].into_iter().chain(cells));
        }
    }
    print(&if empty { NONE.to_owned() } else { table.to_string() })
}

fn rows(answer: &Value) -> &[Value] {
    match answer {
        Value::Array(rows) => rows,
        row => std::slice::from_ref(row),
    }
}

/// Shows one thing, member by member.
async fn show(project: &Project, service: &str, path: &str, json: bool) -> Result<(), Failure> {
    let answer = connect(project).await?.get(service, path).await?;
    if json {
        return print_json(&answer);
    }
    let mut table = view::empty_table(width());
    for (name, value) in answer.as_object().into_iter().flatten() {
        let value = match value {
            Value::Object(_) | Value::Array(_) => serde_json::to_string_pretty(value).map_err(Failure::other)?,
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        table.add_row([name.replace('_', " "), value]);
    }
    print(&table.to_string())
}

/// Has something done, and says so.
async fn order(
    project: &Project,
    service: &str,
    path: &str,
    body: Option<&Value>,
    json: bool,
    done: &str,
) -> Result<(), Failure> {
    let answer = connect(project).await?.post(service, path, body).await?;
    if json { print_json(&answer) } else { print(done) }
}

fn print_json(value: &Value) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).map_err(Failure::other)?)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.parse().map_or_else(|_| text.clone(), when),
        Some(Value::Array(values)) => values.len().to_string(),
        Some(Value::Number(number)) if number.is_f64() => format!("{:.1} s", number.as_f64().unwrap_or_default()),
        Some(other) => other.to_string(),
    }
}

fn when(time: Timestamp) -> String {
    let now = Timestamp::now();
    if time > now { format!("in {} s", time.duration_since(now).as_secs()) } else { format!("{} ago", view::age(time)) }
}
