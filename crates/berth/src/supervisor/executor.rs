//! Carries out what the state machine of one unit decides: processes, signals, sockets, timers, logs.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use command_fds::{CommandFdExt, FdMapping};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    board::Board,
    leftovers::{self, Record, Records},
    log::Log,
    notify::{Message, NotifySocket},
    probe::Probe,
    specification::Specification,
    unit::{Action, Event, Exit, Moment, State, Unit},
};
use crate::{exec, socket_folder::SocketFolder};

/// First descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST_SOCKET: i32 = 3;

/// What all executors of a mesh share.
#[derive(Debug)]
pub struct Surroundings {
    /// Where notify sockets are made.
    pub sockets: SocketFolder,
    /// Where it is written down what runs.
    pub records: Records,
    /// Where everybody's state is shown.
    pub board: watch::Sender<Board>,
    /// The program that has `exec` as a command: this one.
    pub helper: PathBuf,
}

/// Supervises one unit.
#[derive(Debug)]
pub struct Executor {
    specification: Specification,
    surroundings: Arc<Surroundings>,
    log: Arc<Mutex<Log>>,
    unit: Unit,
    running: Option<Running>,
    starts: u64,
}

/// A process of the unit.
#[derive(Debug)]
struct Running {
    child: Child,
    pid: Pid,
    /// Its `INVOCATION_ID`, by which all that it started are known.
    invocation: String,
    notify: Option<NotifySocket>,
}

/// Something an executor waited for.
enum Happening {
    Ordered(Option<Event>),
    Said(io::Result<Vec<Message>>),
    Ended(io::Result<ExitStatus>),
    Dependencies(bool),
    Probed,
    Due,
}

impl Executor {
    /// An executor for one unit, which is stopped at first.
    pub fn new(specification: Specification, surroundings: Arc<Surroundings>, log: Log) -> Self {
        let log = Arc::new(Mutex::new(log));
        Self { specification, surroundings, log, unit: Unit::default(), running: None, starts: 0 }
    }

