//! A mesh in containers, from a folder with a declaration to `down`.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use berth::{engine, login, project::Project};
use e2e::{Caller, Shop};
use mesh::{Placement, Plan};
use reqwest::{Certificate, Client, Identity};
use serde_json::Value;
use testkit::{Warden, eventually_within};

use crate::{Container, output_of};

/// Where the compose file mounts a container's secrets.
const CREDENTIALS: &str = "/run/credentials";
/// The one service that ends by itself.
const INIT: &str = "init";
/// A machine with other work to do takes its time.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// A folder with a declaration and the containers made of it; they go with this value, their data and their images too.
#[derive(Debug)]
pub struct Stack {
    folder: PathBuf,
    project: Project,
    plan: Plan,
    program: Vec<String>,
    _warden: Warden,
}

impl Stack {
    /// The shop: what a fresh clone of the repository has. Nothing runs yet.
    pub async fn shop_of_this_repository() -> Self {
        Self::of(|folder| copy_tracked_files(&e2e::repository(), folder)).await
    }

    /// The mesh of a folder in which `fill` puts a declaration and what it needs, with a public port that meets no other on this
    /// machine. Nothing runs yet.
    pub async fn of(fill: impl FnOnce(&Path)) -> Self {
        // Compose programs name their project after the folder, some in small letters only. The letter keeps digits alone from being
        // read as an instance's number, which no mesh may be called by.
        let name = format!("berth-test-m{:08x}", rand::random::<u32>());
        let folder =
            tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("cannot make a folder").keep();
        fill(&folder);
        let settings = format!("BERTH_DEMO_USERS=yes\nBERTH_IMAGES={name}\n");
        fs::write(folder.join(".env"), settings).expect("cannot write the settings of the compose file");
        let path = folder.join("mesh.toml");
        declare_apart(&name, &path);
        let project = Project::find(Some(&path)).expect("no declaration");
        let plan = project.resolve(&Placement::Containers).expect("the declaration is wrong");
        let program = engine::program().await.expect("no compose program");
        let down = ["down", "--volumes", "--rmi", "all", "--timeout", "5"].map(str::to_owned);
        let _warden = Warden::new(&[program.as_slice(), &down].concat(), &folder);
        let stack = Self { folder, project, plan, program, _warden };
        stack.berth(&["compose"]);
        stack
    }

    /// Builds the images, each with these arguments of its Dockerfile.
    pub fn build(&self, arguments: &[&str]) {
        let arguments = arguments.iter().flat_map(|argument| ["--build-arg", argument]);
        self.compose(&["build"].into_iter().chain(arguments).collect::<Vec<_>>());
    }

    /// Starts what does not run, with the demo users, and waits until every health check passes.
    pub async fn up(&self) {
        self.compose(&["up", "-d"]);
        self.healthy().await;
    }

    /// Sets how many copies of a service there are, and waits until they are healthy.
    pub async fn scale(&self, service: &str, copies: usize) {
        self.compose(&["up", "-d", "--scale", &format!("{service}={copies}")]);
        self.healthy().await;
        assert_eq!(self.containers_of(service).len(), copies);
    }

    /// Runs the compose program, which must succeed, and returns what it printed.
    pub fn compose(&self, args: &[&str]) -> String {
        output_of(self.command().args(args))
    }

