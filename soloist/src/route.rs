//! Routes: who gets the group's traffic. A route follows the elector and decides nothing.

pub mod api;
pub mod consul_service;
pub mod endpoint_slice;
pub mod endpoints;
pub mod object;
pub mod open;
pub mod owner;
pub mod pod_label;
pub mod service;
mod several;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use election::{Activation, Token};

pub use several::Several;

/// A route operation under way; why it failed is one sentence. May be dropped at any time.
pub type Pending = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// A wait that may be dropped at any time.
pub type Watching = Pin<Box<dyn Future<Output = ()>>>;

/// One time of being active, as a route needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its random id.
    pub activation: Activation,
    /// Its fencing token.
    pub token: Token,
    /// The activation before it: the one whose record the lock had until this one acquired it. Nothing where that was
    /// no record of ours, or is not known.
    pub before: Option<Activation>,
}

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
    fn publish(&self, turn: Turn) -> Pending;

    /// Ends when others have changed what this member published, or may have: it is to be published again. Asked while
    /// the member is active. Changes nothing itself, and may be dropped at any time.
    fn disturbed(&self, _turn: Turn) -> Watching {
        Box::pin(std::future::pending())
    }

    /// Sends no more traffic to this member, unless somebody else has published meanwhile. Asked when the stop begins.
    fn withdraw(&self, turn: Turn) -> Pending;

    /// Takes away what a member that leaves has put up. Asked when it is active no more, and for the last time.
    fn close(&self) -> Pending {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Whether traffic could go to `address`, as the API server sees it.
///
/// # Errors
/// Why not, in one sentence.
pub fn check_address(address: IpAddr) -> Result<(), String> {
    let kind = match address {
        _ if address.is_unspecified() => "unspecified",
        _ if address.is_loopback() => "loopback",
        _ if address.is_multicast() => "multicast",
        IpAddr::V4(four) if four.is_link_local() => "link-local",
        IpAddr::V6(six) if six.is_unicast_link_local() => "link-local",
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => "IPv4 in IPv6 notation",
        _ => return Ok(()),
    };
    Err(format!("{address} is {kind}, and no traffic could go there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_which_nothing_can_be_sent_are_refused() {
        let refused = ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "169.254.1.1", "fe80::1"];
        for address in refused.into_iter().chain(["::ffff:10.0.0.1"]) {
            assert!(check_address(address.parse().unwrap()).is_err(), "{address}");
        }
        for address in ["10.1.2.3", "fd00::7", "2001:db8::1"] {
            assert_eq!(check_address(address.parse().unwrap()), Ok(()));
        }
    }
}
