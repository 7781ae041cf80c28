//! The load balancer against real instances that are killed, drained, silenced and restarted.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::StatusCode, routing};
use berth_http::{
    testing::{Instance, TestMesh},
    upstream::{Config, Error, HealthCheck, Limits, Payload, Protocol, Status, Upstream, UpstreamMetrics},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use runtime::telemetry::Metrics;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, Semaphore, mpsc},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(30);

struct World {
    mesh: TestMesh,
    metrics: UpstreamMetrics,
}

impl World {
    fn new() -> Self {
        Self { mesh: TestMesh::new(), metrics: UpstreamMetrics::default() }
    }

    fn instance(&self, router: Router) -> Instance {
        Instance::mesh(&self.mesh, "items", router)
    }

    fn config(&self, instances: &[&Instance]) -> Config {
        Config {
            service: "items".to_owned(),
            endpoints: instances.iter().map(|instance| instance.address().to_string()).collect(),
            protocol: Protocol::Mesh { identity: self.mesh.identity("gateway"), peer: TestMesh::id("items") },
            health: HealthCheck { interval: Duration::from_millis(40), ..HealthCheck::default() },
            limits: Limits { connect_timeout: 5 * SECOND, head_timeout: LONG, ..Limits::default() },
        }
    }

    async fn upstream(&self, config: Config, up: usize) -> Upstream {
        let upstream = Upstream::start(config, &self.metrics);
        until(&upstream, |status| status.up == up).await;
        upstream
    }
}

async fn until(upstream: &Upstream, wanted: impl FnMut(&Status) -> bool) {
    let mut status = upstream.status();
    tokio::time::timeout(LONG, status.wait_for(wanted)).await.unwrap().unwrap();
}

fn request(method: Method, path: &str, body: &'static str) -> Request<Payload> {
    Request::builder().method(method).uri(path).body(Payload::Bytes(Bytes::from_static(body.as_bytes()))).unwrap()
}

fn get(path: &str) -> Request<Payload> {
    request(Method::GET, path, "")
}

fn soon() -> Instant {
    Instant::now() + LONG
}

async fn text(response: Response<berth_http::upstream::ResponseBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Says its name to GET, and echoes what is posted.
fn named(name: &'static str) -> Router {
    Router::new().route(
        "/",
        routing::any(move |body: Bytes| async move {
            if body.is_empty() { Bytes::from_static(name.as_bytes()) } else { body }
        }),
    )
}

#[tokio::test]
async fn the_work_is_shared() {
    let world = World::new();
    let gate = Arc::new(Semaphore::new(0));
    let held = || {
        let gate = Arc::clone(&gate);
        let wait = async move || gate.acquire().await.map_or(StatusCode::GONE, |_| StatusCode::OK);
        world.instance(Router::new().route("/", routing::get(wait)))
    };
    let (one, other) = (held(), held());
    let upstream = world.upstream(world.config(&[&one, &other]), 2).await;
    // None is answered before all have come: however fast one instance seems, the other must get some.
    let requests = 150;
    let sent: Vec<_> = (0..requests)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { upstream.send(get("/"), soon()).await.map(|response| response.status()) })
        })
        .collect();
    while one.requests() + other.requests() < requests {
        tokio::task::yield_now().await;
    }
    assert!(one.requests() > 0 && other.requests() > 0);
    gate.add_permits(requests);
    for sent in sent {
        assert_eq!(sent.await.unwrap().unwrap(), StatusCode::OK);
    }
    assert_eq!((one.connections(), other.connections()), (1, 1), "connections stay warm");
}

