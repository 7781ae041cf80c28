//! The control protocol between a client and a supervisor, over a real socket.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use berth::{
    control::{self, Client, Handler, Request, Response},
    failure::Failure,
    project::Project,
    socket_folder::SocketFolder,
    supervisor::board::{Board, Phase},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
};

struct Mesh {
    board: watch::Sender<Board>,
}

impl Handler for Mesh {
    fn board(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    fn down(&self) {
        self.board.send_modify(|board| board.phase = Phase::Stopping);
    }

    async fn restart(&self, name: &str) -> Result<(), String> {
        if name == "web" { Ok(()) } else { Err(format!("no {name}")) }
    }
}

fn project() -> (TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    // Deeper than the address of a socket can be long.
    let root = folder.path().join("a-folder-with-a-long-name/".repeat(8));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("mesh.toml"), "").unwrap();
    let project = Project::find(Some(&root)).unwrap();
    project.create_folders().unwrap();
    (folder, project)
}

fn serve(project: &Project) -> Arc<Mesh> {
    let mesh = Arc::new(Mesh { board: watch::Sender::new(Board { mesh: "shop".into(), ..Board::default() }) });
    let folder = SocketFolder::open(&project.run()).unwrap();
    tokio::spawn(control::serve(control::bind(&folder).unwrap(), Arc::clone(&mesh)));
    mesh
}

#[tokio::test]
async fn each_request_has_its_answer() {
    let (_folder, project) = project();
    assert!(matches!(Client::status(&project).await, Err(Failure::NotRunning)));
    let mesh = serve(&project);
    assert_eq!(Client::status(&project).await.unwrap().mesh, "shop");
    let restart = |name: &str| Request::Restart { name: name.into() };
    Client::order(&project, &restart("web")).await.unwrap();
    assert_eq!(Client::order(&project, &restart("x")).await.unwrap_err().to_string(), "no x");
    let mut watching = Client::ask(&project, &Request::Watch {}).await.unwrap();
    let phase = |response: Option<Response>| match response {
        Some(Response::Status { board }) => board.phase,
        other => panic!("{other:?}"),
    };
    assert_eq!(phase(watching.answer().await.unwrap()), Phase::Preparing);
    mesh.board.send_modify(|board| board.phase = Phase::Running);
    assert_eq!(phase(watching.answer().await.unwrap()), Phase::Running);
    let mut stopping = Client::ask(&project, &Request::Down {}).await.unwrap();
    assert_eq!(phase(stopping.answer().await.unwrap()), Phase::Stopping);
}

#[tokio::test]
async fn only_the_owner_may_connect_and_nonsense_is_refused() {
    let (_folder, project) = project();
    serve(&project);
    let folder = SocketFolder::open(&project.run()).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("control.sock")), 0o600);
    assert_eq!(mode(folder.path()), 0o700);
    for nonsense in ["{}\n", "hello\n", "{\"request\":\"down\",\"now\":true}\n", "{\"request\":\"fly\"}\n"] {
        let mut stream = UnixStream::connect(folder.address("control.sock")).await.unwrap();
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("refused"), "{nonsense:?}: {answer}");
    }
}
