//! Two checkouts at once, the same one twice in a row, and the commands between.
#![allow(clippy::unwrap_used, reason = "in a test")]

use e2e::{Mesh, Shop};

#[tokio::test]
async fn two_meshes_on_one_machine_do_not_meet() {
    let (one, other) = (Mesh::up().await, Mesh::up().await);
    assert_ne!(one.public_url(), other.public_url());
    let (shop, elsewhere) = (Shop::open(&one), Shop::open(&other));
    let item = shop.item(3).await;
    shop.order(&item, 1, 20).await.expect(201);
    elsewhere.carol.get(&format!("/items/{item}")).await.expect(404);
    // A token of the one is worth nothing at the other.
    let stranger = other.anonymous().with_token(shop.carol.token().unwrap());
    stranger.get("/items").await.expect(401);
}

#[tokio::test]
async fn a_mesh_comes_down_and_up_again_with_all_it_had() {
    let mesh = Mesh::up().await;
    let item = Shop::open(&mesh).item(3).await;
    let twice = mesh.berth(&["up", "--detach"]);
    assert!(twice.status.success(), "{twice:?}");
    mesh.expect(&["down"]);
    let (status, down) = (mesh.berth(&["status"]), mesh.berth(&["token", "--user", "alice"]));
    assert!(!status.status.success() && !down.status.success());
    assert!(String::from_utf8_lossy(&down.stderr).contains("--detach"), "{down:?}");
    mesh.start();
    assert_eq!(Shop::open(&mesh).stock(&item).await, (3, 0));
    let unit = mesh.unit("item-management-1");
    mesh.expect(&["restart", "item-management"]);
    mesh.healed("item-management-1", unit.pid.unwrap()).await;
}
