//! Processes that end at any moment, or stand still.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chacha20::ChaCha8Rng;
use database::Statements as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::seq::IndexedRandom as _;
use tokio::time::{Instant, sleep};

use super::{either_side, keep_away, moment};
use crate::world::World;

/// Longest time for another instance to take over: the stream's answers, then the database's patience with the old leader.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn any(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let units: Vec<String> = world.units().into_iter().map(|unit| unit.name).collect();
    let unit = units.choose(dice).context("there is nobody to kill")?;
    let away = moment(dice, 0, 3000);
    keep_away(world, unit, away).await?;
    Ok(format!("{unit} was killed, and away for {away:?}"))
}

/// Stops the process whose relay leads, until another leads; then lets it go on, believing that it still does.
pub(super) async fn freeze_leader(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, database) = either_side(dice);
    let after = moment(dice, 0, 1000);
    // Nobody takes over while the database or the event server is away.
    let mut units = world.units_of(service);
    units.extend([database, "nats".to_owned()]);
    let _claims = world.claim(&units).await?;
    let (old, port) = first_leader(world, service).await?;
    let unit = owner(world, service, port).with_context(|| format!("no instance of {service} holds port {port}"))?;
    let pid = world.pid(&unit)?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    let (thaw, began) = (Thaw(pid), Instant::now());
    while !matches!(leader(world, service).await, Ok((new, _)) if new != old) {
        if began.elapsed() > TAKEN_OVER_WITHIN {
            bail!("nobody took over from {unit} within {TAKEN_OVER_WITHIN:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed();
    sleep(after).await;
    drop(thaw);
    world.all_ready().await?;
    Ok(format!("{unit}, leading, stood still until another led after {took:.1?}"))
}

/// A stopped process goes on when this is dropped.
struct Thaw(i32);

impl Drop for Thaw {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGCONT);
    }
}

/// The leader, as soon as there is one: after another fault that takes a moment.
async fn first_leader(world: &World, service: &str) -> Result<(i32, i32)> {
    let began = Instant::now();
    loop {
        match leader(world, service).await {
            Err(_) if began.elapsed() < TAKEN_OVER_WITHIN => sleep(Duration::from_millis(100)).await,
            found => return found,
        }
    }
}

/// The backend that holds the relay's lock, and the port its client has.
async fn leader(world: &World, service: &str) -> Result<(i32, i32)> {
    let sql = "SELECT a.pid, a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
          AND l.classid = hashtext('berth')::oid AND l.objid = hashtext('relay')::oid";
    let row = world.database(service)?.get().await?.optional(sql, &[]).await?.context("no relay leads")?;
    Ok((row.get(0), row.get(1)))
}

/// The instance that has this local port.
fn owner(world: &World, service: &str, port: i32) -> Option<String> {
    let sockets = procfs::net::tcp().ok()?;
    let inodes: Vec<u64> = sockets
        .iter()
        .filter(|socket| i32::from(socket.local_address.port()) == port)
        .map(|socket| socket.inode)
        .collect();
    world.units_of(service).into_iter().find(|unit| {
        let process = world.pid(unit).ok().and_then(|pid| procfs::process::Process::new(pid).ok());
        let Some(Ok(files)) = process.map(|process| process.fd()) else { return false };
        files
            .flatten()
            .any(|file| matches!(file.target, procfs::process::FDTarget::Socket(inode) if inodes.contains(&inode)))
    })
}
