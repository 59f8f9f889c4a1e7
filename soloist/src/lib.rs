//! The library behind the `soloist` binary.

pub mod clock;
pub mod elector;
pub mod lock;
pub mod workload;
