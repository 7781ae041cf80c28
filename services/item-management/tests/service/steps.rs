//! Every command in every state of a reservation, in a real database: failed once and tried again, and handled twice. What each
//! comes to is what the table of the domain says, so that no entry of it is forgotten.

use item_management::{
    domain::{Command, ReservationState, Step, decide},
    messages::StockKeeper,
};
use outbox::{Event, Handler as _, HandlerError};
use uuid::Uuid;

use crate::{
    order_transaction::{disown_command, put_back_command, reserve_command, settle_command},
    world::World,
};

const COMMANDS: [Command; 5] = [Command::Reserve, Command::Take, Command::Release, Command::Disown, Command::Return];
const STATES: [Option<ReservationState>; 5] = [
    None,
    Some(ReservationState::Held),
    Some(ReservationState::Taken),
    Some(ReservationState::Released),
    Some(ReservationState::Refused),
];
const ON_HAND: i64 = 10;

/// Everything a command can change, and what was answered last.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    stock: (i64, i64),
    reservation: Option<String>,
    entries: i64,
    returns: i64,
    answer: Option<String>,
}

/// An order for an item of its own, whose reservation is in some state.
struct Case {
    order: Uuid,
    note: Uuid,
    item: Uuid,
}

impl Case {
    fn command(&self, command: Command) -> Event {
        match command {
            Command::Reserve => reserve_command(self.order, &[(self.item, 2)]),
            Command::Take => settle_command("take", self.order),
            Command::Release => settle_command("release", self.order),
            Command::Disown => disown_command(self.order, "unknown"),
            Command::Return => put_back_command(self.note, self.order, &[(self.item, 1)]),
        }
    }
}

impl World {
    async fn case(&self, state: Option<ReservationState>) -> Case {
        let order = Uuid::now_v7();
        let item = self.item(&format!("SKU-{order}"), ON_HAND).await.id;
        let case = Case { order, note: Uuid::now_v7(), item };
        match state {
            None => {}
            Some(ReservationState::Refused) => drop(self.reserve(order, &[(item, ON_HAND + 1)]).await.unwrap()),
            Some(_) => drop(self.reserve(order, &[(item, 2)]).await.unwrap()),
        }
        match state {
            Some(ReservationState::Taken) => drop(self.settle("take", order).await.unwrap()),
            Some(ReservationState::Released) => drop(self.settle("release", order).await.unwrap()),
            _ => {}
        }
        case
    }

    async fn picture(&self, case: &Case) -> Picture {
        let sql = "SELECT (SELECT state::text FROM reservations WHERE order_id = $1),
            (SELECT count(*) FROM stock_entries WHERE item_id = $2), (SELECT count(*) FROM stock_returns WHERE order_id = $1),
            (SELECT subject FROM outbox WHERE aggregate_id IN ($1, $3) ORDER BY position DESC LIMIT 1)";
        let row = self.reader.query_one(sql, &[&case.order, &case.item, &case.note]).await.unwrap();
        let stock = self.stock(case.item).await;
        Picture { stock, reservation: row.get(0), entries: row.get(1), returns: row.get(2), answer: row.get(3) }
    }

    /// Does all that the command does, and loses the connection before the commit.
    async fn fail(&self, event: &Event) -> Result<(), HandlerError> {
        let mut client = self.database.get().await.unwrap();
        let tx = client.transaction().await.unwrap();
        StockKeeper { clock: self.clock.clone() }.handle(&tx, event).await
    }
}

#[tokio::test]
async fn every_command_that_fails_once_or_comes_twice_ends_as_if_it_had_not() {
    let world = World::new().await;
    for (command, state) in COMMANDS.into_iter().flat_map(|command| STATES.map(|state| (command, state))) {
        let what = format!("{command:?} in {state:?}");
        let undisturbed = world.case(state).await;
        let before = world.picture(&undisturbed).await;
        let outcome = world.handle(&undisturbed.command(command)).await;
        match (decide(command, state), outcome) {
            (Step::Wait, Err(HandlerError::Retry(_))) => {
                assert_eq!(world.picture(&undisturbed).await, before, "{what}");
                continue;
            }
            (_, Ok(())) => {}
            (decided, outcome) => panic!("{what}: the table says {decided:?}, it came to {outcome:?}"),
        }
        let expected = world.picture(&undisturbed).await;

        let failed = world.case(state).await;
        world.fail(&failed.command(command)).await.unwrap();
        assert_eq!(world.picture(&failed).await, before, "{what}, failed");
        world.handle(&failed.command(command)).await.unwrap();
        assert_eq!(world.picture(&failed).await, expected, "{what}, failed once");

        let repeated = world.case(state).await;
        for _ in 0..2 {
            world.handle(&repeated.command(command)).await.unwrap();
        }
        assert_eq!(world.picture(&repeated).await, expected, "{what}, twice");
    }
}
