//! What this host knows about an activation that did not release, and how its remains are ended.

use std::time::Duration;

use election::{Activation, Claim, Evidence, Proof};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::codec::Document;
use crate::workload::cgroup;
use crate::workload::process::{self, MARK, ProcessId, Swept};

/// Where the keepers are stored in the record's backend object.
const FIELD: &str = "keepers";
/// How long one keeper gets to die of SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How long the tree of an activation gets to die of SIGKILL.
const SWEEP_LIMIT: Duration = Duration::from_secs(1);
/// How long keepers that are ending may take.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Who keeps the workload of an activation, for those who have to end it some day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepers {
    /// The elector's process.
    pub elector: ProcessId,
    /// The guard's process.
    pub guard: ProcessId,
    /// The boot in which these processes live.
    pub boot_id: String,
    /// Below which each activation has a cgroup of its own, where it has.
    pub cgroup: Option<cgroup::Base>,
    /// Of a workload that is kept warm. Who does not know this field takes no empty cgroup for proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

/// What holds a workload that ran before there was an activation, and so nowhere bears its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// What its environment carries.
    pub mark: String,
    /// The cgroup below which all of its elector's workloads are, where there is one.
    pub cgroup: Option<cgroup::Base>,
}

impl Keepers {
    /// Those that a record names, if it names any that can be read.
    pub(super) fn of(document: &Document) -> Option<Self> {
        serde_json::from_value(document.backend.get(FIELD)?.clone()).ok()
    }

    /// Has a record name these.
    pub(super) fn store(&self, document: &mut Document) -> Result<(), serde_json::Error> {
        let value: Value = serde_json::to_value(self)?;
        document.backend.insert(FIELD.into(), value);
        Ok(())
    }

    fn any_alive(&self) -> bool {
        self.elector.is_alive() || self.guard.is_alive()
    }

    /// Waits a moment for both to end. Whether they have.
    pub fn end_soon(&self) -> bool {
        [self.elector, self.guard].iter().all(|keeper| matches!(keeper.wait_gone(END_LIMIT), Ok(true)))
    }
}

/// What there is to know about one activation without a release.
pub(super) struct Finding {
    /// For the machine.
    pub evidence: Evidence,
    /// Whether a later look would find the same.
    pub lasting: bool,
}

/// Looks at an activation that did not release although its flock is free, and kills what is left of it. Blocks.
/// See docs/safety.md R15.
///
/// `remote`: another host may have written the record, so that a foreign boot id says nothing.
pub(super) fn gather(document: &Document, activation: Activation, own: &Keepers, remote: bool) -> Finding {
    let unproven = |lasting| Finding { evidence: Evidence::Unproven, lasting };
    let gone = |proof| Finding { evidence: Evidence::Gone(proof), lasting: true };
    let Some(recorded) = Keepers::of(document) else {
        sweep(activation, None);
        return unproven(true);
    };
    if recorded.boot_id != own.boot_id {
        // Not on a file system that hosts share: there it may be another host instead of another boot.
        return if remote { unproven(true) } else { gone(Proof::Rebooted) };
    }
    if recorded.any_alive() {
        // Somebody deleted or replaced the lock file under a holder that works. Its next renewal shows it that, and it
        // stops by itself, with a proof. Or its guard was killed, and the elector is about to release. Or they are just
        // ending: then another look is due.
        return unproven(false);
    }
    if prove_by_cgroup(&recorded, activation) {
        return gone(Proof::CgroupEmpty);
    }
    sweep(activation, Some(&recorded));
    unproven(true)
}

/// Ends what is left of an activation whose lease ran out without a release, and says how that is known. Blocks.
/// See docs/safety.md R15.
pub(super) fn end_tree(document: &Document, activation: Activation, own: &Keepers) -> Evidence {
    let here = Keepers::of(document).filter(|recorded| recorded.boot_id == own.boot_id);
    if here.as_ref().is_some_and(|recorded| prove_by_cgroup(recorded, activation)) {
        return Evidence::Gone(Proof::CgroupEmpty);
    }
    let swept = sweep(activation, here.as_ref());
    if !swept.left.is_empty() {
        tracing::warn!("failed to end every process of activation {activation}: {:?} are left", swept.left);
    }
    Evidence::Unproven
}

/// Kills the keepers of an activation that holds the flock without renewing: they are stopped, or hang. Blocks.
pub(super) fn kill_keepers(document: &Document, own: &Keepers) {
    let Some(recorded) = Keepers::of(document).filter(|recorded| recorded.boot_id == own.boot_id) else { return };
    // After a release its elector may be a standby in good order; only the guard can still be in the way.
    let released = matches!(document.record.claim, Claim::Released(_));
    let keepers = match released {
        // One that is its own guard is in good order too.
        true if recorded.guard == recorded.elector => Vec::new(),
        true => vec![recorded.guard],
        false => vec![recorded.elector, recorded.guard],
    };
    for keeper in keepers {
        if keeper == own.elector || keeper == own.guard {
            continue;
        }
        match keeper.kill(KILL_LIMIT) {
            Ok(true) => {}
            Ok(false) => tracing::warn!("failed to kill process {} within {KILL_LIMIT:?}", keeper.pid),
            Err(error) => tracing::warn!("failed to kill process {}: {error}", keeper.pid),
        }
    }
}

/// Kills whatever is found of an activation by its environment.
fn sweep(activation: Activation, recorded: Option<&Keepers>) -> Swept {
    let tree = recorded.and_then(|recorded| recorded.tree.as_ref());
    let mark = tree.map(|tree| format!("{MARK}={}", tree.mark));
    let entries: Vec<String> = [process::entry_of(activation)].into_iter().chain(mark).collect();
    process::sweep_any(&entries, SWEEP_LIMIT)
}

fn prove_by_cgroup(recorded: &Keepers, activation: Activation) -> bool {
    let proven = match (&recorded.cgroup, &recorded.tree) {
        (Some(base), None) => cgroup::prove_gone(base, activation, SWEEP_LIMIT),
        // Keepers that live may have started the next standby there.
        (_, Some(Tree { cgroup: Some(base), .. })) if !recorded.any_alive() => {
            cgroup::prove_all_gone(base, SWEEP_LIMIT)
        }
        _ => return false,
    };
    match proven {
        Ok(gone) => gone,
        Err(error) => {
            tracing::warn!("failed to look at the cgroup of activation {activation}: {error}");
            false
        }
    }
}
