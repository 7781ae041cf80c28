//! What SIGHUP reads again: the plan, the public certificate, our identity in the mesh, the key for internal tokens, the
//! issuer's keys. Each stands for itself: what is broken keeps its old form, and the log says so.

use std::{io, path::PathBuf, sync::Arc};

use mesh::plan::{LockError, Plan};
use runtime::lifecycle::Lifecycle;
use tls::PublicCertificate;

use crate::{
    proxy::Gateway,
    state::{Means, PlanError},
};

/// Everything that can be read again.
pub struct Reloadable {
    /// Where the plan is.
    pub plan: PathBuf,
    /// What serves by it.
    pub gateway: Gateway,
    /// What clients see.
    pub certificate: Arc<PublicCertificate>,
    /// Our credentials.
    pub means: Means,
}

/// Why a plan could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no plan.
    #[error("{}: {source}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LockError,
    },
}

/// Reads a plan.
///
/// # Errors
/// When there is no such file, or it holds no plan of this version.
pub fn read(path: &PathBuf) -> Result<Plan, ReadError> {
    let text = std::fs::read_to_string(path).map_err(|source| ReadError::File { path: path.clone(), source })?;
    Plan::from_json(&text).map_err(|source| ReadError::Plan { path: path.clone(), source })
}

impl Reloadable {
    /// Reloads whenever it is asked to, until the drain.
    pub async fn run(self, lifecycle: Lifecycle) {
        let (mut reloads, draining) = (lifecycle.reloads(), lifecycle.draining());
        loop {
            tokio::select! {
                changed = reloads.changed() => if changed.is_err() { return },
                () = draining.cancelled() => return,
            }
            lifecycle.reloading();
            let failures = self.reload().await;
            lifecycle.status(&match failures {
                0 => "serving".to_owned(),
                failures => format!("serving; {failures} parts of the last reload failed"),
            });
            lifecycle.ready();
        }
    }

    /// Reads everything again. Says how many parts could not be.
    pub async fn reload(&self) -> usize {
        let means = &self.means;
        let outcomes = [
            ("mesh certificate", means.identity.reload().map_err(|error| error.to_string())),
            ("public certificate", self.certificate.reload().map_err(|error| error.to_string())),
            ("token key", means.minter.reload(&means.credentials).map_err(|error| error.to_string())),
            ("plan", self.plan().await),
        ];
        let mut failures = 0;
        for (what, outcome) in outcomes {
            match outcome {
                Ok(()) => tracing::info!(what, "reloaded"),
                Err(error) => {
                    failures += 1;
                    tracing::error!(what, error, "not reloaded; the old one stays in use");
                }
            }
        }
        self.gateway.metrics().reloaded(if failures == 0 { "succeeded" } else { "failed" });
        failures
    }

    async fn plan(&self) -> Result<(), String> {
        let plan = read(&self.plan).map_err(|error| error.to_string())?;
        self.gateway.replace(plan).await.map_err(|error: PlanError| error.to_string())
    }
}
