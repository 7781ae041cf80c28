//! What a person sees of a mesh: a table that keeps itself current on a terminal, a line for each change elsewhere.

use std::{collections::BTreeMap, io, time::Duration};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use console::Term;
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::timeout};

use crate::{
    supervisor::board::{Board, Phase, StateName, UnitStatus},
    usage::{Sampler, Usage},
};

/// A changing board is drawn this often at most.
const FRAME: Duration = Duration::from_millis(100);
/// An unchanging one is drawn anew this often, for its numbers.
const REFRESH: Duration = Duration::from_secs(1);

/// A table without lines, as wide as the terminal if there is one.
pub(crate) fn empty_table(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    match width {
        Some(width) => table.set_width(width),
        None => table.force_no_tty(),
    };
    table
}

/// The columns a narrow terminal does without, by their places in the table, the first of them first: address, restarts,
/// cpu, pid, memory.
const DISPENSABLE: [usize; 5] = [6, 5, 3, 2, 4];

/// Hides what is dispensable until the rest fits.
fn fit(table: &mut Table, width: u16) {
    for column in DISPENSABLE {
        if natural_width(table) <= width {
            return;
        }
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

/// The columns it takes on the screen if nothing in it is wrapped, a space on either side of each included.
fn natural_width(table: &Table) -> u16 {
    let widths = table.column_iter().zip(table.column_max_content_widths());
    widths.filter(|(column, _)| !column.is_hidden()).map(|(_, width)| width.saturating_add(2)).sum()
}

/// All units as a table.
pub fn table(board: &Board, usage: &BTreeMap<String, Usage>, width: Option<u16>) -> String {
    let mut table = empty_table(width);
    table.set_header(["instance", "state", "pid", "cpu", "memory", "restarts", "address"]);
    for unit in &board.units {
        let used = usage.get(&unit.name);
        table.add_row([
            Cell::new(&unit.name),
            state_cell(unit),
            Cell::new(unit.pid.map(|pid| pid.to_string()).unwrap_or_default()),
            Cell::new(used.map(|used| format!("{:.1} %", used.cpu_percent)).unwrap_or_default()),
            Cell::new(used.map(|used| mebibytes(used.memory_bytes)).unwrap_or_default()),
            Cell::new(unit.restarts),
            Cell::new(unit.address.map(|address| address.to_string()).unwrap_or_default()),
        ]);
    }
    if let Some(width) = width {
        fit(&mut table, width);
    }
    table.to_string()
}

fn state_cell(unit: &UnitStatus) -> Cell {
    let cell = Cell::new(format!("{} {}", unit.state.word(), age(unit.since)));
    match unit.state {
        StateName::Ready => cell.fg(Color::Green),
        StateName::Backoff => cell.fg(Color::Red).add_attribute(Attribute::Bold),
        StateName::Stopped => cell.fg(Color::DarkGrey),
        StateName::Waiting | StateName::Starting | StateName::Reloading | StateName::Stopping => cell.fg(Color::Yellow),
    }
}

/// How long ago that was.
pub(crate) fn age(since: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(since).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// Lines below the table: what does not serve, and why.
fn troubles(board: &Board) -> Vec<String> {
    if board.phase != Phase::Running {
        return Vec::new();
    }
    board.units.iter().filter_map(|unit| Some(format!("{}: {}", unit.name, board.trouble(unit)?))).collect()
}

/// Shows a board while it changes.
#[derive(Debug)]
pub struct View {
    terminal: Term,
    sampler: Sampler,
    drawn: usize,
    shown: BTreeMap<String, (StateName, u64)>,
    phase: Option<Phase>,
}

impl View {
    /// A view on standard output.
    pub fn new() -> Self {
        Self {
            // All of a frame at once, so that it does not flicker.
            terminal: Term::buffered_stdout(),
            sampler: Sampler::default(),
            drawn: 0,
            shown: BTreeMap::new(),
            phase: None,
        }
    }

    /// Takes what the board says as known: off a terminal, only what changes after it is told.
    pub fn know(&mut self, board: &Board) {
        self.phase = Some(board.phase);
        self.shown = board.units.iter().map(|unit| (unit.name.clone(), (unit.state, unit.starts))).collect();
    }

    /// Follows the board until `done` says so of it, or it goes away.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub async fn follow(
        &mut self,
        board: &mut watch::Receiver<Board>,
        done: impl Fn(&Board) -> bool,
    ) -> io::Result<()> {
        loop {
            let now = board.borrow_and_update().clone();
            self.show(&now)?;
            self.terminal.flush()?;
            if done(&now) {
                return Ok(());
            }
            match timeout(REFRESH, board.changed()).await {
                Ok(Ok(())) => tokio::time::sleep(FRAME).await,
                Ok(Err(_)) => return Ok(()),
                Err(_) => {}
            }
        }
    }

    /// Prints something that stays. The table goes on below it.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        self.terminal.write_line(text)?;
        self.terminal.flush()
    }

    fn show(&mut self, board: &Board) -> io::Result<()> {
        let (height, width) = self.terminal.size();
        let needed = board.units.len() + 8;
        if self.terminal.is_term() && usize::from(height) > needed {
            return self.draw(board, width);
        }
        self.tell_changes(board)
    }

    fn draw(&mut self, board: &Board, width: u16) -> io::Result<()> {
        let usage = self.sampler.sample(board);
        let mut text = match board.phase {
            Phase::Preparing => "preparing secrets, databases and configuration …".to_owned(),
            Phase::Running | Phase::Stopping => table(board, &usage, Some(width)),
        };
        for line in troubles(board).into_iter().take(5) {
            text.push('\n');
            text.extend(line.chars().take(usize::from(width).saturating_sub(1)));
        }
        if board.phase == Phase::Stopping {
            text.push_str("\nstopping …");
        }
        self.erase()?;
        self.terminal.write_line(&text)?;
        self.drawn = text.lines().count();
        Ok(())
    }

    fn erase(&mut self) -> io::Result<()> {
        self.terminal.clear_last_lines(std::mem::take(&mut self.drawn))
    }

    fn tell_changes(&mut self, board: &Board) -> io::Result<()> {
        if self.phase.replace(board.phase) != Some(board.phase) {
            self.terminal.write_line(match board.phase {
                Phase::Preparing => "preparing secrets, databases and configuration",
                Phase::Running => "starting",
                Phase::Stopping => "stopping",
            })?;
        }
        for unit in &board.units {
            let current = (unit.state, unit.starts);
            let before = self.shown.insert(unit.name.clone(), current);
            // A unit that has not been started yet is no news.
            let known = before == Some(current) || (before.is_none() && unit.state == StateName::Stopped);
            if known || matches!(unit.state, StateName::Waiting | StateName::Stopping) {
                continue;
            }
            let reason = unit.reason.as_ref().filter(|_| unit.state == StateName::Backoff);
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            self.terminal.write_line(&format!("{} {}{reason}", unit.name, unit.state.word()))?;
        }
        Ok(())
    }
}

impl Default for View {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let unit = |name: &str, pid| UnitStatus {
            name: name.to_owned(),
            service: name.to_owned(),
            state: StateName::Ready,
            since: Timestamp::now(),
            pid,
            restarts: 0,
            starts: 1,
            address: Some(([127, 210, 199, 12], 5432).into()),
            after: Vec::new(),
            says: None,
            reason: None,
        };
        let units = vec![unit("eshop-documents-db", Some(4_194_304)), unit("gateway-1", None)];
        Board { phase: Phase::Running, units, ..Board::default() }
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_no_broken_lines() {
        let used = Usage { cpu_percent: 100.0, cpu_seconds: 1.0, memory_bytes: 1 << 30 };
        let usage = BTreeMap::from([("eshop-documents-db".to_owned(), used)]);
        for (width, last) in [(None, "address"), (Some(120), "address"), (Some(80), "restarts"), (Some(40), "state")] {
            let table = table(&board(), &usage, width);
            let lines: Vec<&str> = table.lines().collect();
            assert_eq!(lines.len(), 3, "{table}");
            let header = console::strip_ansi_codes(lines.first().unwrap_or(&"")).into_owned();
            assert_eq!(header.split_whitespace().last(), Some(last), "{table}");
            let fits = |line: &&str| width.is_none_or(|width| console::measure_text_width(line) <= usize::from(width));
            assert!(lines.iter().all(fits), "{table}");
        }
    }
}