#[tokio::test]
async fn an_instance_is_who_it_should_be() {
    let world = World::new();
    let impostor = Instance::mesh(&world.mesh, "identity", named("impostor"));
    let upstream = Upstream::start(world.config(&[&impostor]), &world.metrics);
    until(&upstream, |status| status.down == 1).await;
    let error = upstream.send(get("/"), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(impostor.requests(), 0);
}

#[tokio::test]
async fn a_request_waits_for_an_instance_that_is_just_being_connected_to() {
    let world = World::new();
    let instance = world.instance(named("one"));
    let upstream = Upstream::start(world.config(&[&instance]), &world.metrics);
    assert_eq!(text(upstream.send(get("/"), soon()).await.unwrap()).await, "one");
}

#[tokio::test]
async fn a_host_name_is_resolved() {
    let world = World::new();
    let instance = Instance::plain(named("one"));
    let mut config = world.config(&[&instance]);
    // `localhost` is 127.0.0.1, where nobody listens on that port, or nobody of ours.
    config.endpoints.push(format!("localhost:{}", instance.address().port()));
    config.protocol = Protocol::Plain;
    let upstream = Upstream::start(config, &world.metrics);
    until(&upstream, |status| status.up + status.down >= 2 && status.up >= 1).await;
}

#[tokio::test]
async fn killing_one_loses_nothing_that_was_not_in_flight_on_it() {
    let world = World::new();
    let (mut one, other) = (world.instance(named("one")), world.instance(named("other")));
    let upstream = world.upstream(world.config(&[&one, &other]), 2).await;
    for _ in 0..20 {
        for n in 0..10 {
            // One at a time, so that none is in flight when it dies; its death is not waited for.
            let response = upstream.send(request(Method::POST, "/", "order"), soon()).await.unwrap();
            assert_eq!(text(response).await, "order");
            if n == 4 {
                one.kill().await;
            }
        }
        one.restart().await;
        until(&upstream, |status| status.up == 2).await;
    }
    assert!(other.requests() >= 100);
}

#[tokio::test]
async fn a_rolling_drain_under_load_loses_nothing() {
    let world = World::new();
    let (mut one, mut other) = (world.instance(named("one")), world.instance(named("other")));
    let upstream = world.upstream(world.config(&[&one, &other]), 2).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(Notify::new());
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (upstream, sent, stop) = (upstream.clone(), Arc::clone(&sent), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut stopped = std::pin::pin!(stop.notified());
                while futures_util::poll!(stopped.as_mut()).is_pending() {
                    let response = upstream.send(request(Method::POST, "/", "order"), soon()).await.unwrap();
                    assert_eq!(text(response).await, "order");
                    sent.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let progress = async |sent: &AtomicUsize| {
        let before = sent.load(SeqCst);
        while sent.load(SeqCst) < before + 100 {
            tokio::task::yield_now().await;
        }
    };
    for _ in 0..3 {
        for instance in [&mut one, &mut other] {
            progress(&sent).await;
            instance.drain();
            until(&upstream, |status| status.up == 1).await;
            progress(&sent).await;
            instance.restart().await;
            until(&upstream, |status| status.up == 2).await;
        }
    }
    stop.notify_waiters();
    for client in load {
        client.await.unwrap();
    }
}

/// Dies on the first request, and again on each.
fn deadly() -> (Router, mpsc::UnboundedReceiver<Method>) {
    let (asked, deaths) = mpsc::unbounded_channel();
    let router = Router::new().route(
        "/",
        routing::any(move |method: Method| {
            asked.send(method).unwrap();
            std::future::pending::<StatusCode>()
        }),
    );
    (router, deaths)
}

#[tokio::test]
async fn what_was_in_flight_is_tried_elsewhere_only_if_it_is_idempotent() {
    let world = World::new();
    for (method, survives) in [(Method::GET, true), (Method::PUT, true), (Method::POST, false), (Method::PATCH, false)]
    {
        let (router, mut deaths) = deadly();
        let mut doomed = world.instance(router);
        let spare = world.instance(named("spare"));
        // The doomed one alone is up, so that it gets the request.
        spare.set_ready(false);
        let upstream = world.upstream(world.config(&[&doomed, &spare]), 1).await;
        let sending = tokio::spawn({
            let (upstream, method) = (upstream.clone(), method.clone());
            async move { upstream.send(request(method, "/", ""), soon()).await }
        });
        assert_eq!(deaths.recv().await.unwrap(), method);
        spare.set_ready(true);
        until(&upstream, |status| status.up == 2).await;
        doomed.kill().await;
        let outcome = sending.await.unwrap();
        if survives {
            assert_eq!(text(outcome.unwrap()).await, "spare", "{method}");
        } else {
            assert!(matches!(outcome.unwrap_err(), Error::Failed { .. }), "{method}");
            assert_eq!(spare.requests(), 0, "{method} might have been done twice");
        }
    }
}

/// An instance that resets every stream that is no health check, which hyper would not do. Says where it is, and counts.
async fn resetting(world: &World, reason: h2::Reason, go_away: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls: TlsAcceptor = world.mesh.identity("items").server_config(&[b"h2"]).into();
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = tls.accept(stream).await else { continue };
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if request.uri().path() == "/readyz" {
                        respond.send_response(Response::new(()), true).unwrap();
                    } else {
                        count.fetch_add(1, SeqCst);
                        respond.send_reset(reason);
                        if go_away {
                            connection.graceful_shutdown();
                        }
                    }
                }
            });
        }
    });
    (address, resets)
}

