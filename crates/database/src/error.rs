//! Database errors by what a caller can do about them.

use std::{error::Error as StdError, fmt, time::Duration};

use berth_http::problem::{self, Problem};
use deadpool::managed::PoolError;
use tokio_postgres::error::SqlState;

/// Why a statement or a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, is starting or stopping, is out of a resource, or took too long. Later it may work.
    /// After a failed commit the transaction may still have been committed.
    #[error("the database is unavailable: {}", Chain(&**.0))]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// A unique, foreign key, check or exclusion constraint refused the write.
    #[error("constraint {constraint} refused the write: {}", Chain(.source))]
    Conflict {
        /// Name of the constraint.
        constraint: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// PostgreSQL rolled the transaction back because of a concurrent one; the same transaction may succeed when tried again.
    #[error("a concurrent transaction got in the way: {}", Chain(.0))]
    Serialization(#[source] tokio_postgres::Error),
    /// Anything else: a mistake in a statement or in the schema.
    #[error("database error: {}", Chain(.0))]
    Other(#[source] tokio_postgres::Error),
}

impl Error {
    pub(crate) fn unavailable(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::Unavailable(Box::new(error))
    }

    /// The name of the violated constraint, when that is what went wrong.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Conflict { constraint, .. } => Some(constraint),
            _ => None,
        }
    }

    /// Whether the same work may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Serialization(_))
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            let lost = error.is_closed() || caused_by_io(&error);
            return if lost { Self::unavailable(error) } else { Self::Other(error) };
        };
        match class(server.code()) {
            Class::Unavailable => Self::unavailable(error),
            Class::Serialization => Self::Serialization(error),
            Class::Constraint => {
                let constraint = server.constraint().unwrap_or_default().to_owned();
                Self::Conflict { constraint, source: error }
            }
            Class::Other => Self::Other(error),
        }
    }
}

impl From<PoolError<Error>> for Error {
    fn from(error: PoolError<Error>) -> Self {
        match error {
            PoolError::Backend(error) => error,
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<Error> for Problem {
    /// 503 with `Retry-After` for what may work later, 409 for a constraint the service did not foresee, else 500.
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::Serialization(_) => problem::UNAVAILABLE
                .detail("The service cannot reach its database now. Try again.")
                .retry_after(Duration::from_secs(1))
                .caused_by(error),
            Error::Conflict { .. } => {
                problem::CONFLICT.detail("The change conflicts with what is stored.").caused_by(error)
            }
            Error::Other(_) => Problem::internal(error),
        }
    }
}

/// An error with all its causes in one line: the driver's own text is as short as "db error".
struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn caused_by_io(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Unavailable,
    Serialization,
    Constraint,
    Other,
}

/// Sorts by SQLSTATE (PostgreSQL manual, appendix A).
fn class(code: &SqlState) -> Class {
    match code.code() {
        "40001" | "40P01" => Class::Serialization,
        "23505" | "23503" | "23514" | "23P01" => Class::Constraint,
        // read-only server, lock timeout, statement timeout, session ended by its own limits
        "25006" | "25P03" | "55P03" | "57014" | "57P05" => Class::Unavailable,
        // server shutting down, crashed, starting
        "57P01" | "57P02" | "57P03" => Class::Unavailable,
        // connection exceptions; insufficient resources; system errors
        code if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") => Class::Unavailable,
        _ => Class::Other,
    }
}

/// Why a [`Database`](crate::Database) cannot even be described.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A setting is absent.
    #[error("{0} is not set: a service with a database needs it")]
    Missing(&'static str),
    /// The URL does not parse.
    #[error("BERTH_DATABASE_URL is not a PostgreSQL URL (postgresql://role@host:port/database): {0}")]
    Url(String),
    /// The server's name is not a valid SPIFFE name.
    #[error("BERTH_DATABASE_SERVER is not a name a certificate can carry: {0}")]
    Server(String),
    /// The limits make no pool.
    #[error("the pool cannot be built: {0}")]
    Pool(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_database_is_a_503_that_says_when_to_come_back() {
        let error = Error::unavailable(std::io::Error::other("secret address"));
        let answer = Problem::from(error).to_response();
        assert_eq!(
            (answer.status().as_u16(), answer.headers().get("retry-after").unwrap().as_bytes()),
            (503, &b"1"[..])
        );
        assert!(!String::from_utf8_lossy(answer.body()).contains("secret"));
    }

    #[test]
    fn sqlstates_are_sorted_by_what_a_caller_can_do() {
        for (code, expected) in [
            (SqlState::T_R_SERIALIZATION_FAILURE, Class::Serialization),
            (SqlState::T_R_DEADLOCK_DETECTED, Class::Serialization),
            (SqlState::UNIQUE_VIOLATION, Class::Constraint),
            (SqlState::FOREIGN_KEY_VIOLATION, Class::Constraint),
            (SqlState::CHECK_VIOLATION, Class::Constraint),
            (SqlState::EXCLUSION_VIOLATION, Class::Constraint),
            (SqlState::NOT_NULL_VIOLATION, Class::Other),
            (SqlState::TOO_MANY_CONNECTIONS, Class::Unavailable),
            (SqlState::DISK_FULL, Class::Unavailable),
            (SqlState::IO_ERROR, Class::Unavailable),
            (SqlState::CONNECTION_FAILURE, Class::Unavailable),
            (SqlState::ADMIN_SHUTDOWN, Class::Unavailable),
            (SqlState::CRASH_SHUTDOWN, Class::Unavailable),
            (SqlState::CANNOT_CONNECT_NOW, Class::Unavailable),
            (SqlState::QUERY_CANCELED, Class::Unavailable),
            (SqlState::LOCK_NOT_AVAILABLE, Class::Unavailable),
            (SqlState::READ_ONLY_SQL_TRANSACTION, Class::Unavailable),
            (SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, Class::Unavailable),
            (SqlState::SYNTAX_ERROR, Class::Other),
            (SqlState::UNDEFINED_TABLE, Class::Other),
            (SqlState::IN_FAILED_SQL_TRANSACTION, Class::Other),
        ] {
            assert_eq!(class(&code), expected, "{}", code.code());
        }
    }
}
