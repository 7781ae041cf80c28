//! The points of this service at which a test ends, holds or fails it, see [`outbox::failpoints`].

outbox::points! {
    /// A document, its saga and the messages that begin it are written, and not committed.
    PLACE = "eshop-documents::place";
    /// They are committed; nobody was told.
    PLACED = "eshop-documents::placed";
    /// An answer of item management moved a saga on - confirmed or rejected the order, closed the credit note - and is not committed.
    DECIDE = "eshop-documents::decide";
    /// A saga is past its deadline: nothing is written yet.
    OVERDUE = "eshop-documents::overdue";
    /// Overdue sagas moved on - orders were called off, or what is unanswered is asked again - and it is not committed.
    SWEEP = "eshop-documents::sweep";
    /// That is committed.
    SWEPT = "eshop-documents::swept";
    /// A customer's cancellation is written, and not committed.
    CANCEL = "eshop-documents::cancel";
    /// It is committed; the customer was not told.
    CANCELLED = "eshop-documents::cancelled";
    /// A credit note, its saga and the messages that begin it are written, and not committed.
    CREDIT = "eshop-documents::credit";
    /// They are committed; nobody was told.
    CREDITED = "eshop-documents::credited";
}