    fn command(&self) -> Command {
        let (program, args) = self.program.split_first().expect("a compose program");
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.folder);
        command
    }

    /// Runs the engine's command line, which must succeed, and returns what it printed.
    pub fn engine(&self, args: &[&str]) -> String {
        output_of(Command::new(self.engine_program()).args(args))
    }

    pub(crate) fn engine_program(&self) -> &'static str {
        if self.program.iter().any(|word| word.contains("podman")) { "podman" } else { "docker" }
    }

    /// The image of one of our programs, or of `database` or `events`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.plan.name, env!("CARGO_PKG_VERSION"))
    }

    /// Runs the CLI on this mesh, which must succeed, and returns what it printed.
    pub fn berth(&self, args: &[&str]) -> String {
        let mut command = Command::new(e2e::program("berth"));
        command.arg("--mesh").arg(self.project.declaration()).args(args);
        command.current_dir(&self.folder).env("BERTH_SOURCE", e2e::repository());
        output_of(&mut command)
    }

    /// Runs a shell's commands as root among the host's processes: only there can a process in a container be killed without the
    /// engine taking it for its own doing.
    pub fn on_host(&self, commands: &str) -> String {
        let image = self.image("database");
        self.engine(&[
            "run",
            "--rm",
            "--cap-add=SYS_PTRACE",
            "--pid=host",
            "--network=none",
            "--user=0",
            "--entrypoint=sh",
            &image,
            "-c",
            commands,
        ])
    }

    /// Whether a shell's commands succeed in the network of a container.
    pub fn succeeds_beside(&self, container: &Container, commands: &str) -> bool {
        let (network, image) = (format!("--network=container:{}", container.id()), self.image("database"));
        let code = self.exit_code(&["run", "--rm", &network, "--entrypoint=sh", &image, "-c", commands]);
        assert!(code < 125, "the engine could not run it: {code}");
        code == 0
    }

    /// The code with which the engine's command line ends: that of the program it ran, or 125 to 127 when it could not run it.
    pub fn exit_code(&self, args: &[&str]) -> i32 {
        let output = Command::new(self.engine_program()).args(args).output().expect("cannot run the engine");
        output.status.code().unwrap_or_else(|| panic!("{args:?}: {output:?}"))
    }

    /// What these files of the host hold.
    fn host_files(&self, paths: &[String]) -> Vec<String> {
        let commands = format!("for path in {}; do cat $path && printf '\\0' || exit; done", paths.join(" "));
        let texts: Vec<String> = self.on_host(&commands).split_terminator('\0').map(str::to_owned).collect();
        assert_eq!(texts.len(), paths.len(), "a file holds a NUL");
        texts
    }

    /// What the kernel says of the first process of each container: proc_pid_status(5).
    pub fn statuses(&self, containers: &[Container]) -> Vec<String> {
        let paths: Vec<String> =
            containers.iter().map(|container| format!("/proc/{}/status", container.pid())).collect();
        self.host_files(&paths)
    }

    /// Secrets: each of a container, and the name of a file.
    pub fn credentials(&self, wanted: &[(&Container, &str)]) -> Vec<String> {
        let path =
            |(container, file): &(&Container, &str)| format!("/proc/{}/root{CREDENTIALS}/{file}", container.pid());
        self.host_files(&wanted.iter().map(path).collect::<Vec<_>>())
    }

    /// A client that is the gateway to the services.
    pub fn member(&self) -> Client {
        let gateway = self.container("gateway");
        let files = ["mesh-ca.pem", "tls-cert.pem", "tls-key.pem"].map(|file| (&gateway, file));
        let pems = self.credentials(&files);
        let (authority, identity) = pems.split_first().expect("there are three files");
        let authority = Certificate::from_pem(authority.as_bytes()).expect("the authority is no certificate");
        let identity = Identity::from_pem(identity.concat().as_bytes());
        // Members know one another by SPIFFE IDs.
        let builder = Client::builder().tls_certs_only([authority]).tls_danger_accept_invalid_hostnames(true);
        builder.identity(identity.expect("no certificate")).build().expect("cannot build a client")
    }

    /// How many reads of this route a copy of a service has answered, asked by a member of the mesh.
    pub async fn reads_answered(&self, member: &Client, container: &Container, route: &str) -> u64 {
        let service = self.plan.service(container.service()).expect("a service of the plan");
        let port = service.instances.first().expect("a service has an instance").port;
        let url = format!("https://{}:{port}/metrics", container.address("services"));
        let text = member.get(url).send().await.expect("no answer").text().await.expect("no metrics");
        let wanted = format!("http_requests_total{{method=\"GET\",route=\"{route}\",status=\"200\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&wanted));
        count.map_or(0, |count| count.parse().expect("a count is a number"))
    }

    /// What the engine says of these, each of this type: `container`, `image` or `network`.
    pub fn inspect(&self, kind: &str, names: &[&str]) -> Vec<Value> {
        let text = self.engine(&[&["inspect", "--type", kind], names].concat());
        serde_json::from_str(&text).expect("inspect prints JSON")
    }

    /// The networks of the mesh, as the engine describes them.
    pub fn networks(&self) -> Vec<Value> {
        let filter = format!("label=com.docker.compose.project={}", self.plan.name);
        let ids = self.engine(&["network", "ls", "--quiet", "--filter", &filter]);
        self.inspect("network", &ids.split_whitespace().collect::<Vec<_>>())
    }

    /// All containers but the one that has done its work.
    pub fn containers(&self) -> Vec<Container> {
        let filter = format!("label=com.docker.compose.project={}", self.plan.name);
        let ids = self.engine(&["ps", "--all", "--quiet", "--filter", &filter]);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let all = self.inspect("container", &ids).into_iter().map(Container::new);
        all.filter(|container| container.service() != INIT).collect()
    }

    /// The copies of one service.
    pub fn containers_of(&self, service: &str) -> Vec<Container> {
        let mut all = self.containers();
        all.retain(|container| container.service() == service);
        all
    }

    /// The one container of a service, or its first.
    pub fn container(&self, service: &str) -> Container {
        let all = self.containers_of(service);
        all.into_iter().next().unwrap_or_else(|| panic!("no container of {service}"))
    }

    /// The container as it is now.
    pub fn again(&self, container: &Container) -> Container {
        Container::new(self.inspect("container", &[container.id()]).pop().expect("inspect says something"))
    }

    /// Waits until every health check passes.
    pub async fn healthy(&self) {
        eventually_within(READY_WITHIN, "every container to be healthy", async || {
            self.containers().iter().all(Container::is_healthy).then_some(())
        })
        .await;
    }

    /// Kills the container's process, and waits until the engine has started it again and it serves.
    pub async fn kills_and_heals(&self, container: &Container) {
        let (service, process) = (container.service(), container.pid());
        self.on_host(&format!("kill -9 {process}"));
        eventually_within(READY_WITHIN, &format!("{service} to serve again"), async || {
            let now = self.again(container);
            (now.pid() != process && now.restarts() > container.restarts() && now.is_healthy()).then_some(())
        })
        .await;
    }

    /// Somebody without a token, and these demo users, logged in.
    pub async fn callers<const N: usize>(&self, users: [&str; N]) -> (Caller, [Caller; N]) {
        let (outside, plan) = engine::access(&self.project).await.expect("the containers show no certificate");
        let pem = fs::read(outside.ca()).expect("no certificate");
        let authority = Certificate::from_pem(&pem).expect("the authority is no certificate");
        let anonymous = Caller::new(plan.gateway.public_url.to_string(), authority, None);
        let mut known = users.map(|_| anonymous.clone());
        for (caller, name) in known.iter_mut().zip(users) {
            *caller = anonymous.with_token(&login::access_token(&outside, &plan, name).await.expect("no token"));
        }
        (anonymous, known)
    }

    /// Logs the shop's people in.
    pub async fn shop(&self) -> Shop {
        let (_, [alice, bob, carol, mallory]) = self.callers(["alice", "bob", "carol", "mallory"]).await;
        Shop { alice, bob, carol, mallory }
    }

    /// The plan that the containers run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The folder with the compose file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Stack {
    /// What a failed test wants to know.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.command().args(["logs", "--tail", "15"]).output();
            eprintln!("{}", said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default());
        }
    }
}

