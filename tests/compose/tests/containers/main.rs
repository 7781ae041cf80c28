//! The shop in containers: it comes up, orders go through, it is confined, it scales, it heals, and it keeps what it knows.
//! Beside it, [`runtimes`]: programs of every kind; [`strangers`]: one that `berth init` declares;
//! [`file`]: who takes the compose file; and [`sources`]: what images are built of.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test")]

mod file;
mod runtimes;
mod sources;
mod strangers;

use std::env;

use compose::Stack;
use e2e::Shop;
use serde_json::Value;

/// Compiled as tests are: what goes into a registry is built in the profile `dist`, which takes several times as long.
const DEV: &str = "PROFILE=dev";

fn build(stack: &Stack) {
    // In the engine of `./berth test`, one that compiles nothing.
    let builder = env::var("BERTH_TEST_BUILDER").ok().map(|image| format!("BUILDER={image}"));
    stack.build(&[Some(DEV), builder.as_deref()].into_iter().flatten().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_shop_runs_in_containers() {
    let stack = Stack::shop_of_this_repository().await;
    build(&stack);
    stack.up().await;
    the_walkthrough_works(&stack);
    an_operator_sees_what_services_owe(&stack);
    let shop = stack.shop().await;
    images_are_labelled_and_have_no_shell(&stack);
    nothing_but_the_gateway_is_published(&stack);
    every_process_is_confined(&stack);
    memory_and_cpu_are_limited(&stack);
    secrets_are_files(&stack);
    a_service_reaches_its_own_database_alone(&stack);
    three_copies_share_the_work(&stack, &shop).await;
    what_is_killed_comes_back(&stack, &shop).await;
    a_restart_loses_nothing(&stack, shop).await;
}

fn the_walkthrough_works(stack: &Stack) {
    let told = stack.berth(&["demo", "--compose"]);
    assert!(told.contains("CONFIRMED"), "{told}");
}

fn an_operator_sees_what_services_owe(stack: &Stack) {
    let told: Value = serde_json::from_str(&stack.berth(&["outbox", "status", "--json", "--compose"])).unwrap();
    for service in ["eshop-documents", "item-management"] {
        assert!(told[service]["stream"]["last_sequence"].as_i64().is_some_and(|last| last > 0), "{told}");
    }
}

fn images_are_labelled_and_have_no_shell(stack: &Stack) {
    for service in &stack.plan().services {
        let [image] = &stack.inspect("image", &[&stack.image(&service.name)])[..] else { panic!("no image") };
        for label in ["title", "vendor", "licenses", "version", "revision", "source"] {
            let told = image["Config"]["Labels"][format!("org.opencontainers.image.{label}")].as_str();
            assert!(told.is_some_and(|told| !told.is_empty()), "{}: {label}", service.name);
        }
        assert_eq!(image["Config"]["Healthcheck"]["Test"][1], "/usr/bin/service", "{}", service.name);
        let container = stack.container(&service.name);
        let has_shell = stack.exit_code(&["exec", container.id(), "/bin/sh", "-c", "true"]) == 0;
        assert!(!has_shell, "{}", service.name);
    }
}

fn nothing_but_the_gateway_is_published(stack: &Stack) {
    for container in stack.containers() {
        let expected = match container.service() {
            "gateway" => vec![stack.plan().gateway.public_port.to_string()],
            _ => Vec::new(),
        };
        assert_eq!(container.published(), expected, "{}", container.service());
    }
}

/// What the kernel says of each process, and not what the compose file asks for.
fn every_process_is_confined(stack: &Stack) {
    let containers = stack.containers();
    for (container, status) in containers.iter().zip(stack.statuses(&containers)) {
        let service = container.service();
        let field = |name: &str| -> Vec<&str> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{service}: no {name} in {status}")).split_whitespace().collect()
        };
        assert_eq!(field("Uid"), ["65532"; 4], "{service}");
        assert_eq!(field("Gid"), ["65532"; 4], "{service}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), ["0000000000000000"], "{service}: {set}");
        }
        assert_eq!(field("NoNewPrivs"), ["1"], "{service}");
        assert_eq!(container.value("/HostConfig/ReadonlyRootfs"), &Value::Bool(true), "{service}");
        assert_eq!(container.value("/HostConfig/Privileged"), &Value::Bool(false), "{service}");
    }
}

fn memory_and_cpu_are_limited(stack: &Stack) {
    let plan = stack.plan();
    for service in &plan.services {
        let limit = stack.container(&service.name).number("/HostConfig/Memory");
        assert_eq!(u64::try_from(limit).unwrap(), service.memory_bytes.get(), "{}", service.name);
        let limit = stack.container(&service.name).number("/HostConfig/NanoCpus");
        assert_eq!(limit, i64::from(service.cpu_millis.get()) * 1_000_000, "{}", service.name);
    }
    // A program beside the database asks for memory without end: 137 is the exit code of who is killed.
    let database = stack.container("identity-db");
    assert_eq!(stack.exit_code(&["exec", database.id(), "tail", "/dev/zero"]), 137);
}

fn secrets_are_files(stack: &Stack) {
    let containers = stack.containers();
    for container in &containers {
        let service = container.service();
        let mounts = container.value("/Mounts").as_array().unwrap().iter();
        let name = |mount: &Value| mount.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let credentials: Vec<_> = mounts.filter(|mount| name(mount).contains("_credentials-")).collect();
        let [own] = credentials.as_slice() else { panic!("{service}: {credentials:?}") };
        assert!(name(own).ends_with(&format!("_credentials-{service}")), "{service}: {own}");
        assert_eq!(own.get("RW"), Some(&Value::Bool(false)), "{service}");
    }
    let databases = stack.plan().databases.iter().map(|database| stack.container(&database.name)).collect::<Vec<_>>();
    let wanted: Vec<_> = databases.iter().map(|database| (database, "database-password")).collect();
    for (database, password) in databases.iter().zip(stack.credentials(&wanted)) {
        let (name, password) = (database.service(), password.trim());
        assert!(password.len() >= 16, "{name}");
        let told = containers.iter().find(|container| container.to_string().contains(password));
        assert!(told.is_none(), "the password of {name} is in the description of a container");
    }
}

fn a_service_reaches_its_own_database_alone(stack: &Stack) {
    let items = stack.container("item-management");
    let answers = |host: &str, database: &str| {
        let port = stack.plan().databases.iter().find(|found| found.name == *database).unwrap().port;
        let ask = format!("/usr/lib/postgresql/*/bin/pg_isready --timeout 3 --host {host} --port {port}");
        stack.succeeds_beside(&items, &ask)
    };
    assert!(answers("item-management-db", "item-management-db"), "the question itself is wrong");
    assert!(!answers("eshop-documents-db", "eshop-documents-db"), "by name");
    let other = stack.container("eshop-documents-db");
    assert!(!answers(other.address("eshop-documents-db"), "eshop-documents-db"), "by address");
    for network in stack.networks() {
        let is_edge = network["Name"].as_str().unwrap().ends_with("_edge");
        assert_eq!(network["Internal"], !is_edge, "{network}");
    }
}

async fn three_copies_share_the_work(stack: &Stack, shop: &Shop) {
    stack.scale("item-management", 3).await;
    let (member, copies) = (stack.member(), stack.containers_of("item-management"));
    for copy in &copies {
        let before = stack.reads_answered(&member, copy, "/items").await;
        testkit::eventually(&format!("{} to get traffic", copy.text("/Name")), async || {
            shop.carol.get("/items").await.expect(200);
            (stack.reads_answered(&member, copy, "/items").await > before).then_some(())
        })
        .await;
    }
}

/// An instance under load, a database, the event bus and the gateway: one after the other.
async fn what_is_killed_comes_back(stack: &Stack, shop: &Shop) {
    let item = shop.item(10).await;
    for (count, service) in (1..).zip(["item-management", "eshop-documents-db", "nats", "gateway"]) {
        let victim = stack.container(service);
        tokio::join!(stack.kills_and_heals(&victim), shop.order_surely(&item, 1));
        shop.stock_becomes(&item, (10 - count, 0)).await;
    }
}

async fn a_restart_loses_nothing(stack: &Stack, shop: Shop) {
    let item = shop.item(3).await;
    let order = shop.order(&item, 1, 20).await.expect(201).text("/id").to_owned();
    stack.compose(&["down"]);
    assert!(stack.containers().is_empty());
    stack.up().await;
    // The same people, the same keys: a token that was good before is good still.
    shop.reaches(&order, "CONFIRMED").await;
    shop.stock_becomes(&item, (2, 0)).await;
    shop.order(&item, 2, 20).await.expect(201);
}
