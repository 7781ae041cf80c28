//! Extractors whose rejections are problems that name what is wrong: the member of a body by JSON pointer, a parameter or
//! a header by its name.

mod idempotency;
mod json;
mod objects;
mod path;
mod prefer;
mod query;

#[cfg(test)]
pub(crate) use self::query::decode as decode_query;
pub use self::{
    idempotency::{IDEMPOTENCY_KEY, IdempotencyKey},
    json::Json,
    path::Path,
    prefer::{Prefer, WaitApplied},
    query::Query,
};
pub use crate::etag::{IfMatch, IfNoneMatch};

/// The longest message that repeats what a client sent.
const MAX_MESSAGE: usize = 200;

/// Cuts a message that repeats client input, so that an answer cannot be made as large as the request.
fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    message
}

/// What every text column refuses: PostgreSQL's `text` cannot hold it, so it must not get that far.
const NUL: char = '\0';
const NUL_MESSAGE: &str = "must not contain the character U+0000";
