//! Named points at which a test ends, holds or fails a service from outside, to see that nothing is lost there.
//!
//! They exist with the cargo feature `failpoints` alone; without it [`failpoint!`](crate::failpoint) expands to nothing. A service lists
//! its own points in a module of the same name, made by [`points!`](crate::points).
//!
//! What happens at a point is said in the syntax of the crate `fail`, `[probability%][count*]task`, several with `->`: up to `count`
//! passes go to a task, the next ones to the task after it. So `2*off->return(abort)` means: on the third pass. The tasks:
//!
//! | task | what happens |
//! |---|---|
//! | `return(abort)` | the process ends at once, as if killed: nothing is flushed, nobody is told |
//! | `return(error)` | what was under way fails as if the database were away |
//! | `return(pause)` | whoever passes waits until the file changes, see below; the process goes on otherwise |
//! | `return(sleep 250)` | whoever passes waits for 250 ms |
//! | `pause`, `sleep(250)`, `off` | those of `fail`: the first two hold the thread |
//!
//! Two variables say it for a whole process:
//!
//! - `FAILPOINTS`: `name=task;name=task`, read once.
//! - `FAILPOINTS_FILE`: a file with the same, one a line, that may come, change and go at any time; it is looked at on each pass. It
//!   ends one process only: the one that manages to rename it to `<file>.fired`. So a service that is started again does not
//!   end again, and a test knows that it has happened.

#[cfg(feature = "failpoints")]
mod active;
#[cfg(feature = "failpoints")]
pub use active::{pass, pass_blocking, pass_during};

/// The name of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point(pub &'static str);

/// Declares the points of a crate, and a list of them all, `ALL`.
#[macro_export]
macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal;)+) => {
        $($(#[doc = $doc])+ pub const $point: $crate::failpoints::Point = $crate::failpoints::Point($name);)+

        /// All of them, in the order in which work passes them.
        pub const ALL: &[$crate::failpoints::Point] = &[$($point),+];
    };
}

/// Passes a point: does what is configured for it. An error that is wanted there is returned from the function around it, or what
/// the second argument makes of it. `failpoint!(blocking POINT)` is for functions that are not asynchronous, and never fails;
/// `failpoint!(during FUTURE, POINT)` awaits a future, and passes the point when the future is under way.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    (blocking $point:expr) => {
        $crate::failpoints::pass_blocking($point)
    };
    (during $future:expr, $point:expr) => {
        $crate::failpoints::pass_during($point, $future).await?
    };
    ($point:expr) => {
        $crate::failpoints::pass($point).await?
    };
    ($point:expr, $otherwise:expr) => {
        if let Err(error) = $crate::failpoints::pass($point).await {
            return $otherwise(error);
        }
    };
}

/// Nothing, without the feature `failpoints`; but the future is awaited.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    (during $future:expr, $point:expr) => {{
        let _ = $point;
        $future.await
    }};
    (blocking $point:expr) => {
        let _ = $point;
    };
    ($point:expr $(, $otherwise:expr)?) => {
        let _ = $point;
    };
}

points! {
    /// A change and the events it owes are committed; no relay knows.
    OUTBOX_COMMITTED = "outbox::committed";
    /// A relay has the advisory lock, and has not looked at the stream.
    RELAY_LEAD = "outbox::relay::lead";
    /// A relay has looked up what became of a batch, and not written it down.
    RELAY_RESOLVE = "outbox::relay::resolve";
    /// A relay is about to look for events that are owed. Passed also when there are none, and while batches are on their way.
    RELAY_CLAIM = "outbox::relay::claim";
    /// Events are claimed: the batch is on its way into the database, in the one statement that claims it.
    RELAY_CLAIMING = "outbox::relay::claiming";
    /// A batch is written down, nothing of it is sent. Those before it may be.
    RELAY_PUBLISH = "outbox::relay::publish";
    /// A batch is sent but for its last message, which would commit it. Passed also by a batch of one.
    RELAY_PUBLISH_LAST = "outbox::relay::publish-last";
    /// A batch is sent whole, its answer is not read.
    RELAY_PUBLISHED = "outbox::relay::published";
    /// A batch is acknowledged, and not marked published.
    RELAY_MARK = "outbox::relay::mark";
    /// One or several batches are marked published; the next one may be written down.
    RELAY_MARKED = "outbox::relay::marked";
    /// An event is delivered, no transaction has begun.
    CONSUMER_DELIVERED = "outbox::consumer::delivered";
    /// An event's effect is written, and not committed.
    CONSUMER_COMMIT = "outbox::consumer::commit";
    /// An event's effect is committed, or the event is parked or a dead letter; it is not acknowledged. An error here gives it back.
    CONSUMER_ACKNOWLEDGE = "outbox::consumer::acknowledge";
    /// An event is acknowledged, the events parked behind it wait.
    CONSUMER_ACKNOWLEDGED = "outbox::consumer::acknowledged";
}
