use std::time::Duration;

use super::{print, printing};
use crate::{
    control::{Client, Request, Response},
    failure::Failure,
    lock::Lock,
    project::Project,
    view::View,
};

/// For the supervisor to end after its last unit has.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stops the mesh, and whatever a supervisor that was killed has left.
pub(super) async fn run(project: &Project) -> Result<(), Failure> {
    let was_running = match Client::ask(project, &Request::Down {}).await {
        Ok(mut client) => {
            let mut view = View::new();
            let Some(Response::Status { board }) = client.answer().await? else { return Err(Failure::NotRunning) };
            view.know(&board);
            let (sender, mut board) = tokio::sync::watch::channel(board);
            let listen = async {
                while let Ok(Some(Response::Status { board })) = client.answer().await {
                    sender.send_replace(board);
                }
                drop(sender);
            };
            let (shown, ()) = tokio::join!(view.follow(&mut board, |_| false), listen);
            shown.map_err(printing)?;
            true
        }
        Err(Failure::NotRunning) => false,
        Err(failure) => return Err(failure),
    };
    let lock = Lock::take(project, PATIENCE).await?;
    let (_, left) = lock.clean_up(project).await?;
    match (was_running, left.as_slice()) {
        (true, _) => print("the mesh is down"),
        (false, []) => print("the mesh was not running"),
        (false, left) => print(&format!("ended what was left of an earlier run: {}", left.join(", "))),
    }
}
