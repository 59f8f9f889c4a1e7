//! The library behind the `soloist` binary.

pub mod cli;
pub mod clock;
pub mod demo;
pub mod elector;
pub mod error;
pub mod lock;
pub mod log;
pub mod settings;
pub mod workload;
