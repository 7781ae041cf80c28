//! Statements prepared once a connection and then only executed.

use std::future::Future;

use tokio_postgres::{Row, types::ToSql};

use crate::{Connection, Error, Transaction};

/// Runs SQL through the connection's cache of prepared statements, so that each statement is parsed and planned once a
/// connection. For a [`Connection`], a [`Client`](crate::Client) and a [`Transaction`].
pub trait Statements: Sync {
    /// All rows.
    ///
    /// # Errors
    /// As [`Error`] says.
    fn all(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// The only row.
    ///
    /// # Errors
    /// [`Error::Other`] when there is none, or more than one.
    fn one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Row, Error>> + Send;

    /// The row, if there is one.
    ///
    /// # Errors
    /// [`Error::Other`] when there is more than one.
    fn optional(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send;

    /// Runs a statement for its effect; gives the number of rows it touched.
    ///
    /// # Errors
    /// As [`Error`] says.
    fn run(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// `$asked` says how long to wait: for a transaction that is said of the whole of it.
macro_rules! cached {
    ($connection:ty, |$this:ident, $asked:ident| $answer:expr) => {
        impl Statements for $connection {
            async fn all(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
                let ($this, $asked) = (self, async { self.query(&self.prepare_cached(sql).await?, params).await });
                $answer
            }

            async fn one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
                let ($this, $asked) = (self, async { self.query_one(&self.prepare_cached(sql).await?, params).await });
                $answer
            }

            async fn optional(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
                let ($this, $asked) = (self, async { self.query_opt(&self.prepare_cached(sql).await?, params).await });
                $answer
            }

            async fn run(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
                let ($this, $asked) = (self, async { self.execute(&self.prepare_cached(sql).await?, params).await });
                $answer
            }
        }
    };
}

cached!(Connection, |connection, asked| connection.answered(asked).await);
cached!(Transaction<'_>, |_transaction, asked| Ok(asked.await?));
