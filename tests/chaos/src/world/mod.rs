//! The mesh that is tormented: the shop of this repository in a folder of its own, under the supervisor of `berth up`.
//!
//! Between the supervisor and every program stands a [`leash`], so that a unit that was killed can be kept from coming
//! back for a while, and be given other variables when it does.

mod bus;
mod leash;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use berth::{
    local::Local,
    lock::Lock,
    mesh_units,
    operator::Operator,
    project::Project,
    secrets,
    socket_folder::SocketFolder,
    supervisor::{
        Supervisor,
        board::{Board, UnitStatus},
        executor::Surroundings,
        leftovers::descendants,
        log::Bounds,
        specification::Specification,
        unit::Backoff,
    },
};
use database::{Database, PoolLimits};
use mesh::{Placement, Plan};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::{credentials::Credentials, settings::Settings};
use tempfile::TempDir;
use tls::Identity;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    time::timeout,
};

pub use bus::Bus;
use leash::Leash;
pub use users::{Answer, Caller, Users};

/// How long orders may wait for item management; short, so that a run sees many deadlines pass.
const ORDER_DEADLINE: Duration = Duration::from_secs(15);

/// How long a unit may need to be ready again.
const HEALS_WITHIN: Duration = Duration::from_secs(90);

/// Killed again and again, a unit is to be back for the next blow.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    max: Duration::from_millis(500),
    steps: 4,
    stable_after: Duration::from_secs(5),
};

/// The two databases of the order transaction, and the stream that the owner of each publishes to.
pub const ITEMS: &str = "item-management";
/// See [`ITEMS`].
pub const DOCUMENTS: &str = "eshop-documents";

/// A running mesh. [`World::down`] ends it.
pub struct World {
    /// Everybody who may call it.
    pub users: Users,
    /// The event server, as its administrator.
    pub bus: Bus,
    databases: BTreeMap<String, Database>,
    project: Project,
    plan: Plan,
    supervisor: Supervisor,
    board: watch::Receiver<Board>,
    leash: Leash,
    homes: BTreeMap<String, PathBuf>,
    locks: BTreeMap<String, Mutex<()>>,
    folder: TempDir,
    _local: berth::local::Held,
    _lock: Lock,
}

impl World {
    /// Brings the mesh up; its services, and `berth`, must lie beside this program.
    ///
    /// # Errors
    /// Something is missing, or does not become ready.
    pub async fn up() -> Result<Self> {
        tls::install_provider();
        let folder = tempfile::Builder::new().prefix("berth-chaos-").tempdir().context("no temporary folder")?;
        // PostgreSQL may run as somebody else, who must pass.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        fs::write(folder.path().join("mesh.toml"), declaration()?)?;
        let project = Project::find(Some(folder.path()))?;
        let lock = Lock::try_take(&project)?.context("somebody else runs this mesh")?;
        let (records, _) = lock.clean_up(&project).await?;
        let declared = project.resolve(&Placement::Nodes)?;
        let local = Local::hold(&project, declared.gateway.public_port.get())?;
        let placement = Placement::Loopback { block: local.local.block, public_port: local.local.public_port };
        let plan = project.resolve(&placement)?;
        secrets::init(&project, &plan, true)?;
        let public = Arc::new(local.public.try_clone()?);
        let mut specifications = mesh_units::prepare(&project, &plan, public).await?;
        let administrator = bus::admit_administrator(&project, &plan)?;
        let leash = Leash::new(folder.path())?;
        let homes = specifications.iter().map(|unit| (unit.name.clone(), unit.folder.join(&unit.name))).collect();
        let locks = specifications.iter().map(|unit| (unit.name.clone(), Mutex::default())).collect();
        for unit in &mut specifications {
            leash.put_on(unit);
            unit.environment.insert("BERTH_ORDER_DEADLINE_SECONDS".into(), ORDER_DEADLINE.as_secs().to_string().into());
            unit.environment.insert("FAILPOINTS_FILE".into(), leash.failpoints(&unit.service).into());
            unit.policy.backoff = BACKOFF;
        }
        let supervisor = start(&project, records, specifications).await?;
        let mut board = supervisor.board();
        let ready = timeout(HEALS_WITHIN * 2, board.wait_for(Board::all_ready)).await;
        if !matches!(ready, Ok(Ok(_))) {
            bail!("the mesh does not become ready: {:#?}", supervisor.board().borrow().units);
        }
        let users = Users::new(&project, &plan)?;
        let bus = Bus::connect(&project, &plan, &administrator).await?;
        let databases = databases(&project, &plan)?;
        let board = supervisor.board();
        let world = Self {
            users,
            bus,
            databases,
            project,
            plan,
            supervisor,
            board,
            leash,
            homes,
            locks,
            folder,
            _local: local,
            _lock: lock,
        };
        Ok(world)
    }

