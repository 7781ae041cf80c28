//! How this program was called, so that a command it names can be pasted as it stands.

use std::{env, path::Path, sync::OnceLock};

use crate::{
    cli::{Cli, Command, Up},
    walkthrough::quoted,
};

/// By this a program that stands before this one says what was typed: the script `./berth`, and `up --detach` to the
/// supervisor it leaves behind.
pub(crate) const VARIABLE: &str = "BERTH_CALLED_AS";

static COMMAND: OnceLock<String> = OnceLock::new();

/// Takes down how the program was called. Before that, it is plain `berth`.
pub fn remember(cli: &Cli) {
    let before = env::var(VARIABLE).ok();
    // What was typed is in the variable then; the rest was not typed by anybody.
    let supervised = matches!(&cli.command, Command::Up(Up { supervise: true, .. }));
    let own = env::args().next().unwrap_or_else(|| "berth".to_owned());
    let command = match before {
        Some(typed) if supervised => typed,
        before => spelled(&before.unwrap_or(own), cli.mesh.as_deref()),
    };
    // A second call would be a defect, and would change nothing.
    let _ = COMMAND.set(command);
}

fn spelled(program: &str, mesh: Option<&Path>) -> String {
    let mesh = mesh.map(|mesh| format!(" --mesh {}", quoted(&mesh.to_string_lossy()))).unwrap_or_default();
    format!("{}{mesh}", quoted(program))
}

/// The command up to the subcommand: `./berth --mesh examples/java`.
pub(crate) fn command() -> &'static str {
    COMMAND.get().map_or("berth", String::as_str)
}

/// The text, with every `` `berth … `` in it as it has to be typed here.
pub(crate) fn as_typed(text: &str) -> String {
    text.replace("`berth ", &format!("`{} ", command()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_spelled_as_it_was_typed() {
        assert_eq!(spelled("./berth", None), "./berth");
        assert_eq!(
            spelled("/opt/my berth", Some(Path::new("a b/mesh.toml"))),
            "'/opt/my berth' --mesh 'a b/mesh.toml'"
        );
        assert_eq!(as_typed("see `berth status` and berth"), "see `berth status` and berth");
    }
}
