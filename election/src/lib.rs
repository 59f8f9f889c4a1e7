//! The protocol of soloist, pure: no IO, no clock, no async runtime, `std` only.
//!
//! [`Machine::step`] takes the time and an input and returns what to do. Everything that waits, reads a clock or talks
//! to a store lives in the driver. The same `step` is unit-tested, model-checked, simulated and shipped.
#![forbid(unsafe_code)]

mod clock;
mod io;
mod machine;
mod record;
mod register;
mod slots;
mod timing;

pub use clock::Instant;
pub use io::{Action, Exit, Input, Output, Refusal, RefusalKind, Request, Role, Vigil};
pub use machine::{Absence, Entropy, FOREIGN_FACTOR, GRACE_IN_A_HURRY, Machine, OnExit, OnLoss, Settings};
pub use record::{Activation, Attempt, Claim, Foreign, Holder, Member, Nonce, Proof, Record, Release, Token, Vacancy};
pub use register::{Evidence, Seen, Version, Write};
pub use slots::{Directed, Slots};
pub use timing::{EPSILON, LEASE_MAX, Plain, RHO, Timing, TimingError, kill_to_proof};
