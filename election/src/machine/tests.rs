//! Each row of the decision tables is one test, named for what must happen.

mod holder;
mod observer;
mod requests;
mod rig;
mod stopping;
