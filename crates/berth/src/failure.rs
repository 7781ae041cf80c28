//! Everything that can go wrong in the CLI, what to do about it, and the exit code it ends with.

use std::{fmt::Display, io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::called::as_typed;

/// Why a command failed.
#[derive(Debug, Error, Diagnostic)]
pub enum Failure {
    /// Something went wrong that has no better place below.
    #[error("{0}")]
    Other(String),
    /// Something went wrong, and this is how to mend it.
    #[error("{what}")]
    #[diagnostic(help("{mend}"))]
    Mendable {
        /// What went wrong.
        what: String,
        /// What to do.
        mend: String,
    },
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no declaration.
    #[error("there is no {}", .0.display())]
    #[diagnostic(help("change into a folder that has a mesh.toml in it or above it, or name one with --mesh PATH"))]
    NoDeclaration(PathBuf),
    /// The declaration is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Declaration(Box<mesh::Diagnostics>),
    /// The mesh does not run.
    #[error("the mesh is not running")]
    #[diagnostic(help("{}", as_typed("start it with `berth up --detach`")))]
    NotRunning,
    /// Another berth process failed, and has said why.
    #[error("{words}")]
    Told {
        /// Its words.
        words: String,
        /// Its exit code.
        code: u8,
    },
    /// PostgreSQL or NATS is missing or does not do what it should.
    #[error(transparent)]
    Servers(#[from] servers::Error),
    /// A certificate cannot be made or read.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

impl Failure {
    /// The system refused `action`.
    pub fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source }
    }

    /// Something went wrong.
    pub fn other(what: impl Display) -> Self {
        Self::Other(what.to_string())
    }

    /// Something went wrong, and this is how to mend it. A command in it, `` `berth up` ``, is shown as it has to be typed.
    pub fn mendable(what: impl Display, mend: impl Into<String>) -> Self {
        Self::Mendable { what: as_typed(&what.to_string()), mend: as_typed(&mend.into()) }
    }

    /// What the process ends with; see the table in `berth --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Told { code, .. } => *code,
            Self::NotRunning => 3,
            Self::NoDeclaration(_) | Self::Declaration(_) => 4,
            Self::Servers(servers::Error::Missing { .. }) => 5,
            _ => 1,
        }
    }
}
