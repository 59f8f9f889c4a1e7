//! Routes: who gets the group's traffic. A route follows the elector and decides nothing.

pub mod endpoints;

use std::future::Future;
use std::pin::Pin;

use election::Token;

/// A route operation under way; why it failed is one sentence. May be dropped at any time.
pub type Pending = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Sends traffic to the active member.
///
/// Each change is a compare-and-set that quotes the fencing token: a larger one wins, so that what an older activation
/// sent, however late it arrives, never replaces what a newer one published.
/// See docs/safety.md R19.
pub trait Route {
    /// Gets ready to publish: asked while the lock is being acquired, which takes as long. Nothing depends on it.
    fn prepare(&self) -> Pending {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Sends all traffic to this member. Asked before its workload is started, and true once it succeeded.
    fn publish(&self, token: Token) -> Pending;

    /// Sends no more traffic to this member, unless somebody else has published meanwhile. Asked when the stop begins.
    fn withdraw(&self, token: Token) -> Pending;
}
