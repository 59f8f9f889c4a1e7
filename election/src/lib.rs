//! The protocol of soloist, pure: no IO, no clock, no async runtime, `std` only.
//!
//! [`Machine::step`] takes the time and an input and returns what to do. Everything that waits, reads a clock or talks
//! to a store lives in the driver. The same `step` is unit-tested, model-checked, simulated and shipped.
//!
//! A driver performs what comes out, and hands in what comes of it:
//!
//! ```
//! use std::time::Duration;
//! use election::{Absence, Action, Entropy, Evidence, Input, Instant, Machine, OnExit, OnLoss, Role, Seen, Settings};
//! use election::{Timing, Version, Write};
//!
//! struct Fixed; // A real one asks the kernel.
//! impl Entropy for Fixed {
//!     fn bits(&mut self) -> u64 {
//!         7
//!     }
//! }
//!
//! let settings = Settings {
//!     name: "a".to_owned(),
//!     timing: Timing::new(Duration::from_secs(15), None)?,
//!     stop_grace: Duration::from_secs(10),
//!     absence: Absence::Free,
//!     can_pause: true,
//!     slots: 1,
//!     on_exit: OnExit::Exit,
//!     on_loss: OnLoss::Standby,
//!     healthy: true,
//! };
//! let (mut machine, now) = (Machine::new(settings, Fixed), Instant::from_nanos(1));
//!
//! let asked = machine.step(now, Input::Wake);
//! assert!(matches!(asked[0].action, Action::Read { .. }));
//! let nothing_there = Seen { version: Version::ABSENT, record: None, evidence: Evidence::None };
//! let tries = machine.step(now, Input::Read(Ok(nothing_there)));
//! let attempt = tries.iter().find_map(|output| match &output.action {
//!     Action::Write { attempt, .. } => Some(*attempt),
//!     _ => None,
//! });
//! let outcome = Write::Written(Version { incarnation: 0, number: 1 });
//! let leads = machine.step(now, Input::Written { attempt: attempt.expect("a write"), outcome });
//! assert!(leads.iter().any(|output| matches!(output.action, Action::Start { .. })));
//! assert_eq!(machine.role(), Role::Active);
//! # Ok::<(), election::TimingError>(())
//! ```
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