    /// Ends the mesh. `keep`: what it stored and wrote stays, and this is where.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub async fn down(self, keep: bool) -> Result<Option<PathBuf>> {
        self.supervisor.kill().await;
        if keep {
            return Ok(Some(self.folder.keep()));
        }
        self.folder.close().context("cannot remove the mesh's folder")?;
        Ok(None)
    }

    /// The database of a service, as its owner.
    ///
    /// # Errors
    /// It has none.
    pub fn database(&self, service: &str) -> Result<&Database> {
        self.databases.get(service).with_context(|| format!("{service} has no database"))
    }

    /// Somebody who may do what `berth outbox` and its like do.
    ///
    /// # Errors
    /// The mesh's authority cannot be used.
    pub fn operator(&self) -> Result<Operator> {
        Ok(Operator::new(&self.project, self.plan.clone())?)
    }

    /// The services with a database in which outbox and inbox live.
    pub fn messengers(&self) -> impl Iterator<Item = (&str, &Database)> {
        let speaks = |service: &&str| {
            let service = self.plan.services.iter().find(|known| &*known.name == *service);
            service.is_some_and(|service| !service.emits.is_empty() || !service.consumes.is_empty())
        };
        self.databases.iter().map(|(name, database)| (name.as_str(), database)).filter(move |(name, _)| speaks(name))
    }

    /// The resolved declaration.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All units that run or should.
    pub fn units(&self) -> Vec<UnitStatus> {
        self.board.borrow().units.clone()
    }

    /// The units of one service or server.
    pub fn units_of(&self, service: &str) -> Vec<String> {
        self.units().into_iter().filter(|unit| unit.service == service).map(|unit| unit.name).collect()
    }

    /// The process of a unit.
    ///
    /// # Errors
    /// It does not run at the moment.
    pub fn pid(&self, unit: &str) -> Result<i32> {
        let pid = self.board.borrow().unit(unit).and_then(|unit| unit.pid);
        pid.and_then(|pid| i32::try_from(pid).ok()).with_context(|| format!("{unit} does not run"))
    }

    /// The right to harm these units, which two faults must not have at once: neither would know what it sees.
    ///
    /// # Errors
    /// There is no such unit.
    pub async fn claim(&self, units: &[impl AsRef<str>]) -> Result<Vec<MutexGuard<'_, ()>>> {
        // In one order, so that two who claim several do not wait for each other.
        let names: BTreeSet<&str> = units.iter().map(AsRef::as_ref).collect();
        let mut claims = Vec::new();
        for name in names {
            claims.push(self.locks.get(name).with_context(|| format!("there is no {name}"))?.lock().await);
        }
        Ok(claims)
    }

    /// Sends a signal to the unit's process and to all that descend from it.
    pub fn signal(&self, unit: &str, signal: Signal) -> Result<i32> {
        let pid = self.pid(unit)?;
        for each in std::iter::once(pid).chain(descendants(pid)) {
            // A child may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(each), signal);
        }
        Ok(pid)
    }

    /// SIGKILL to the unit with all its children; the supervisor starts it again.
    pub fn kill(&self, unit: &str) -> Result<i32> {
        self.signal(unit, Signal::SIGKILL)
    }

    /// Kills the unit and keeps it down for as long as the guard lives.
    pub fn kill_and_hold(&self, unit: &str) -> Result<(i32, leash::Held)> {
        let held = self.leash.hold(unit)?;
        Ok((self.kill(unit)?, held))
    }

    /// How often processes of a service were started.
    pub fn starts(&self, service: &str) -> u64 {
        self.units().iter().filter(|unit| unit.service == service).map(|unit| unit.starts).sum()
    }

    /// The file that says what is to happen at the named points of a service.
    pub fn failpoints(&self, service: &str) -> PathBuf {
        self.leash.failpoints(service)
    }

    /// What the unit finds in its environment when it next starts, beyond what it always does.
    pub fn equip(&self, unit: &str, variables: &[(&str, &str)]) -> Result<()> {
        self.leash.equip(unit, variables)
    }

    /// Waits until the unit serves with another process than `old`.
    ///
    /// # Errors
    /// It does not within a minute and a half.
    pub async fn healed(&self, unit: &str, old: i32) -> Result<()> {
        let mut board = self.board.clone();
        let other = |board: &Board| {
            board
                .unit(unit)
                .is_some_and(|unit| unit.is_ready() && unit.pid.is_some_and(|pid| pid != old.unsigned_abs()))
        };
        let healed = timeout(HEALS_WITHIN, board.wait_for(other)).await;
        if matches!(healed, Ok(Ok(_))) {
            return Ok(());
        }
        Err(anyhow!("{unit} is not ready again after {HEALS_WITHIN:?}: {:?}", self.board.borrow().unit(unit)))
    }

    /// Waits until every unit serves.
    ///
    /// # Errors
    /// One does not.
    pub async fn all_ready(&self) -> Result<()> {
        let mut board = self.board.clone();
        let ready = timeout(HEALS_WITHIN, board.wait_for(Board::all_ready)).await;
        if matches!(ready, Ok(Ok(_))) {
            return Ok(());
        }
        let sick = self.units().into_iter().filter(|unit| !unit.is_ready());
        let sick: Vec<String> = sick.map(|unit| format!("{} ({})", unit.name, unit.state.word())).collect();
        bail!("not ready after {HEALS_WITHIN:?}: {}", sick.join(", "))
    }

    /// The data folder of a database or of the event bus.
    ///
    /// # Errors
    /// There is no such unit.
    pub fn home(&self, unit: &str) -> Result<&Path> {
        self.homes.get(unit).map(PathBuf::as_path).with_context(|| format!("there is no {unit}"))
    }

    /// Where the mesh lies.
    pub fn folder(&self) -> &Path {
        self.project.root()
    }
}

