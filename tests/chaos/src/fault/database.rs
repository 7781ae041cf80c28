//! A database that is away, crashes, takes no writes, or has forgotten.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use berth::supervisor::leftovers::descendants;
use chacha20::ChaCha8Rng;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill as signal},
    unistd::Pid,
};
use rand::{RngExt as _, seq::IndexedRandom as _};
use tokio::time::sleep;

use super::{
    connections::{end_sessions, write},
    either_side, keep_away, moment,
    nats::copy_folder,
    other,
};
use crate::world::World;

pub(super) async fn kill(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let names: Vec<String> = world.plan().databases.iter().map(|database| database.name.to_string()).collect();
    let unit = names.choose(dice).context("there is no database")?;
    let away = moment(dice, 500, 8000);
    keep_away(world, unit, away).await?;
    Ok(format!("{unit} was killed, and away for {away:?}"))
}

/// One backend dies by SIGKILL: PostgreSQL ends all others and recovers, as it does after a crash of its own.
pub(super) async fn crash(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (_, unit) = either_side(dice);
    let _claims = world.claim(&[&unit]).await?;
    loop {
        let backends = descendants(world.pid(&unit)?);
        // It has just crashed, and begins to recover.
        let Some(&victim) = backends.choose(dice) else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        match signal(Pid::from_raw(victim), Signal::SIGKILL) {
            // Its session has ended meanwhile.
            Err(Errno::ESRCH) => {}
            killed => return Ok(killed.map(|()| format!("one process of {unit} was killed"))?),
        }
    }
}

pub(super) async fn read_only(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, unit) = either_side(dice);
    let span = moment(dice, 1000, 8000);
    let _claims = world.claim(&[&unit]).await?;
    let database = world.database(service)?;
    let door = database.dedicated().await?;
    write(database, &format!("ALTER DATABASE \"{service}\" SET default_transaction_read_only = on")).await?;
    end_sessions(&door).await?;
    sleep(span).await;
    write(database, &format!("ALTER DATABASE \"{service}\" RESET default_transaction_read_only")).await?;
    end_sessions(&door).await?;
    Ok(format!("{unit} took no writes for {span:?}"))
}

/// The database comes back with an older copy of its files, and everything that was acknowledged since is gone from it. As whoever
/// restores one should, its owner's consumers are deleted, so that the owner hears again what it has forgotten.
pub(super) async fn restore(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, unit) = either_side(dice);
    let (age, number) = (moment(dice, 2000, 6000), dice.random::<u32>());
    let _claims = world.claim(&[unit.as_str(), "nats"]).await?;
    let data = world.home(&unit)?;
    let copy = data.with_file_name(format!("{unit}-copy-{number}"));
    // While nothing of it runs, a copy is what a power cut would leave.
    world.signal(&unit, Signal::SIGSTOP)?;
    let copied = copy_folder(data, &copy);
    world.signal(&unit, Signal::SIGCONT)?;
    copied?;
    sleep(age).await;
    let (old, held) = world.kill_and_hold(&unit)?;
    sleep(moment(dice, 200, 1000)).await;
    fs::remove_dir_all(data)?;
    fs::rename(&copy, data)?;
    drop(held);
    world.healed(&unit, old).await?;
    let other = other(service);
    world.bus.stream(other).await?.delete_consumer(service).await?;
    world.bus.made_anew(other, service).await?;
    Ok(format!("{unit} came back with what it had stored {age:?} before"))
}
