//! A model of small groups: every schedule of two or three members over a versioned register, up to a number of
//! faults, requests and ticks. The members are [`election::Machine`] itself, the one that ships; only what surrounds
//! it (guard, network, store, clocks) is modelled.
//!
//! Time is absolute, from tick 0 to a horizon. Machines keep instants and counters of their own, so states of
//! different ages never compare equal and nothing can be normalised away; a short horizon keeps the space finite.
#![forbid(unsafe_code)]

mod books;
mod explore;
mod faults;
mod instance;
mod instances;
mod member;
mod properties;
mod run;
mod slots;
mod state;
mod store;
mod time;
mod workload;
mod world;

pub use explore::{Outcome, explore, explore_slots, narrate, shortest_failure};
pub use instance::{Act, Ask, Fault, Instance};
pub use instances::{beyond, deep, small};
pub use slots::SlotGroup;
pub use time::Rate;
pub use world::{Step, World};