/// What a clone of the repository would have: the files that git knows or would take. But not the bootstrap script, which the tour would
/// call if it were there, and which would compile another CLI.
fn copy_tracked_files(from: &Path, to: &Path) {
    let mut list = Command::new("git");
    list.current_dir(from).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    for file in output_of(&mut list).split_terminator('\0').filter(|file| *file != "berth") {
        let (original, copy): (PathBuf, PathBuf) = (from.join(file), to.join(file));
        // What is deleted and not yet committed is still listed.
        if original.is_file() {
            fs::create_dir_all(copy.parent().expect("a file is in a folder")).expect("cannot make a folder");
            fs::copy(&original, &copy).unwrap_or_else(|error| panic!("cannot copy {file}: {error}"));
        }
    }
}

/// Gives the declared mesh a name and a public port of its own: its images and containers are nobody else's.
fn declare_apart(name: &str, path: &Path) {
    let text = fs::read_to_string(path).expect("cannot read mesh.toml");
    let mut declaration: toml::Table = text.parse().expect("mesh.toml is no TOML");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("no port is free");
    let mesh = declaration.get_mut("mesh").and_then(toml::Value::as_table_mut).expect("mesh.toml names the mesh");
    mesh.insert("name".to_owned(), name.into());
    let gateway = declaration.get_mut("gateway").and_then(toml::Value::as_table_mut).expect("mesh.toml has a gateway");
    gateway.insert("port".to_owned(), i64::from(free.port()).into());
    fs::write(path, declaration.to_string()).expect("cannot write mesh.toml");
}