    /// Runs until `orders` is closed and the process has ended.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Event>) {
        let mut board = self.surroundings.board.subscribe();
        let mut closed = false;
        while !closed || self.running.is_some() {
            let happening = self.next(&mut orders, &mut board, closed).await;
            match happening {
                Happening::Ordered(Some(event)) => self.handle(event).await,
                Happening::Ordered(None) => {
                    closed = true;
                    self.handle(Event::Kill).await;
                }
                Happening::Said(Ok(messages)) => self.hear(messages).await,
                Happening::Said(Err(error)) => {
                    tracing::warn!(unit = self.specification.name, %error, "the notify socket failed");
                    self.handle(Event::Hung).await;
                }
                Happening::Ended(status) => self.bury(status).await,
                Happening::Dependencies(ready) => self.handle(Event::Dependencies(ready)).await,
                Happening::Probed => self.handle(Event::Ready).await,
                Happening::Due => self.handle(Event::Tick).await,
            }
        }
    }

    async fn next(
        &mut self,
        orders: &mut mpsc::Receiver<Event>,
        board: &mut watch::Receiver<Board>,
        closed: bool,
    ) -> Happening {
        let Self { specification, unit, running, .. } = self;
        let deadline = unit.deadline(&specification.policy);
        let probe = specification.probe.as_ref().filter(|_| matches!(unit.state, State::Starting { .. }));
        let (child, notify) = match running {
            Some(running) => (Some(&mut running.child), running.notify.as_ref()),
            None => (None, None),
        };
        tokio::select! {
            biased;
            // What a process said comes before its end.
            said = said(notify) => Happening::Said(said),
            ended = ended(child) => Happening::Ended(ended),
            order = orders.recv(), if !closed => Happening::Ordered(order),
            ready = dependencies_changed(board, &specification.after, unit.dependencies_ready) => {
                Happening::Dependencies(ready)
            }
            () = due(deadline) => Happening::Due,
            () = probed(probe) => Happening::Probed,
        }
    }

    async fn hear(&mut self, messages: Vec<Message>) {
        for message in messages {
            match message {
                Message::Event(event) => self.handle(event).await,
                Message::Status(text) => {
                    let text = Some(text).filter(|text| !text.is_empty());
                    Board::update(&self.surroundings.board, &self.specification.name, |unit| unit.says = text);
                }
            }
        }
    }

    /// Lets the unit decide, does what it says, and shows the outcome.
    async fn handle(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let moment = Moment { now: Instant::now(), chance: rand::random() };
            let (unit, action) = std::mem::take(&mut self.unit).decide(&self.specification.policy, moment, &event);
            self.unit = unit;
            match action {
                Some(Action::Spawn) => next = Some(self.spawn().await),
                Some(Action::Signal(signal)) => self.signal(signal),
                None => {}
            }
        }
        self.show();
    }

    fn show(&self) {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        Board::update(&self.surroundings.board, &self.specification.name, |status| {
            let before = status.state;
            status.follow(&self.unit);
            status.pid = pid;
            status.starts = self.starts;
            if pid.is_none() {
                status.says = None;
            }
            if before != status.state {
                let (unit, state) = (self.specification.name.as_str(), status.state.word());
                match &status.reason {
                    Some(reason) if !status.is_ready() => tracing::warn!(unit, state, reason, "unit changed"),
                    _ => tracing::info!(unit, state, pid, "unit changed"),
                }
            }
        });
    }

    fn signal(&self, signal: Signal) {
        let Some(running) = &self.running else { return };
        // SIGKILL spares nobody; other signals are for the main process to pass on (KillMode=mixed). An error means that
        // somebody is gone, which the end of the main process will tell.
        if signal == Signal::SIGKILL {
            let descendants = leftovers::descendants(running.pid.as_raw());
            let _ = killpg(running.pid, signal);
            for pid in descendants {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        } else {
            let _ = kill(running.pid, signal);
        }
    }

    /// What remains to be done when the main process has ended.
    async fn bury(&mut self, status: io::Result<ExitStatus>) {
        let exit = status.map_or(Exit::Code(-1), |status| exit_of(&status));
        if let Some(running) = self.running.take() {
            let last_words = running.notify.as_ref().map(NotifySocket::rest).unwrap_or_default();
            self.hear(last_words).await;
            // Whoever is left in its group ends with it, and whoever has left the group, too.
            let _ = killpg(running.pid, Signal::SIGKILL);
            leftovers::end_heirs(&running.invocation).await;
        }
        self.surroundings.records.forget(&self.specification.name);
        tracing::info!(unit = self.specification.name, "{exit}");
        self.handle(Event::Exited(exit)).await;
    }

    async fn spawn(&mut self) -> Event {
        self.starts = self.starts.saturating_add(1);
        match self.try_spawn().await {
            Ok(running) => {
                self.running = Some(running);
                Event::Spawned
            }
            Err(error) => Event::SpawnFailed(format!("cannot start {}: {error}", self.specification.program.display())),
        }
    }

    async fn try_spawn(&mut self) -> io::Result<Running> {
        let specification = &self.specification;
        let invocation = uuid::Uuid::new_v4().simple().to_string();
        let notify = specification
            .notifies()
            .then(|| NotifySocket::bind(&self.surroundings.sockets, &format!("{}.{}", specification.name, self.starts)))
            .transpose()?;
        let (output, input) = io::pipe()?;
        let mut command = self.command(&invocation, notify.as_ref())?;
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        let child = command.spawn()?;
        // The command holds the writing end of the pipe; with it gone, the pipe ends when the processes do.
        drop(command);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        if let Ok(record) = Record::of(pid, &invocation) {
            self.surroundings.records.put(&specification.name, &record)?;
        }
        tokio::spawn(copy(OwnedFd::from(output), Arc::clone(&self.log), specification.name.clone()));
        Ok(Running { child, pid: Pid::from_raw(pid), invocation, notify })
    }

    fn command(&self, invocation: &str, notify: Option<&NotifySocket>) -> io::Result<Command> {
        let specification = &self.specification;
        let helper = exec::Order {
            parent: std::process::id(),
            death_signal: specification.death_signal.as_str().to_owned(),
            account: specification.account,
            program: specification.program.clone(),
            args: specification.args.clone(),
        };
        let mut command = Command::from(helper.command(&self.surroundings.helper));
        command
            .env_clear()
            .envs(&specification.environment)
            .env("INVOCATION_ID", invocation)
            .current_dir(&specification.folder)
            .process_group(0)
            .kill_on_drop(true);
        if let Some(notify) = notify {
            command.env("NOTIFY_SOCKET", notify.address());
            if let Some(watchdog) = specification.policy.watchdog {
                command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
            }
        }
        if !specification.sockets.is_empty() {
            let names: Vec<&str> = specification.sockets.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", OsString::from(names.join(":")));
            let mappings = specification
                .sockets
                .iter()
                .zip(FIRST_SOCKET..)
                .map(|((_, socket), child_fd)| Ok(FdMapping { parent_fd: socket.try_clone()?.into(), child_fd }))
                .collect::<io::Result<Vec<_>>>()?;
            command.fd_mappings(mappings).map_err(io::Error::other)?;
        }
        Ok(command)
    }
}

fn exit_of(status: &ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

async fn said(notify: Option<&NotifySocket>) -> io::Result<Vec<Message>> {
    match notify {
        Some(socket) => socket.receive().await,
        None => std::future::pending().await,
    }
}

async fn ended(child: Option<&mut Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn probed(probe: Option<&Probe>) {
    match probe {
        Some(probe) => probe.succeeds().await,
        None => std::future::pending().await,
    }
}

async fn dependencies_changed(board: &mut watch::Receiver<Board>, after: &[String], known: bool) -> bool {
    let changed = board.wait_for(|board| after.iter().all(|service| board.serves(service)) != known).await.is_ok();
    if !changed {
        // The board is gone, so nothing on it will change.
        std::future::pending::<()>().await;
    }
    !known
}

/// Copies what a process writes into the unit's log until nobody can write any more. What cannot be written is dropped:
/// a full disk must not stop whoever writes.
async fn copy(output: OwnedFd, log: Arc<Mutex<Log>>, unit: String) -> io::Result<()> {
    let mut output = pipe::Receiver::from_owned_fd(output)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut dropping = false;
    loop {
        let length = output.read(&mut buffer).await?;
        let Some(text) = buffer.get(..length).filter(|text| !text.is_empty()) else { return Ok(()) };
        let written = log.lock().unwrap_or_else(PoisonError::into_inner).write_all(text);
        if let Err(error) = &written
            && !dropping
        {
            tracing::error!(unit, %error, "its output is dropped, because its log cannot be written");
        }
        dropping = written.is_err();
    }
}
