//! How the other commands speak to a running mesh: a unix socket in `.berth/run`, for its owner alone, on which each line
//! is one JSON document. A client sends one [`Request`]; the supervisor answers with one [`Response`], or with one for
//! each change.

use std::{future::Future, io, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{failure::Failure, project::Project, socket_folder::SocketFolder, supervisor::board::Board};

const SOCKET: &str = "control.sock";
/// The longest line either side reads.
const LONGEST_LINE: u64 = 1024 * 1024;
/// Clients that are served at once.
const CLIENTS: usize = 16;
/// For a client to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be asked. All with braces: serde refuses unknown fields only where fields could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is everything?
    Status {},
    /// How is everything, now and after each change?
    Watch {},
    /// Stop everything, and watch it end. The connection closes when all has ended.
    Down {},
    /// Restart a service, a server or one instance. Answered when it is ready again.
    Restart {
        /// Its name.
        name: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    /// How everything is.
    Status {
        /// The picture.
        board: Board,
    },
    /// It is done.
    Done,
    /// It was not done.
    Refused {
        /// Why.
        message: String,
    },
}

/// What the socket serves.
pub trait Handler: Send + Sync + 'static {
    /// The picture of all units, and its changes.
    fn board(&self) -> watch::Receiver<Board>;
    /// Begins to stop everything.
    fn down(&self);
    /// Restarts what has this name.
    fn restart(&self, name: &str) -> impl Future<Output = Result<(), String>> + Send;
}

/// Binds the socket; what an earlier supervisor left is replaced.
///
/// # Errors
/// It cannot be bound.
pub fn bind(folder: &SocketFolder) -> io::Result<UnixListener> {
    let file = folder.path().join(SOCKET);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(folder.address(SOCKET))?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves clients for as long as it is polled.
pub async fn serve(listener: UnixListener, handler: Arc<impl Handler>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    if let Err(error) = serve_one(stream, handler.as_ref()).await {
                        tracing::debug!(%error, "a control client went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_one(stream: UnixStream, handler: &impl Handler) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let request = match timeout(PATIENCE, receive::<Request>(&mut reader)).await? {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(error) => return send(&mut writer, &Response::Refused { message: error.to_string() }).await,
    };
    match request {
        Request::Status {} => {
            let board = handler.board().borrow().clone();
            send(&mut writer, &Response::Status { board }).await
        }
        Request::Watch {} => follow(&mut writer, handler.board()).await,
        Request::Down {} => {
            handler.down();
            follow(&mut writer, handler.board()).await
        }
        Request::Restart { name } => {
            let response = match handler.restart(&name).await {
                Ok(()) => Response::Done,
                Err(message) => Response::Refused { message },
            };
            send(&mut writer, &response).await
        }
    }
}

async fn follow(writer: &mut (impl AsyncWriteExt + Unpin), mut board: watch::Receiver<Board>) -> io::Result<()> {
    loop {
        let now = board.borrow_and_update().clone();
        send(writer, &Response::Status { board: now }).await?;
        if board.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// A connection to a running mesh.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the mesh of this project and asks.
    ///
    /// # Errors
    /// [`Failure::NotRunning`] when nobody listens.
    pub async fn ask(project: &Project, request: &Request) -> Result<Self, Failure> {
        let Ok(folder) = SocketFolder::open(&project.run()) else { return Err(Failure::NotRunning) };
        let stream = match UnixStream::connect(folder.address(SOCKET)).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Err(Failure::NotRunning);
            }
            Err(error) => return Err(Failure::io("cannot reach the running mesh", error)),
        };
        let mut client = Self { stream: BufReader::new(stream) };
        match send(&mut client.stream, request).await {
            Ok(()) => Ok(client),
            // It was there a moment ago.
            Err(error) if is_gone(&error) => Err(Failure::NotRunning),
            Err(error) => Err(lost(error)),
        }
    }

    /// The next answer; `None` when the mesh has ended.
    ///
    /// # Errors
    /// The connection breaks, or what comes is not understood.
    pub async fn answer(&mut self) -> Result<Option<Response>, Failure> {
        match receive(&mut self.stream).await {
            Err(error) if is_gone(&error) => Ok(None),
            answer => answer.map_err(lost),
        }
    }

    /// Asks how everything is.
    ///
    /// # Errors
    /// The mesh does not run, or does not answer.
    pub async fn status(project: &Project) -> Result<Board, Failure> {
        match Self::ask(project, &Request::Status {}).await?.answer().await? {
            Some(Response::Status { board }) => Ok(board),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for something to be done, and waits until it is.
    ///
    /// # Errors
    /// The mesh does not run, or refuses.
    pub async fn order(project: &Project, request: &Request) -> Result<(), Failure> {
        match Self::ask(project, request).await?.answer().await? {
            Some(Response::Done) => Ok(()),
            Some(Response::Refused { message }) => Err(Failure::Other(message)),
            other => Err(unexpected(other)),
        }
    }
}

/// Whether an error says that the other side has ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn lost(error: io::Error) -> Failure {
    Failure::io("lost the running mesh", error)
}

fn unexpected(response: Option<Response>) -> Failure {
    match response {
        None => Failure::Other("the mesh ended before it answered".to_owned()),
        Some(_) => Failure::mendable(
            "the running mesh answers something else than this version of berth expects",
            "it was started by another version: run `berth down`, then `berth up`",
        ),
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), document: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

async fn receive<T: DeserializeOwned>(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
