//! Groups of which several members may be active, each on a key of its own.

use anyhow::Result;
use testkit::consul::Consul;
use testkit::consul_group::{Choice, ConsulGroup};
use testkit::group::Group;
use testkit::member::Member;
use testkit::statements::slots::{Site, each_free_slot_is_taken_and_no_other};

/// Ends of activations.
const ROUNDS: u32 = 8;

struct OnKeys {
    consul: Consul,
    group: ConsulGroup,
}

impl Site for OnKeys {
    fn group(&self) -> &Group {
        &self.group.group
    }

    fn spawn(&mut self, name: &str) -> Result<Member> {
        self.group.spawn(&self.consul, name, Choice::default())
    }
}

#[test]
fn two_of_five_are_active_and_who_follows_takes_the_free_key_alone() -> Result<()> {
    let consul = Consul::connect()?;
    let mut group = ConsulGroup::new(&consul)?;
    group.group.set_slots(2)?;
    let mut site = OnKeys { consul, group };
    each_free_slot_is_taken_and_no_other(&mut site, &["a", "b", "c", "d", "e"], ROUNDS)?;
    Ok(())
}
