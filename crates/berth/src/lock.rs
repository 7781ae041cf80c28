//! One supervisor for each `.berth`: whoever holds the lock on `.berth/run/lock` is it.

use std::{
    fs::{File, TryLockError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{failure::Failure, project::Project, supervisor::leftovers::Records};

/// What an earlier run left gets this long to end by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// The right to be the supervisor. It ends with this value, and with the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// The lock, unless another process has it.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn try_take(project: &Project) -> Result<Option<Self>, Failure> {
        project.create_folders().map_err(|error| Failure::io("cannot make the folder .berth", error))?;
        let failed = |error| Failure::io("cannot lock .berth/run/lock", error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(project.run().join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Waits up to `patience` for whoever has it.
    ///
    /// # Errors
    /// It is still taken then, or cannot be locked.
    pub async fn take(project: &Project, patience: Duration) -> Result<Self, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = Self::try_take(project)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(Failure::mendable(
                    "another berth is busy with this mesh",
                    "wait for it, or look with `berth status` what it does",
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends what an earlier supervisor left behind, and gives the folder of records to the next.
    ///
    /// # Errors
    /// Something does not end.
    pub async fn clean_up(&self, project: &Project) -> Result<(Records, Vec<String>), Failure> {
        let records = Records::at(&project.run().join("processes"))
            .map_err(|error| Failure::io("cannot read .berth/run/processes", error))?;
        let ended = records.clean_up(PATIENCE).await;
        let ended = ended.map_err(|error| Failure::io("cannot clean up after an earlier run", error))?;
        Ok((records, ended))
    }
}
