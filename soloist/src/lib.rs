//! The library behind the `soloist` binary.

pub mod attend;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod countdown;
pub mod demo;
pub mod descriptors;
pub mod dropin;
pub mod elector;
pub mod error;
pub mod handover;
pub mod health;
pub mod hooks;
pub mod lock;
pub mod log;
pub mod member;
pub mod metrics;
pub mod patience;
pub mod route;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod snapshot;
pub mod spell;
pub mod workload;
