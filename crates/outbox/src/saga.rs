//! Sagas as plain data: a pure table of what is done in which state on which event. The store applies it.
//!
//! A saga is the sequence of local transactions that stands in for one transaction across databases (Garcia-Molina and
//! Salem, *Sagas*, 1987). Before its pivot it can be undone by compensations, after it it only goes forward.

use std::fmt::Debug;

/// What one kind of saga does in each state on each event.
pub trait Saga {
    /// Where an instance stands; kept in the owner's database.
    type State: Clone + PartialEq + Debug;
    /// What happens to an instance: an answer of another service, a deadline, a wish of a person.
    type Event: Debug;
    /// What is done then, in the transaction that writes the next state.
    type Command: Debug;

    /// The next state and what is done on the way there. Pure: no clock, no database, no chance.
    ///
    /// # Errors
    /// [`Illegal`] for an event that cannot happen in this state. Events that can be delivered again, or late, are not
    /// illegal: they lead to the same state, and to nothing being done or to what may safely be done twice.
    fn decide(state: &Self::State, event: &Self::Event) -> Result<(Self::State, Vec<Self::Command>), Illegal>;
}

/// An event that the table has no step for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event {event} cannot happen in the state {state}")]
pub struct Illegal {
    /// The state the saga is in.
    pub state: String,
    /// What happened.
    pub event: String,
}

impl Illegal {
    /// `event` cannot happen in `state`.
    pub fn new(state: &impl Debug, event: &impl Debug) -> Self {
        Self { state: format!("{state:?}"), event: format!("{event:?}") }
    }
}

/// One entry of a saga's table, as [`walk`] finds it.
#[derive(Debug)]
pub struct Step<'a, S: Saga> {
    /// The state before.
    pub state: &'a S::State,
    /// What happens.
    pub event: &'a S::Event,
    /// The state after and what is done, or that this cannot happen.
    pub outcome: Result<(S::State, Vec<S::Command>), Illegal>,
}

/// For tests: every entry of the table for the states that can be reached from `start` by `events`, each state once, in
/// the order of discovery. From it a test can check each entry against what is wanted, find states that are dead ends,
/// and repeat each event to see that nothing changes.
pub fn walk<'a, S: Saga>(reached: &'a mut Vec<S::State>, events: &'a [S::Event]) -> Vec<Step<'a, S>> {
    let mut next = 0;
    while let Some(state) = reached.get(next).cloned() {
        next += 1;
        for event in events {
            if let Ok((after, _)) = S::decide(&state, event)
                && !reached.contains(&after)
            {
                reached.push(after);
            }
        }
    }
    let steps = |state| events.iter().map(move |event| Step { state, event, outcome: S::decide(state, event) });
    reached.iter().flat_map(steps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Door;

    #[derive(Debug, Clone, PartialEq)]
    enum State {
        Open,
        Shut,
        Locked,
    }

    impl Saga for Door {
        type State = State;
        type Event = &'static str;
        type Command = &'static str;

        fn decide(state: &State, event: &&'static str) -> Result<(State, Vec<&'static str>), Illegal> {
            Ok(match (state, *event) {
                (State::Open | State::Shut, "shut") => (State::Shut, vec!["push"]),
                (State::Shut, "lock") => (State::Locked, vec!["turn"]),
                _ => return Err(Illegal::new(state, event)),
            })
        }
    }

    #[test]
    fn a_walk_finds_each_reachable_state_and_every_entry_for_it() {
        let mut reached = vec![State::Open];
        let events = ["shut", "lock"];
        let steps = walk::<Door>(&mut reached, &events);
        let legal: Vec<_> =
            steps.iter().filter(|step| step.outcome.is_ok()).map(|step| (step.state, *step.event)).collect();
        assert_eq!(steps.len(), 6);
        assert_eq!(legal, [(&State::Open, "shut"), (&State::Shut, "shut"), (&State::Shut, "lock")]);
        assert_eq!(reached, [State::Open, State::Shut, State::Locked]);
    }

    #[test]
    fn an_illegal_event_names_itself_and_the_state() {
        let error = Door::decide(&State::Locked, &"shut").unwrap_err();
        assert_eq!(error.to_string(), "the event \"shut\" cannot happen in the state Locked");
    }
}
