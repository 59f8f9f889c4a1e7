//! What soloist is tested with: a simulator on virtual time. Never shipped.
#![forbid(unsafe_code)]

pub mod sim;
