use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{print, width};
use crate::{
    control::Client,
    failure::Failure,
    project::Project,
    supervisor::board::{Board, Phase, UnitStatus},
    usage::{Sampler, Usage},
    view,
};

/// A share of the processor is one of a span of time: this one.
const SPAN: Duration = Duration::from_millis(250);

/// What `--json` prints: the board, and what each unit takes.
#[derive(Serialize)]
struct Report<'a> {
    mesh: &'a str,
    public_url: &'a str,
    supervisor: u32,
    phase: Phase,
    units: Vec<Unit<'a>>,
}

#[derive(Serialize)]
struct Unit<'a> {
    #[serde(flatten)]
    status: &'a UnitStatus,
    /// Nothing while no process runs.
    usage: Option<Usage>,
}

/// Shows what runs.
pub(super) async fn run(project: &Project, json: bool) -> Result<(), Failure> {
    let board = Client::status(project).await?;
    let usage = measure(&board).await;
    if json {
        return print(&serde_json::to_string_pretty(&report(&board, &usage)).map_err(Failure::other)?);
    }
    print(&format!("{} at {}", board.mesh, board.public_url))?;
    print(&view::table(&board, &usage, width()))
}

async fn measure(board: &Board) -> BTreeMap<String, Usage> {
    let mut sampler = Sampler::default();
    sampler.sample(board);
    tokio::time::sleep(SPAN).await;
    sampler.sample(board)
}

fn report<'a>(board: &'a Board, usage: &BTreeMap<String, Usage>) -> Report<'a> {
    let Board { mesh, public_url, supervisor, phase, units } = board;
    let unit = |status: &'a UnitStatus| Unit { status, usage: usage.get(&status.name).copied() };
    Report { mesh, public_url, supervisor: *supervisor, phase: *phase, units: units.iter().map(unit).collect() }
}
