//! Groups of which several members may be active, each on a Lease of its own.

use anyhow::{Context, Result, ensure};
use testkit::cluster::Cluster;
use testkit::group::Group;
use testkit::lease_group::LeaseGroup;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::statements::slots::{Site, all_active, each_free_slot_is_taken_and_no_other};
use testkit::wait::wait_until;

/// Ends of activations in one test.
const ROUNDS: u32 = 8;

struct OnLeases {
    cluster: Cluster,
    group: LeaseGroup,
}

impl OnLeases {
    fn new(slots: u32) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let mut group = LeaseGroup::new(&cluster)?;
        group.group.set_slots(slots)?;
        for slot in 2..=slots {
            cluster.initial_lease(&group.namespace, &format!("{}.{slot}", group.lease))?;
        }
        Ok(Self { cluster, group })
    }

    fn holder(&self, slot: u32) -> Result<String> {
        let name = if slot == 1 { self.group.lease.clone() } else { format!("{}.{slot}", self.group.lease) };
        let path = "jsonpath={.spec.holderIdentity}";
        self.cluster.kubectl(&["get", "lease", &name, "-n", &self.group.namespace, "-o", path])
    }
}

impl Site for OnLeases {
    fn group(&self) -> &Group {
        &self.group.group
    }

    fn spawn(&mut self, name: &str) -> Result<Member> {
        self.group.spawn(&self.cluster, name, &[])
    }
}

#[test]
fn two_of_five_are_active_and_who_follows_takes_the_free_lease_alone() -> Result<()> {
    let mut site = OnLeases::new(2)?;
    let _members = each_free_slot_is_taken_and_no_other(&mut site, &["a", "b", "c", "d", "e"], ROUNDS)?;
    for (slot, span) in (1..).zip(all_active(site.group())?) {
        ensure!(site.holder(slot)? == span.member, "the Lease of slot {slot} names {}", site.holder(slot)?);
    }
    Ok(())
}

#[test]
fn a_member_that_reaches_no_lease_gives_up_its_slot_and_the_others_keep_theirs() -> Result<()> {
    let mut site = OnLeases::new(2)?;
    let names = ["a", "b", "c"];
    let _members = names.iter().map(|name| site.spawn(name)).collect::<Result<Vec<_>>>()?;
    let active = all_active(site.group())?;
    let lost = &active[1];
    site.group.relay(&lost.member)?.black_hole();
    let next = site.group().wait_active_in(2, lost.token, LIMIT)?;
    ensure!(next.member != lost.member && next.member != active[0].member, "{} follows", next.member);
    wait_until("the lock to name it", LIMIT, || site.holder(2).is_ok_and(|holder| holder == next.member))
        .with_context(|| site.group().logs())?;
    testkit::statements::slots::check(site.group(), 1)
}
