//! The points of this service at which a test ends, holds or fails it, see [`outbox::failpoints`]. At each something is written
//! that is not committed.

outbox::points! {
    /// All lines of an order are promised to it.
    RESERVE = "item-management::reserve";
    /// An order is refused.
    REFUSE = "item-management::refuse";
    /// The stock of an order has left the house.
    TAKE = "item-management::take";
    /// The stock of an order is free again.
    RELEASE = "item-management::release";
    /// The stock of an order that nobody knows any more is back on the shelf.
    GIVE_BACK = "item-management::give-back";
    /// An order that was never seen is remembered as released.
    TOMBSTONE = "item-management::tombstone";
    /// The goods of a credit note are back on the shelf.
    PUT_BACK = "item-management::put-back";
    /// Any of these is answered.
    ANSWER = "item-management::answer";
}
