//! A mesh from its first preparation to its end, in the process that supervises it.

use std::{io, path::PathBuf, sync::Arc};

use mesh::Placement;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    control,
    failure::Failure,
    local::Local,
    lock::Lock,
    mesh_units,
    project::Project,
    secrets,
    socket_folder::SocketFolder,
    supervisor::{
        Supervisor,
        board::{Board, Phase},
        executor::Surroundings,
        log::Bounds,
    },
};

/// A mesh that runs, or is about to.
#[derive(Debug)]
pub struct RunningMesh {
    project: Project,
    board: watch::Sender<Board>,
    supervisor: OnceCell<Supervisor>,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl RunningMesh {
    /// A mesh that nothing was done for yet.
    pub fn new(project: &Project) -> Arc<Self> {
        let board = Board { supervisor: std::process::id(), ..Board::default() };
        Arc::new(Self {
            project: project.clone(),
            board: watch::Sender::new(board),
            supervisor: OnceCell::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        })
    }

    /// The picture of all units, and its changes.
    pub fn board(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    /// Asks it to end: the first time in good order, the second time at once.
    pub fn end(&self) {
        if self.stop.is_cancelled() {
            self.kill.cancel();
        }
        self.stop.cancel();
    }

    /// Prepares what is needed, runs everything, and returns when all has ended.
    ///
    /// # Errors
    /// Something cannot be prepared.
    pub async fn run(self: Arc<Self>, lock: Lock) -> Result<(), Failure> {
        let sockets = || SocketFolder::create(&self.project.run());
        let control = sockets().and_then(|folder| control::bind(&folder));
        let control = control.map_err(|error| Failure::io("cannot open the control socket", error))?;
        let server = tokio::spawn(control::serve(control, Arc::clone(&self)));
        let outcome = tokio::select! {
            outcome = self.supervise(&lock) => outcome,
            // Before anything runs, there is nothing to be stopped in order.
            () = self.stopped_early() => Ok(()),
        };
        server.abort();
        self.board.send_modify(|board| board.phase = Phase::Stopping);
        outcome
    }

    async fn stopped_early(&self) {
        self.stop.cancelled().await;
        if self.supervisor.initialized() {
            std::future::pending::<()>().await;
        }
    }

    async fn supervise(&self, lock: &Lock) -> Result<(), Failure> {
        let (records, ended) = lock.clean_up(&self.project).await?;
        if !ended.is_empty() {
            tracing::warn!(units = ended.join(", "), "ended what an earlier run had left");
        }
        let declared = self.project.resolve(&Placement::Nodes)?;
        let held = Local::hold(&self.project, declared.gateway.public_port.get())?;
        let placement = Placement::Loopback { block: held.local.block, public_port: held.local.public_port };
        let plan = self.project.resolve(&placement)?;
        self.board.send_modify(|board| {
            board.mesh = plan.name.to_string();
            board.public_url.clone_from(&plan.gateway.public_url);
        });
        secrets::init(&self.project, &plan, true)?;
        let public = held.public.try_clone().map_err(|error| Failure::io("cannot share the public socket", error))?;
        let specifications = mesh_units::prepare(&self.project, &plan, Arc::new(public)).await?;
        let surroundings = Surroundings {
            sockets: self.notify_folder().map_err(|error| Failure::io("cannot make notify sockets", error))?,
            records,
            board: self.board.clone(),
            helper: PathBuf::from("/proc/self/exe"),
        };
        let logs = self.project.logs();
        let supervisor = Supervisor::start(specifications, surroundings, &logs, Bounds::default()).await;
        let supervisor = supervisor.map_err(|error| Failure::io("cannot open the logs", error))?;
        let supervisor = self.supervisor.get_or_init(async || supervisor).await;
        self.stop.cancelled().await;
        tokio::select! {
            () = supervisor.stop() => {}
            () = self.kill.cancelled() => supervisor.kill().await,
        }
        Ok(())
    }

    fn notify_folder(&self) -> io::Result<SocketFolder> {
        SocketFolder::create(&self.project.run().join("notify"))
    }
}

impl control::Handler for RunningMesh {
    fn board(&self) -> watch::Receiver<Board> {
        self.board()
    }

    fn down(&self) {
        self.stop.cancel();
    }

    async fn restart(&self, name: &str) -> Result<(), String> {
        let supervisor = self.supervisor.get().filter(|_| self.board.borrow().phase == Phase::Running);
        let supervisor = supervisor.ok_or("the mesh is being prepared or stopped; try again when it runs")?;
        supervisor.restart(name).await.map_err(|error| error.to_string())
    }
}
