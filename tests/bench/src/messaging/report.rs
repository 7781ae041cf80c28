//! Figures beside their limits and their goals.

use std::collections::BTreeMap;

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use jiff::Timestamp;
use serde::Serialize;

use super::machine;

/// One goal, and what was measured.
#[derive(Debug, Serialize)]
pub struct Goal {
    /// What is measured.
    pub what: &'static str,
    /// What must be met, in words.
    pub goal: &'static str,
    /// The figures, by what they are of, with their unit.
    pub figures: Vec<(&'static str, f64, &'static str)>,
    /// What is compared with the bound: a ratio, or a figure.
    pub result: f64,
    /// The bound.
    pub bound: Bound,
}

/// What a result must be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// So much or more.
    AtLeast(f64),
    /// Less than this.
    Below(f64),
}

impl Goal {
    /// Whether it is met.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.result >= least,
            Bound::Below(most) => self.result < most,
        }
    }
}

/// All of them, and where they were measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When.
    pub at: Timestamp,
    /// On which machine, and what else it did.
    pub machine: BTreeMap<&'static str, String>,
    /// What the servers ran under.
    pub settings: BTreeMap<String, String>,
    /// How often raw and ours took turns.
    pub rounds: u32,
    /// What was measured.
    pub goals: Vec<Goal>,
}

impl Report {
    pub(super) fn new(settings: BTreeMap<String, String>, rounds: u32, goals: Vec<Goal>) -> Self {
        Self { at: Timestamp::now(), machine: machine::describe(), settings, rounds, goals }
    }

    /// Whether every goal is met.
    pub fn is_met(&self) -> bool {
        self.goals.iter().all(Goal::is_met)
    }

    /// For people, and for documents.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["what", "figures", "result", "goal", ""]);
        for goal in &self.goals {
            let figures: Vec<String> =
                goal.figures.iter().map(|(of, figure, unit)| format!("{of} {} {unit}", short(*figure))).collect();
            let met = if goal.is_met() { "met" } else { "NOT MET" };
            table.add_row([goal.what, &figures.join(", "), &short(goal.result), goal.goal, met]);
        }
        table.to_string()
    }
}

fn short(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}
