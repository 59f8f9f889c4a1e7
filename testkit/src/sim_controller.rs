//! The controller's protocol on random histories: the plan that ships, in controllers whose sight lags behind, whose
//! writes get lost or land late, and who are deposed at any time; over a model of the API server, of kubelets that report
//! late, and of operators who change what they like. One seed in, one history out, the same each time.
//!
//! What the plan needs of the loop around it is in [`Rules`]: without any one of them, something is found.

mod api;
mod applier;
mod checks;
mod controller;
mod history;
mod kubelet;
mod mishaps;
mod network;
mod recovery;
mod rules;
mod setting;
mod world;

pub use history::{History, MUST_HAPPEN};
pub use rules::Rules;
pub use world::run;
