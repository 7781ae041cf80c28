//! The event server: away, without a stream, full, or back with an older copy of its store.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use async_nats::jetstream::stream::Config;
use chacha20::ChaCha8Rng;
use nix::sys::signal::Signal;
use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use super::{either_side, keep_away, moment, other};
use crate::world::World;

const UNIT: &str = "nats";

pub(super) async fn kill(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let away = moment(dice, 0, 8000);
    keep_away(world, UNIT, away).await?;
    Ok(format!("the event server was killed, and away for {away:?}"))
}

pub(super) async fn delete_stream(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, _) = either_side(dice);
    let _claims = world.claim(&[UNIT]).await?;
    let began = Instant::now();
    world.bus.jetstream().delete_stream(service).await?;
    world.bus.made_anew(service, other(service)).await?;
    Ok(format!("the stream {service} was deleted, and made anew after {:.1?}", began.elapsed()))
}

/// The stream refuses what would make it larger, as it does when its disk is full.
pub(super) async fn fill_stream(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let ((service, _), span) = (either_side(dice), moment(dice, 1000, 8000));
    let _claims = world.claim(&[UNIT]).await?;
    let stream = world.bus.stream(service).await?;
    let (config, state) = (stream.cached_info().config.clone(), stream.cached_info().state.clone());
    let full = i64::try_from(state.bytes)?.max(1);
    world.bus.jetstream().update_stream(&Config { max_bytes: full, ..config.clone() }).await?;
    sleep(span).await;
    // As it is now: the service may have changed the rest meanwhile.
    let now = world.bus.stream(service).await?.cached_info().config.clone();
    world.bus.jetstream().update_stream(&Config { max_bytes: config.max_bytes, ..now }).await?;
    Ok(format!("the stream {service} took nothing for {span:?}"))
}

pub(super) async fn roll_back(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (age, away) = (moment(dice, 500, 5000), moment(dice, 0, 1000));
    let number: u32 = dice.random();
    let _claims = world.claim(&[UNIT]).await?;
    let store = world.home(UNIT)?.join("jetstream");
    let copy = store.with_file_name(format!("copy-{number}"));
    // While nothing of it runs, a copy is what a power cut would leave.
    world.signal(UNIT, Signal::SIGSTOP)?;
    let copied = copy_folder(&store, &copy);
    world.signal(UNIT, Signal::SIGCONT)?;
    copied?;
    sleep(age).await;
    let (old, held) = world.kill_and_hold(UNIT)?;
    sleep(away).await;
    fs::remove_dir_all(&store)?;
    fs::rename(&copy, &store)?;
    drop(held);
    world.healed(UNIT, old).await?;
    Ok(format!("the event server came back with what it had stored {age:?} before"))
}

/// With owners and permissions.
pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}
