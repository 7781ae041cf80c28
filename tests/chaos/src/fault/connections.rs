//! Connections to a database that end at the worst moment, or that there are too many of.

use std::time::Duration;

use anyhow::Result;
use chacha20::ChaCha8Rng;
use database::{Database, Statements as _};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};

use super::{either_side, moment};
use crate::world::World;

/// More than any database of the mesh accepts.
const MANY: usize = 240;

/// For a while every session that is in the middle of its COMMIT is ended: most of these transactions happened, and whoever asked for
/// them is not told.
pub(super) async fn cut(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, unit) = either_side(dice);
    let span = moment(dice, 1000, 4000);
    let _claims = world.claim(&[unit]).await?;
    let knife = world.database(service)?.dedicated().await?;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND usename = current_user AND state = 'active' AND query ILIKE 'commit%'";
    let (end, mut cut) = (Instant::now() + span, 0);
    while Instant::now() < end {
        cut += knife.one(sql, &[]).await?.get::<_, i64>(0);
        sleep(Duration::from_millis(2)).await;
    }
    Ok(format!("{cut} sessions of {service} were ended in their COMMIT within {span:?}"))
}

/// Takes every connection there is, the mesh's own included.
pub(super) async fn occupy(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, unit) = either_side(dice);
    let span = moment(dice, 2000, 6000);
    let _claims = world.claim(&[unit]).await?;
    let database = world.database(service)?;
    let door = database.dedicated().await?;
    end_sessions(&door).await?;
    let opened = stream::iter(0..MANY).map(|_| database.dedicated()).buffer_unordered(32);
    let taken: Vec<_> = opened.filter_map(async |opened| opened.ok()).collect().await;
    sleep(span).await;
    Ok(format!("{} connections of {service} were taken for {span:?}", taken.len()))
}

/// Ends all sessions of the database's owner but this one.
pub(super) async fn end_sessions(connection: &database::Connection) -> Result<i64> {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND usename = current_user";
    Ok(connection.one(sql, &[]).await?.get(0))
}

/// Runs one statement in a transaction that may write, whatever the session's default is.
pub(super) async fn write(database: &Database, sql: &str) -> Result<()> {
    let connection = database.dedicated().await?;
    connection.batch_execute(&format!("BEGIN READ WRITE; {sql}; COMMIT")).await?;
    Ok(())
}
