//! Items and their stock.
//!
//! The service answers for what the shop sells, at what price, and how much of it there is. It keeps the stock half of the
//! order transaction: `eshop-documents` asks by message to reserve, take, release and return stock, and it answers by message.
//! What an order is, and when it is confirmed, is not known here.
//!
//! [`domain`] holds the rules, [`store`] every SQL statement, [`api`] HTTP, [`messages`] what is consumed and emitted.

pub mod api;
pub mod domain;
pub mod failpoints;
pub mod messages;
pub mod store;
