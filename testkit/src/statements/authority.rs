//! Whom members believe to be the store.
#![expect(missing_docs, reason = "the name of a statement says it")]

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::relay::Authority;
use crate::relayed::{LEASE, Placed, Relayed, View};
use crate::scenario::{LIMIT, check, follow};
use crate::stamp;

/// Replaces what a member trusts, as kubelet does it: the new file takes the place of the old one.
fn trust(relayed: &Relayed, name: &str, authorities: &[&str]) -> Result<()> {
    let path = relayed.authority(name);
    let new = path.with_extension("new");
    fs::write(&new, authorities.concat())?;
    fs::rename(new, path).context("failed to replace an authority")
}

pub fn an_authority_that_is_replaced_stops_nobody_and_is_verified<P: Placed>() -> Result<()> {
    let pair = P::placed()?;
    let View { relayed, members, active } = pair.view();
    let new = Authority::new()?;
    for name in ["a", "b"] {
        trust(relayed, name, &[relayed.relay(name)?.authority(), &new.pem()])?;
    }
    relayed.stays(active.token, LEASE / 4)?;
    for name in ["a", "b"] {
        // The server starts again with a certificate of the new authority.
        let relay = relayed.relay(name)?;
        relay.certify_by(&new);
        relay.end_connections();
    }
    relayed.stays(active.token, LEASE)?;
    for name in ["a", "b"] {
        trust(relayed, name, &[&new.pem()])?;
        relayed.relay(name)?.end_connections();
    }
    relayed.stays(active.token, LEASE)?;
    // An authority that is not in the file is not believed.
    let (relay, unknown) = (relayed.relay("a")?, Authority::new()?);
    let asked = relay.asked("PUT");
    relay.certify_by(&unknown);
    relay.end_connections();
    let handover = follow(&relayed.group, active, stamp::now())?;
    relayed.came_after_a_lease(&handover, LEASE)?;
    ensure!(relay.asked("PUT") <= asked + 1, "asked a server that is not trusted");
    relay.certify_by(&new);
    members[0].wait_standby(LIMIT)?;
    check(&relayed.group, 2, active)
}
