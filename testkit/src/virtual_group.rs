//! The real driver on virtual time: `soloist::elector` as it ships, with a lock in memory behind a faulty network, a
//! workload that only exists in a ledger, and a paused clock. A minute of it takes milliseconds.

mod clock;
mod network;
mod route;
mod workload;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use election::{Absence, Entropy, Exit, OnExit, OnLoss, Settings, Slots, Timing};
use soloist::elector::{Command, Elector, Order};
use soloist::lock::memory::MemoryStore;
use soloist::route::Route;
use soloist::snapshot::{Health, Publisher, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use clock::VirtualClock;
pub use network::{Network, Weather};
pub use route::{Directory, VirtualRoute};
pub use workload::{Ledger, VirtualWorkload};

/// A small generator (splitmix64): the same seed gives the same history.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.bits() % limit }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

impl Entropy for Dice {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What all members of a simulated group share.
#[derive(Clone)]
pub struct World {
    /// The store of each slot's lock.
    pub stores: Vec<MemoryStore>,
    /// What the network does to each request.
    pub weather: Rc<RefCell<Weather>>,
    /// Who ran when.
    pub ledger: Rc<RefCell<Ledger>>,
    /// Who gets traffic.
    pub directory: Rc<RefCell<Directory>>,
    /// What members do when their workload ends, or cannot be published.
    pub on_exit: OnExit,
}

impl Default for World {
    fn default() -> Self {
        Self {
            stores: vec![MemoryStore::new()],
            weather: Rc::default(),
            ledger: Rc::default(),
            directory: Rc::default(),
            on_exit: OnExit::Standby,
        }
    }
}

impl World {
    /// A group of which so many may be active.
    pub fn of_slots(slots: usize) -> Self {
        Self { stores: (0..slots).map(|_| MemoryStore::new()).collect(), ..Self::default() }
    }
}

/// One member under way.
pub struct VirtualMember {
    /// Where its orders go.
    pub orders: mpsc::Sender<Order>,
    /// Ends with the member.
    pub task: JoinHandle<Exit>,
}

/// Notes what was news and shows the same as before: others, on another thread, may have been shown what came in between.
async fn watch(mut snapshots: watch::Receiver<Snapshot>, ledger: Rc<RefCell<Ledger>>) {
    let mut before = snapshots.borrow_and_update().clone();
    while snapshots.changed().await.is_ok() {
        let now = snapshots.borrow_and_update().clone();
        if now.news > before.news && now.lasting() == before.lasting() {
            ledger.borrow_mut().flickers += 1;
        }
        before = now;
    }
}

/// Starts a member on the present local task set.
///
/// # Errors
/// The lease does not hold.
pub fn spawn(world: &World, name: &str, lease: Duration, rate: f64, seed: u64) -> anyhow::Result<VirtualMember> {
    let mut dice = Dice(seed);
    let clock = VirtualClock::new(rate, Duration::from_millis(dice.below(1_000_000)));
    let settings = Settings {
        name: name.to_owned(),
        timing: Timing::new(lease, None)?,
        stop_grace: Duration::from_secs(2),
        absence: Absence::CostsALease,
        can_pause: true,
        slots: u32::try_from(world.stores.len())?,
        on_exit: world.on_exit,
        on_loss: OnLoss::Standby,
        healthy: true,
    };
    let network = |store: &MemoryStore, seed| Network::new(store.lock(), Rc::clone(&world.weather), Dice(seed));
    let locks = world.stores.iter().map(|store| network(store, dice.bits())).collect();
    let workload = VirtualWorkload::new(name, clock, world, Dice(dice.bits()));
    let command = Command { argv: Vec::new(), stop_grace: settings.stop_grace, local_locks: Vec::new() };
    let (orders, receiver) = mpsc::channel(4);
    // The first machine goes on with the dice themselves, as a member of one slot does.
    let mut first = Some(dice.clone());
    let slots = Slots::new(&settings, || first.take().unwrap_or_else(|| Dice(dice.bits())));
    let health = Health { healthy: true, why: String::new() };
    let snapshot = Snapshot::new("virtual", name, lease, health, 0).in_slots(slots.count());
    let publisher = Publisher::new(snapshot);
    tokio::task::spawn_local(watch(publisher.subscribe(), Rc::clone(&world.ledger)));
    let route = |slot| Rc::new(VirtualRoute::new(name, slot, Rc::clone(&world.directory))) as Rc<dyn Route>;
    let routes = (1..).zip(&world.stores).map(|(slot, _)| route(slot)).collect();
    let elector = Elector::new(slots, locks, workload, clock, command, receiver, publisher).routed(routes);
    Ok(VirtualMember { orders, task: tokio::task::spawn_local(elector.run()) })
}
