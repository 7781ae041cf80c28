//! Every entry of the table of sagas, in a real database: failed once and tried again, and applied twice. The entries are generated
//! from the table itself, so that a new one is tested without anybody thinking of it.

use std::collections::VecDeque;

use database::Statements as _;
use eshop_documents::{
    domain::{Refusal, RefusalReason},
    saga::{Event, Process, State},
    store::{self, Cause},
};
use outbox::saga::{Saga as _, walk};
use uuid::Uuid;

use crate::world::{World, new_key, selection};

/// Where sagas begin: that of an order, and that of a credit note.
const BEGINNINGS: [State; 2] = [State::Reserving, State::Returning];

fn events() -> Vec<Event> {
    let refusal = Refusal { reason: RefusalReason::InsufficientStock, shortages: Vec::new() };
    vec![
        Event::Reserved,
        Event::Refused(refusal),
        Event::Taken,
        Event::Released,
        Event::Returned,
        Event::ReturnRefused,
        Event::Cancelled,
        Event::Overdue,
        Event::Abandoned,
    ]
}

/// A shortest way from a beginning to this state.
fn way_to(state: State) -> (State, Vec<Event>) {
    let mut ways: VecDeque<_> = BEGINNINGS.map(|beginning| (beginning, beginning, Vec::new())).into();
    while let Some((beginning, reached, way)) = ways.pop_front() {
        if reached == state {
            return (beginning, way);
        }
        for event in events() {
            if let Ok((next, _)) = Process::decide(&reached, &event)
                && next != reached
                && way.len() < 8
            {
                ways.push_back((beginning, next, [way.clone(), vec![event]].concat()));
            }
        }
    }
    panic!("nothing leads to {state:?}");
}

/// What a saga and its document are, and the facts that others were told about them.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    saga: State,
    document: String,
    ended: Option<String>,
    facts: Vec<String>,
}

impl World {
    /// A new saga in this state.
    async fn saga_in(&self, state: State) -> Uuid {
        let (beginning, way) = way_to(state);
        let lines = [(Uuid::now_v7(), 2)];
        let id = if beginning == State::Reserving {
            self.order(&lines).await.head.id
        } else {
            let invoice = self.invoice(&lines).await.head.id;
            let credited = self.store.credit(invoice, &selection(&lines), &new_key("carol"), &Cause::default()).await;
            credited.unwrap().unwrap().head.id
        };
        for event in way {
            self.answer(id, event).await.unwrap();
        }
        assert_eq!(self.picture(id).await.saga, state);
        id
    }

    async fn picture(&self, id: Uuid) -> Picture {
        let client = self.database.get().await.unwrap();
        let sql = "SELECT s.state, d.state::text, coalesce(refusal::text, cancellation::text)
            FROM sagas s JOIN documents d USING (id) WHERE id = $1";
        let row = client.one(sql, &[&id]).await.unwrap();
        // A command to item management may be repeated; what happened to the document may not be told twice.
        let facts =
            self.owed(id).await.into_iter().filter(|subject| !subject.starts_with("documents.stock.")).collect();
        Picture { saga: row.get(0), document: row.get(1), ended: row.get(2), facts }
    }

    /// Does all that `event` does, and loses the connection before the commit.
    async fn fail(&self, id: Uuid, event: &Event) {
        let mut client = self.database.get().await.unwrap();
        let tx = client.transaction().await.unwrap();
        store::answer(&tx, id, event, &Cause::default()).await.unwrap();
    }
}

#[tokio::test]
async fn every_step_that_fails_once_or_comes_twice_ends_as_if_it_had_not() {
    let world = World::start().await;
    let (mut reached, events) = (BEGINNINGS.to_vec(), events());
    let steps = walk::<Process>(&mut reached, &events);
    let mut tested = 0;
    for step in steps.iter().filter(|step| step.outcome.is_ok()) {
        let (state, event) = (*step.state, step.event);
        let undisturbed = world.saga_in(state).await;
        world.answer(undisturbed, event.clone()).await.unwrap();
        let expected = world.picture(undisturbed).await;

        let failed = world.saga_in(state).await;
        let (before, owed) = (world.picture(failed).await, world.owed(failed).await);
        world.fail(failed, event).await;
        assert_eq!((world.picture(failed).await, world.owed(failed).await), (before, owed), "{event:?} in {state:?}");
        world.answer(failed, event.clone()).await.unwrap();
        assert_eq!(world.picture(failed).await, expected, "{event:?} in {state:?}, failed once");
        assert_eq!(world.owed(failed).await, world.owed(undisturbed).await, "{event:?} in {state:?}, failed once");

        let repeated = world.saga_in(state).await;
        world.answer(repeated, event.clone()).await.unwrap();
        match world.answer(repeated, event.clone()).await {
            Ok(()) => {}
            // A wish of a person, who is told that it was granted already.
            Err(store::Error::Illegal(_)) if matches!(event, Event::Cancelled | Event::Abandoned) => {}
            Err(error) => panic!("{event:?} twice in {state:?}: {error}"),
        }
        assert_eq!(world.picture(repeated).await, expected, "{event:?} in {state:?}, twice");
        tested += 1;
    }
    assert_eq!(reached.len(), 11, "every state is reached");
    assert!(tested >= reached.len(), "{tested} steps");
}
