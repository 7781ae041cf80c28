//! Processes that end at a named point of their work, wherever it hurts most.

use std::{fs, time::Duration};

use anyhow::Result;
use chacha20::ChaCha8Rng;
use outbox::failpoints::Point;
use rand::{RngExt as _, seq::IndexedRandom as _};
use tokio::time::{Instant, sleep, timeout};

use super::either_side;
use crate::world::{DOCUMENTS, ITEMS, World};

/// Some points are passed only when a deadline passes.
const PASSED_WITHIN: Duration = Duration::from_secs(25);

/// Where a service can be ended: at the points of the messages it sends and receives, and at its own.
fn points(service: &str) -> Vec<Point> {
    let own = if service == ITEMS { item_management::failpoints::ALL } else { eshop_documents::failpoints::ALL };
    [outbox::failpoints::ALL, own].concat()
}

/// Ends one instance at a point, on one of its next passes.
pub(super) async fn strike(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, _) = either_side(dice);
    let passes = dice.random_range(0..8);
    let points = points(service);
    let Some(Point(name)) = points.choose(dice) else { return Ok("there are no points".into()) };
    let mut units = world.units_of(service);
    if awaits_a_deadline(name) {
        units.extend(world.units_of(ITEMS));
    }
    let _claims = world.claim(&units).await?;
    // While item management hears nothing, orders pass their deadlines.
    let deaf = "outbox::consumer::delivered=return(pause)";
    let _deaf = awaits_a_deadline(name).then(|| Armed::new(world, ITEMS, deaf)).transpose()?;
    let starts = world.starts(service);
    let armed = Armed::new(world, service, &format!("{name}={passes}*off->1*return(abort)"))?;
    let began = Instant::now();
    while !armed.fired() {
        if began.elapsed() > PASSED_WITHIN {
            return Ok(format!("{service} never passed {name}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    drop(armed);
    // The supervisor needs a moment to notice.
    let noticed = async {
        while world.starts(service) == starts {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PASSED_WITHIN, noticed).await?;
    world.all_ready().await?;
    Ok(format!("{service} ended at {name}, after {passes} passes"))
}

fn awaits_a_deadline(point: &str) -> bool {
    ["overdue", "sweep", "swept"].into_iter().any(|name| point == format!("{DOCUMENTS}::{name}"))
}

/// What is to happen at the points of a service, until this is dropped.
struct Armed {
    file: std::path::PathBuf,
}

impl Armed {
    fn new(world: &World, service: &str, tasks: &str) -> Result<Self> {
        let file = world.failpoints(service);
        let next = file.with_extension("next");
        fs::write(&next, tasks)?;
        fs::rename(&next, &file)?;
        Ok(Self { file })
    }

    fn fired(&self) -> bool {
        self.fired_file().exists()
    }

    fn fired_file(&self) -> std::path::PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(".fired");
        name.into()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(self.fired_file());
    }
}