#[tokio::test]
async fn what_an_instance_refuses_unseen_is_tried_elsewhere_whatever_it_is() {
    for go_away in [false, true] {
        let world = World::new();
        let (address, refused) = resetting(&world, h2::Reason::REFUSED_STREAM, go_away).await;
        let good = world.instance(named("good"));
        let mut config = world.config(&[&good]);
        config.endpoints.push(address);
        let upstream = world.upstream(config, 2).await;
        let mut sent = 0;
        while refused.load(SeqCst) < 3 {
            let response = upstream.send(request(Method::POST, "/", "order"), soon()).await.unwrap();
            assert_eq!(text(response).await, "order");
            sent += 1;
            assert!(sent < 10_000, "the refusing instance is never asked");
        }
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let world = World::new();
    // Each request reaches the instance and fails there, so that each could be sent again.
    let (address, asked) = resetting(&world, h2::Reason::INTERNAL_ERROR, false).await;
    let mut config = world.config(&[]);
    config.endpoints.push(address);
    config.limits.retry_percent = 10;
    let upstream = world.upstream(config, 1).await;
    let requests = 1000;
    for _ in 0..requests {
        upstream.send(get("/"), soon()).await.unwrap_err();
    }
    // A tenth, and the reserve of ten a second over ten seconds; what is deposited later than it is spent comes on top.
    let retries = asked.load(SeqCst) - requests;
    assert!((100..=300).contains(&retries), "{retries} retries for {requests} requests");
}

/// Takes connections and never says a word.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn an_instance_that_shakes_no_hands_is_given_up_and_the_other_gets_the_requests() {
    let world = World::new();
    let good = world.instance(named("good"));
    let mut config = world.config(&[&good]);
    config.endpoints.push(silent().await);
    config.limits.connect_timeout = Duration::from_millis(100);
    let upstream = world.upstream(config, 1).await;
    assert_eq!(text(upstream.send(request(Method::POST, "/", "order"), soon()).await.unwrap()).await, "order");
    until(&upstream, |status| (status.up, status.down) == (1, 1)).await;
    assert_eq!(text(upstream.send(request(Method::POST, "/", "order"), soon()).await.unwrap()).await, "order");

    // Where there is no other, the request does not wait longer than a connection may take.
    let mut config = world.config(&[]);
    config.endpoints.push(silent().await);
    config.limits.connect_timeout = Duration::from_millis(100);
    let upstream = Upstream::start(config, &world.metrics);
    let error = upstream.send(get("/"), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_request_whose_connection_is_not_made_in_time_goes_to_the_other_instance() {
    let world = World::new();
    let good = Instance::plain(named("good"));
    // The system makes no more connections than this one holds, and leaves others waiting without an answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut config = world.config(&[&good]);
    config.endpoints.push(address.to_string());
    config.protocol = Protocol::Plain;
    config.limits.connect_timeout = Duration::from_millis(200);
    // It is up because its first check passed, and is not looked at again by itself.
    config.health = HealthCheck { path: None, interval: 100 * LONG, fall: 1, ..HealthCheck::default() };
    let metrics = Metrics::new();
    let upstream = Upstream::start(config, &UpstreamMetrics::register(&metrics));
    until(&upstream, |status| status.up == 2).await;
    let mut held = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        held.push(connected.unwrap());
    }
    // So many at once that both get some, whichever seems the faster.
    let sent = (0..200).map(async |_| upstream.send(request(Method::POST, "/", "order"), soon()).await);
    for response in join_all(sent).await {
        assert_eq!(text(response.unwrap()).await, "order");
    }
    let unsent = "upstream_retries_total{service=\"items\",reason=\"unsent\"}";
    assert!(!metrics.encode().contains(&format!("{unsent} 0\n")), "the one that is full was never asked");
    until(&upstream, |status| (status.up, status.down) == (1, 1)).await;
    drop((full, held));
}

#[tokio::test]
async fn a_response_that_does_not_come_is_given_up() {
    let world = World::new();
    let instance = world.instance(Router::new().route("/", routing::get(std::future::pending::<StatusCode>)));
    let mut config = world.config(&[&instance]);
    config.limits.head_timeout = Duration::from_millis(50);
    let upstream = world.upstream(config, 1).await;
    let error = upstream.send(get("/"), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(instance.requests(), 1, "what was slow once is not asked again");
}

#[tokio::test]
async fn a_response_that_does_not_end_is_given_up() {
    let world = World::new();
    let instance = world.instance(Router::new().route(
        "/",
        routing::get(async || {
            let first = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"first")) });
            Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
        }),
    ));
    let upstream = world.upstream(world.config(&[&instance]), 1).await;
    let response = upstream.send(get("/"), Instant::now() + Duration::from_millis(300)).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_instance_takes_as_many_requests_as_it_may() {
    let world = World::new();
    let gate = Arc::new(Semaphore::new(0));
    let (asked, mut arrivals) = mpsc::unbounded_channel();
    let waiting = Arc::clone(&gate);
    let instance = world.instance(Router::new().route(
        "/",
        routing::get(move || {
            let waiting = Arc::clone(&waiting);
            asked.send(()).unwrap();
            async move {
                waiting.acquire().await.unwrap().forget();
                "done"
            }
        }),
    ));
    let mut config = world.config(&[&instance]);
    config.limits.max_in_flight = 2;
    let upstream = world.upstream(config, 1).await;
    let held: Vec<_> = (0..2)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { upstream.send(get("/"), soon()).await })
        })
        .collect();
    for _ in 0..2 {
        arrivals.recv().await.unwrap();
    }
    let error = upstream.send(get("/"), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error}");
    gate.add_permits(3);
    for request in held {
        assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
    }
    assert_eq!(text(upstream.send(get("/"), soon()).await.unwrap()).await, "done");
}

