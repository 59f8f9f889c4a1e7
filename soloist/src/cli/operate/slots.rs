//! The slots of a group: which one a verb is about, and what its lock says.

use election::Claim;

use super::asking::{self, no};
use super::place::{AnyBoard, Target};
use crate::error::{Code, Failure};
use crate::lock::LockError;
use crate::lock::board::{Answer, Asked, Asking, Board, Changes, Look};
use crate::snapshot::Announcement;

impl Target {
    /// The board of the slot that was asked for, or of the only one.
    ///
    /// # Errors
    /// There are several and none was named, or there is no such slot.
    pub async fn board_of_slot(&self) -> Result<SlotBoard, Failure> {
        let group = self.board().await?;
        let first = asking::look(&group).await?;
        let count = first.slots();
        let slot = match self.slot {
            None if count == 1 => 1,
            None => return Err(which_one(&self.looks(first).await?)),
            Some(slot) if (1..=count).contains(&slot) => slot,
            Some(slot) => {
                let what = format!("there is no slot {slot}: {count} may be active at a time");
                return Err(Failure::new(Code::Usage, what).hint(format!("--slot 1 to --slot {count}")));
            }
        };
        let own = if slot == 1 { None } else { Some(self.board_at(&self.lock.of_slot(slot)).await?) };
        Ok(SlotBoard { group, own })
    }

    /// What the locks of all slots say, the first of which says this.
    pub async fn looks(&self, first: Look) -> Result<Vec<Look>, Failure> {
        let count = first.slots();
        let mut looks = vec![first];
        for slot in 2..=count {
            let board = self.board_at(&self.lock.of_slot(slot)).await?;
            looks.push(asking::bounded("read the lock", board.look_at_what_is_there()).await?);
        }
        Ok(looks)
    }
}

fn which_one(looks: &[Look]) -> Failure {
    let named = looks.iter().zip(1..).map(|(look, slot)| match look.seen.record.as_ref().map(|record| &record.claim) {
        Some(Claim::Held(holder)) => format!("{slot} ({})", holder.member.name),
        _ => format!("{slot} (nobody)"),
    });
    let named: Vec<String> = named.collect();
    no(format!("there are {} slots, and none was named: {}", looks.len(), named.join(", "))).hint("--slot K")
}

/// The lock of one slot, with what the group has in common beside it.
pub(in crate::cli) struct SlotBoard {
    group: AnyBoard,
    /// Nothing for the first slot, whose lock is beside the group's board.
    own: Option<AnyBoard>,
}

impl Board for SlotBoard {
    async fn announce(&self, own: &Announcement) -> Result<(), LockError> {
        self.group.announce(own).await
    }

    async fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        self.group.withdraw(nonce).await
    }

    async fn look(&self) -> Result<Look, LockError> {
        let group = self.group.look().await?;
        match &self.own {
            None => Ok(group),
            Some(own) => Ok(Look { members: group.members, ..own.look_at_what_is_there().await? }),
        }
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        self.group.asked().await
    }

    async fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        self.group.answer(answer).await
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        self.group.ask(asked).await
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        self.group.answered(id).await
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        let Some(own) = &self.own else { return self.group.changed().await };
        tokio::select! {
            changes = self.group.changed() => changes,
            changes = own.changed() => changes,
        }
    }
}
