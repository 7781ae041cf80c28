//! Clocks that are an hour off: libfaketime between a program and the time.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use chacha20::ChaCha8Rng;
use rand::{RngExt as _, seq::IndexedRandom as _};
use tokio::time::sleep;

use super::moment;
use crate::world::{DOCUMENTS, ITEMS, World};

pub(super) const LACKING: &str = "libfaketime is not installed (apt-get install libfaketime)";

pub(super) async fn strike(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let library = library().context(LACKING)?;
    let mut units = [world.units_of(ITEMS), world.units_of(DOCUMENTS)].concat();
    units.extend([ITEMS, DOCUMENTS].map(|service| format!("{service}-db")));
    let unit = units.choose(dice).context("there is no unit")?;
    let offset = if dice.random() { "+3600" } else { "-3600" };
    let span = moment(dice, 5000, 10_000);
    let _claims = world.claim(&[unit]).await?;
    let library = library.to_string_lossy();
    world.equip(unit, &[("LD_PRELOAD", &library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")])?;
    let skewed = restart(world, unit).await;
    sleep(span).await;
    world.equip(unit, &[])?;
    restart(world, unit).await?;
    skewed?;
    Ok(format!("the clock of {unit} was {offset} seconds off for {span:?}"))
}

async fn restart(world: &World, unit: &str) -> Result<()> {
    let old = world.kill(unit)?;
    world.healed(unit, old).await
}

/// Where distributions put it.
pub(super) fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file())
}
