use std::{
    env,
    path::{Path, PathBuf},
};

use console::Term;
use mesh::{Placement, Template};

use super::print;
use crate::{
    cli::Init,
    detect::{self, Candidate},
    failure::Failure,
    project::DECLARATION,
    secrets::files,
    starter,
};

/// Writes a first declaration for the program in the folder.
pub(super) fn run(mesh: Option<&Path>, options: &Init) -> Result<(), Failure> {
    let path = target(mesh)?;
    if path.exists() && !options.force {
        return Err(Failure::mendable(
            format!("{} is there already", path.display()),
            "leave it and edit it, or write over it with --force",
        ));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let program = program(folder, options)?;
    let name = match &options.name {
        Some(name) => {
            starter::checked_name(name).map_err(|wrong| Failure::mendable(wrong, "choose another one: --name NAME"))?
        }
        None => starter::name_of(&folder_name(folder)),
    };
    let text = starter::declaration(&name, &program);
    mesh::resolve(DECLARATION, &text, &Placement::Nodes).map_err(|found| Failure::Declaration(Box::new(found)))?;
    files::replace_public(&path, text.as_bytes())?;
    print(&told(&path, &name, &program))
}

/// Where the declaration is to be.
fn target(mesh: Option<&Path>) -> Result<PathBuf, Failure> {
    let here = env::current_dir().map_err(|error| Failure::io("cannot find the current folder", error))?;
    let path = here.join(mesh.unwrap_or(Path::new(DECLARATION)));
    Ok(if path.is_dir() { path.join(DECLARATION) } else { path })
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The one that was named, the one that was found, or the one that somebody chooses.
fn program(folder: &Path, options: &Init) -> Result<Candidate, Failure> {
    if let Some(artifact) = &options.artifact {
        return Ok(named(folder, artifact, options));
    }
    let mut found = detect::candidates(folder)
        .map_err(|error| Failure::io(format!("cannot look into {}", folder.display()), error))?;
    found.retain(|candidate| options.runtime.is_none_or(|runtime| candidate.runtime == runtime));
    match found.as_slice() {
        [only] => Ok(only.clone()),
        several => {
            let terminal = Term::stderr();
            if !(terminal.is_term() && std::io::IsTerminal::is_terminal(&std::io::stdin())) {
                return Err(undecided(folder, several));
            }
            ask(&terminal, folder, several, options)
        }
    }
}

/// A file somebody named.
fn named(folder: &Path, artifact: &str, options: &Init) -> Candidate {
    let artifact = artifact.trim_start_matches("./");
    let runtime = options.runtime.unwrap_or_else(|| detect::runtime_of(artifact));
    let build = (!folder.join(artifact).is_file()).then(|| "build it, or name another file".to_owned());
    Candidate { runtime, artifact: artifact.to_owned(), because: "--artifact".to_owned(), build }
}

fn undecided(folder: &Path, several: &[Candidate]) -> Failure {
    if several.is_empty() {
        return Failure::mendable(
            format!("nothing to run was found in {}", folder.display()),
            "name the file to start: `berth init --artifact FILE`, with --runtime if its name does not tell",
        );
    }
    let options = several.iter().map(|one| {
        format!("  berth init --runtime {} --artifact {}", Template::of(one.runtime).name, shell_word(&one.artifact))
    });
    Failure::mendable(
        format!("several programs were found in {}", folder.display()),
        format!("say which one is meant:\n{}", options.collect::<Vec<_>>().join("\n")),
    )
}

/// A file's name as a shell takes it.
fn shell_word(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Has a person choose, by number or by naming a file.
fn ask(terminal: &Term, folder: &Path, several: &[Candidate], options: &Init) -> Result<Candidate, Failure> {
    let failed = |error| Failure::io("cannot ask on the terminal", error);
    for (number, one) in (1..).zip(several) {
        let line = format!("  {number}  {} ({})", one.artifact, Template::of(one.runtime).name);
        terminal.write_line(&line).map_err(failed)?;
    }
    loop {
        let question =
            if several.is_empty() { "Which file is to be started? " } else { "Which one, or which other file? " };
        terminal.write_str(question).map_err(failed)?;
        let answer = terminal.read_line().map_err(failed)?;
        let answer = answer.trim();
        if answer.is_empty() {
            return Err(undecided(folder, several));
        }
        let chosen = answer.parse::<usize>().ok().and_then(|number| several.get(number.checked_sub(1)?));
        if let Some(chosen) = chosen {
            return Ok(chosen.clone());
        }
        if folder.join(answer).is_file() {
            return Ok(named(folder, answer, options));
        }
        terminal.write_line(&format!("There is no file {answer}.")).map_err(failed)?;
    }
}

/// What was found, and what to look at now.
fn told(path: &Path, name: &str, program: &Candidate) -> String {
    let runtime = Template::of(program.runtime).name;
    let found = format!("found {} ({runtime})", program.artifact);
    let by = if program.because == program.artifact { String::new() } else { format!(", by {}", program.because) };
    let mut lines = vec![
        found + &by,
        format!("wrote {}: the service `{name}`, twice, behind the gateway at /{name}", path.display()),
        String::new(),
        "Now edit in it what differs from your program:".to_owned(),
    ];
    if let Some(build) = &program.build {
        lines.push(format!("  artifact  is not there yet: {build}"));
    }
    lines.push("  args      how your program learns its port, if not from $PORT".to_owned());
    lines.push(format!("  route     it is called with the whole path, /{name} included"));
    lines.push("  memory    the most one instance may use".to_owned());
    lines.push(String::new());
    lines.push("Then: berth check, berth plan, berth up".to_owned());
    lines.push("As containers: berth compose, docker-compose up -d --build".to_owned());
    lines.join("\n")
}
