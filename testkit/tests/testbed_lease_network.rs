//! What networks and busy servers do between a member and its API server: never two are active, and the role moves
//! only when it must.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::lease_group::{BEYOND, LEASE, Pair};
use testkit::relay::{Fault, Scope};
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{wait_until, within};

testkit::state!(network, Pair);

#[test]
fn changes_told_out_of_order_and_again_let_nobody_in_early() -> Result<()> {
    let pair = &Pair::start()?;
    for name in ["a", "b"] {
        let relay = pair.group.relay(name)?;
        relay.inject(Scope::Watches, Fault::Disorder);
        relay.end_connections();
        wait_until("the watch to be begun anew", LIMIT, || relay.fired() > 0)?;
    }
    pair.group.stays(pair.active.token, LEASE * 3)?;
    pair.group.relay("a")?.black_hole();
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    let waited = Duration::from_nanos(handover.new.first.saturating_sub(pair.group.last_sight("a")?));
    let unseen = pair.group.unseen("a", handover.new.first)?;
    ensure!(unseen >= LEASE, "too early, after {unseen:?}");
    // The last change may have been held back, and is seen only by a look when a lease is over.
    within("the next one to be active", waited, LEASE * 2 + BEYOND)?;
    pair.group.relay("a")?.heal();
    pair.members[0].wait_standby(LIMIT)?;
    check(&pair.group.group, 2, &pair.active)
}