#[tokio::test]
async fn a_place_is_given_back_when_the_client_goes_away() {
    let world = World::new();
    let (router, mut asked) = deadly();
    let instance = world.instance(router);
    let mut config = world.config(&[&instance]);
    config.limits.max_in_flight = 1;
    let upstream = world.upstream(config, 1).await;
    for _ in 0..10 {
        let sending = tokio::spawn({
            let upstream = upstream.clone();
            async move { upstream.send(get("/"), soon()).await.map(drop) }
        });
        asked.recv().await.unwrap();
        sending.abort();
        assert!(sending.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn an_instance_that_is_not_ready_gets_no_requests() {
    let world = World::new();
    let (one, other) = (world.instance(named("one")), world.instance(named("other")));
    let upstream = world.upstream(world.config(&[&one, &other]), 2).await;
    one.set_ready(false);
    until(&upstream, |status| status.up == 1).await;
    let before = one.requests();
    for _ in 0..20 {
        assert_eq!(text(upstream.send(get("/"), soon()).await.unwrap()).await, "other");
    }
    assert_eq!(one.requests(), before);
    other.set_ready(false);
    until(&upstream, |status| status.up == 0).await;
    let error = upstream.send(get("/"), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    one.set_ready(true);
    until(&upstream, |status| status.up == 1).await;
    assert_eq!(text(upstream.send(get("/"), soon()).await.unwrap()).await, "one");
}

#[tokio::test]
async fn a_refusal_is_tried_elsewhere_if_that_can_do_no_harm() {
    let world = World::new();
    let refusing = || world.instance(Router::new().route("/", routing::any(async || StatusCode::SERVICE_UNAVAILABLE)));
    let (one, other, good) = (refusing(), refusing(), world.instance(named("good")));
    let upstream = world.upstream(world.config(&[&one, &other, &good]), 3).await;
    for _ in 0..100 {
        assert_eq!(upstream.send(get("/"), soon()).await.unwrap().status(), StatusCode::OK);
    }
    assert!(one.requests() + other.requests() >= 1);
    let all = || one.requests() + other.requests() + good.requests();
    for _ in 0..100 {
        let before = all();
        upstream.send(request(Method::POST, "/", "x"), soon()).await.unwrap();
        assert_eq!(all(), before + 1);
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let world = World::new();
    let instance = world.instance(Router::new().route("/", routing::post(async |body: Body| body)));
    let upstream = world.upstream(world.config(&[&instance]), 1).await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = tokio_stream(receiver);
    let mut request = request(Method::POST, "/", "");
    *request.body_mut() = Payload::Stream(Box::pin(frames));
    let mut echo = upstream.send(request, soon()).await.unwrap().into_body();
    for n in 0..100u32 {
        // The next is only sent when the last has come back.
        sender.send(Bytes::from(format!("part {n}"))).await.unwrap();
        assert_eq!(echo.frame().await.unwrap().unwrap().into_data().unwrap(), format!("part {n}"));
    }
    drop(sender);
    assert_eq!(echo.collect().await.unwrap().to_bytes(), "");
}

fn tokio_stream(
    receiver: mpsc::Receiver<Bytes>,
) -> impl http_body::Body<Data = Bytes, Error = berth_http::upstream::BoxError> + Send {
    StreamBody::new(futures_util::stream::unfold(receiver, async |mut receiver| {
        let bytes = receiver.recv().await?;
        Some((Ok(http_body::Frame::data(bytes)), receiver))
    }))
}

#[tokio::test]
async fn a_foreign_program_is_spoken_to_over_warm_connections() {
    let world = World::new();
    let mut instance = Instance::plain(
        Router::new()
            .route("/", routing::any(async |headers: http::HeaderMap| headers["host"].to_str().unwrap().to_owned())),
    );
    let mut config = world.config(&[&instance]);
    config.protocol = Protocol::Plain;
    let upstream = world.upstream(config, 1).await;
    let named = || {
        let mut request = get("/");
        request.headers_mut().insert("host", "shop.example".parse().unwrap());
        request
    };
    for _ in 0..50 {
        assert_eq!(text(upstream.send(named(), soon()).await.unwrap()).await, "shop.example");
    }
    assert!(instance.connections() <= 3, "{} connections for 50 requests", instance.connections());
    // Warm connections are dead now, which no request must notice.
    for _ in 0..5 {
        instance.kill().await;
        instance.restart().await;
        until(&upstream, |status| status.up == 1).await;
        assert_eq!(text(upstream.send(named(), soon()).await.unwrap()).await, "shop.example");
    }
    instance.kill().await;
    let error = upstream.send(named(), soon()).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. } | Error::Unavailable { .. }), "{error}");
    until(&upstream, |status| status.up == 0).await;
}

#[tokio::test]
async fn what_is_in_flight_when_an_upstream_is_dropped_is_finished() {
    let world = World::new();
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let instance = world.instance(Router::new().route(
        "/",
        routing::get(move || {
            let opened = Arc::clone(&opened);
            async move {
                let first =
                    futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"first ")) });
                let last = futures_util::stream::once(async move {
                    opened.notified().await;
                    Ok(Bytes::from_static(b"last"))
                });
                Body::from_stream(futures_util::StreamExt::chain(first, last))
            }
        }),
    ));
    let upstream = world.upstream(world.config(&[&instance]), 1).await;
    let response = upstream.send(get("/"), soon()).await.unwrap();
    let mut status = upstream.status();
    drop(upstream);
    status.wait_for(|status| status.up == 0).await.unwrap();
    gate.notify_one();
    assert_eq!(text(response).await, "first last");
}