/// The shop's declaration.
fn declaration() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mesh.toml");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

async fn start(
    project: &Project,
    records: berth::supervisor::leftovers::Records,
    specifications: Vec<Specification>,
) -> Result<Supervisor> {
    let helper = std::env::current_exe()?.with_file_name("berth");
    if !helper.is_file() {
        bail!("{} is missing: cargo build --workspace --bins", helper.display());
    }
    let sockets = SocketFolder::create(&project.run().join("notify"))?;
    let surroundings = Surroundings { sockets, records, board: watch::Sender::new(Board::default()), helper };
    Ok(Supervisor::start(specifications, surroundings, &project.logs(), Bounds::default()).await?)
}

/// A pool for each service that has a database, with that service's own credentials.
fn databases(project: &Project, plan: &Plan) -> Result<BTreeMap<String, Database>> {
    let mut databases = BTreeMap::new();
    for service in plan.services.iter().filter(|service| service.database.is_some()) {
        let name = service.name.to_string();
        let instance = service.instances.first().with_context(|| format!("{name} has no instance"))?;
        let settings = Settings::from_vars(instance.environment.clone())?;
        let credentials = Credentials::at(project.credentials().join(&name));
        let identity = Identity::load(&credentials, &settings.domain)?;
        let limits = PoolLimits { connections: 4, ..PoolLimits::default() };
        databases.insert(name, Database::connect(&settings, &credentials, Some(identity), limits)?);
    }
    Ok(databases)
}
