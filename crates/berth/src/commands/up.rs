use std::{
    fs::File,
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep},
};

use super::{print, printing, running_plan};
use crate::{
    called::{self, as_typed},
    cli::Up,
    control::{Client, Request, Response},
    failure::Failure,
    lock::Lock,
    project::Project,
    running::RunningMesh,
    supervisor::{
        board::Board,
        log::{Bounds, Log},
    },
    view::{self, View},
    walkthrough,
};

/// Starts the mesh, here or in the background.
pub(super) async fn run(project: &Project, options: &Up) -> Result<(), Failure> {
    if options.detach {
        return detached(project, Duration::from_secs(options.timeout)).await;
    }
    let Some(lock) = Lock::try_take(project)? else {
        return Err(Failure::mendable(
            "the mesh is running already",
            "look at it with `berth status`, or stop it with `berth down`",
        ));
    };
    if options.supervise { supervise(project, lock).await } else { foreground(project, lock).await }
}

/// Supervises with a view on the terminal.
async fn foreground(project: &Project, lock: Lock) -> Result<(), Failure> {
    log_to_file(project)?;
    let mesh = RunningMesh::new(project);
    end_on_signal(&mesh)?;
    let view = tokio::spawn(show(project.clone(), mesh.board()));
    mesh.run(lock).await?;
    // It sees the end, too, and shows it.
    view.await.map_err(Failure::other)??;
    print("the mesh is down")
}

async fn show(project: Project, mut board: watch::Receiver<Board>) -> Result<(), Failure> {
    let mut view = View::new();
    view.follow(&mut board, |board| board.all_ready() || board.has_ended()).await.map_err(printing)?;
    if board.borrow().all_ready() {
        let plan = running_plan(&project).await?;
        view.print(&walkthrough::text(&project, &plan)).map_err(printing)?;
        view.print("Ctrl-C stops everything.").map_err(printing)?;
        view.follow(&mut board, Board::has_ended).await.map_err(printing)?;
    }
    Ok(())
}

/// Supervises without a view, on nobody's terminal.
async fn supervise(project: &Project, lock: Lock) -> Result<(), Failure> {
    // Fails only for the leader of a process group, who has none to leave.
    let _ = nix::unistd::setsid();
    log_to_file(project)?;
    let mesh = RunningMesh::new(project);
    end_on_signal(&mesh)?;
    mesh.run(lock).await
}

/// The first signal asks for an orderly end, the second one for an immediate one.
fn end_on_signal(mesh: &Arc<RunningMesh>) -> Result<(), Failure> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|error| Failure::io("cannot wait for signals", error))?;
        let mesh = Arc::clone(mesh);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                mesh.end();
            }
        });
    }
    Ok(())
}

/// What the supervisor itself has to say goes to a log of its own, a line of JSON each.
fn log_to_file(project: &Project) -> Result<(), Failure> {
    let path = project.logs().join("supervisor.log");
    let log = Log::open(&path, Bounds::default());
    let log = log.map_err(|error| Failure::io(format!("cannot open {}", path.display()), error))?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let subscriber = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(Mutex::new(log)).finish();
    tracing::subscriber::set_global_default(subscriber).map_err(Failure::other)
}

/// Starts a supervisor in the background, and watches it until all is ready.
async fn detached(project: &Project, patience: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let mut supervisor = match Lock::try_take(project)? {
        Some(lock) => {
            // The supervisor takes it.
            drop(lock);
            Some(Background::start(project)?)
        }
        None => None,
    };
    let mut client = connect(project, supervisor.as_mut(), deadline).await?;
    let (sender, mut board) = watch::channel(Board::default());
    let listen = async {
        while let Some(Response::Status { board }) = client.answer().await? {
            sender.send_replace(board);
        }
        Ok::<(), Failure>(())
    };
    let mut view = View::new();
    tokio::select! {
        shown = view.follow(&mut board, Board::all_ready) => shown.map_err(printing)?,
        ended = listen => {
            ended?;
            return Err(died(supervisor.as_mut()).await);
        }
        () = tokio::time::sleep_until(deadline) => return Err(not_ready(&board.borrow(), patience)),
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure::mendable("stopped waiting; the mesh goes on starting", "stop it with `berth down`"));
        }
    }
    if !console::Term::stdout().is_term() {
        print(&view::table(&board.borrow(), &crate::usage::Sampler::default().sample(&board.borrow()), None))?;
    }
    let Board { mesh, public_url, .. } = board.borrow().clone();
    if supervisor.is_none() {
        return print(&as_typed(&format!("\n{mesh} runs already at {public_url}. Stop it with `berth down`.")));
    }
    let plan = running_plan(project).await?;
    print(&as_typed(&format!("\n{}\nStop it with `berth down`.", walkthrough::text(project, &plan))))
}

async fn connect(
    project: &Project,
    mut supervisor: Option<&mut Background>,
    deadline: Instant,
) -> Result<Client, Failure> {
    loop {
        match Client::ask(project, &Request::Watch {}).await {
            Err(Failure::NotRunning) if Instant::now() < deadline => {}
            other => return other,
        }
        if let Some(background) = supervisor.as_deref_mut()
            && background.ended().is_some()
        {
            return Err(died(Some(background)).await);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A supervisor that was started in the background.
struct Background {
    child: Child,
    complaints: std::path::PathBuf,
}

impl Background {
    fn start(project: &Project) -> Result<Self, Failure> {
        let complaints = project.run().join("complaints");
        let open = || File::create(&complaints);
        let file = open().map_err(|error| Failure::io(format!("cannot write {}", complaints.display()), error))?;
        let child = Command::new("/proc/self/exe")
            .arg0("berth")
            .arg("--mesh")
            .arg(project.declaration())
            .args(["up", "--supervise"])
            .env(called::VARIABLE, called::command())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| Failure::io("cannot start the supervisor", error))?;
        Ok(Self { child, complaints })
    }

    fn ended(&mut self) -> Option<io::Result<ExitStatus>> {
        self.child.try_wait().transpose()
    }
}

/// The supervisor's own words, which are a finished diagnostic.
async fn died(supervisor: Option<&mut Background>) -> Failure {
    let Some(supervisor) = supervisor else { return Failure::other("the mesh was stopped while it was starting") };
    let status = supervisor.child.wait().await;
    let words = std::fs::read_to_string(&supervisor.complaints).unwrap_or_default();
    let code = status.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    match code {
        Some(0) => Failure::other("the mesh was stopped while it was starting"),
        Some(code) if !words.trim().is_empty() => Failure::Told { words, code },
        _ => Failure::mendable("the supervisor died", "see `berth logs supervisor`"),
    }
}

fn not_ready(board: &Board, patience: Duration) -> Failure {
    let waiting = board.units.iter().filter(|unit| !unit.is_ready()).map(|unit| {
        let reason = board.trouble(unit).map(|trouble| format!(": {trouble}")).unwrap_or_default();
        format!("{} ({}{reason})", unit.name, unit.state.word())
    });
    Failure::mendable(
        format!("not ready after {patience:?}: {}", waiting.collect::<Vec<_>>().join(", ")),
        "see `berth logs NAME`; the mesh is left running, `berth down` stops it",
    )
}
