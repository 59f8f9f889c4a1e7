//! The library behind the `soloist` binary.
//!
//! Programs that have an election in themselves need [`candidate`] and nothing else. The other modules are what the binary is
//! made of: [`elector`] drives [`election::Machine`] over a [`lock::Lock`], and [`member`] is what is around it. They
//! change with the binary.

pub mod ask;
pub mod attend;
pub mod candidate;
pub mod chronicle;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod controller;
pub mod countdown;
pub mod demo;
pub mod descriptors;
pub mod dropin;
pub mod elector;
pub mod entropy;
pub mod error;
pub mod handover;
pub mod health;
pub mod hooks;
pub mod lock;
pub mod log;
pub mod member;
pub mod metrics;
pub mod notify;
pub mod patience;
pub mod route;
pub mod secret;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod snapshot;
mod socket_file;
pub mod spell;
pub mod workload;