#[tokio::test]
async fn an_instance_that_falls_silent_is_given_up_and_found_again() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls: TlsAcceptor = world.mesh.identity("items").server_config(&[b"h2"]).into();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = tls.accept(stream).await else { continue };
            // The first connection answers once and then never again, as one does whose end was lost on the way.
            let answers = if count.fetch_add(1, SeqCst) == 0 { 1 } else { usize::MAX };
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut unanswered = Vec::new();
                let mut answered = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if answered < answers {
                        answered += 1;
                        respond.send_response(Response::new(()), true).unwrap();
                    } else {
                        unanswered.push(respond);
                    }
                }
            });
        }
    });
    let mut config = world.config(&[]);
    config.endpoints.push(address);
    config.health.timeout = Duration::from_millis(100);
    let upstream = world.upstream(config, 1).await;
    until(&upstream, |status| status.up == 0).await;
    until(&upstream, |status| status.up == 1).await;
    assert_eq!(connections.load(SeqCst), 2);
    assert_eq!(upstream.send(get("/"), soon()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_that_is_dropped_closes_its_connections() {
    let world = World::new();
    let mut instance = world.instance(named("one"));
    let upstream = world.upstream(world.config(&[&instance]), 1).await;
    let mut status = upstream.status();
    drop(upstream);
    status.wait_for(|status| status.up + status.down + status.connecting == 0).await.unwrap();
    instance.drain();
}
