//! The simulator: groups of machines on virtual time, over a lock in memory behind a network that fails, with guards
//! and workloads that die in every way that the promise speaks of. One seed in, one history out, the same each time.

mod campaign;
mod clock;
mod driver;
mod event;
mod fault;
mod guard;
mod history;
mod inject;
mod member;
mod network;
pub mod random;
mod register;
mod report;
mod scenario;
mod shrink;
mod store;
mod tree;
mod world;

pub use campaign::{Campaign, Total, run_campaign, run_safely};
pub use fault::{Broken, Kind};
pub use history::History;
pub use report::{table as report_table, to_json as report_json};
pub use scenario::{Fault, Scenario, Spec, Target};
pub use shrink::shrink;
pub use world::run;
