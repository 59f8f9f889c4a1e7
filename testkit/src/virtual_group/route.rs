//! A route that only exists in a directory, slow and faulty as the test wants it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use election::Token;
use soloist::route::{Pending, Route, Turn, Watching};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Who gets traffic.
#[derive(Debug, Default)]
pub struct Directory {
    /// For each slot, counted from 1, the member with the token that it published; nobody after a withdrawal.
    pub entries: BTreeMap<u32, (String, Token)>,
    /// The largest token that was ever published.
    largest: BTreeMap<u32, Token>,
    /// How long each operation takes before and after its effect.
    pub delay: Duration,
    /// So many operations fail from now on.
    pub failures: u32,
    /// Operations that were begun.
    pub begun: u32,
    /// Told of what nobody published.
    disturbance: Rc<Notify>,
}

impl Directory {
    /// Somebody who is no member puts this in the place of what a member published.
    pub fn disturb(&mut self, slot: u32, entry: Option<(String, Token)>) {
        match entry {
            Some((member, token)) => {
                let largest = self.largest.entry(slot).or_default();
                *largest = token.max(*largest);
                self.entries.insert(slot, (member, token));
            }
            None => drop(self.entries.remove(&slot)),
        }
        self.disturbance.notify_waiters();
    }
}

/// One member's way to change the directory.
#[derive(Clone)]
pub struct VirtualRoute {
    member: String,
    slot: u32,
    directory: Rc<RefCell<Directory>>,
}

impl VirtualRoute {
    /// Nothing is published yet.
    pub fn new(member: &str, slot: u32, directory: Rc<RefCell<Directory>>) -> Self {
        Self { member: member.to_owned(), slot, directory }
    }

    /// One operation with its delays and failures.
    fn operate(&self, change: impl FnOnce(&mut Directory, &str) -> Result<(), String> + 'static) -> Pending {
        let Self { member, directory, .. } = self.clone();
        Box::pin(async move {
            let delay = directory.borrow().delay;
            directory.borrow_mut().begun += 1;
            sleep(delay).await;
            {
                let directory = &mut *directory.borrow_mut();
                if let Some(left) = directory.failures.checked_sub(1) {
                    directory.failures = left;
                    return Err("the directory is closed".to_owned());
                }
                change(directory, &member)?;
            }
            sleep(delay).await;
            Ok(())
        })
    }
}

impl Route for VirtualRoute {
    fn publish(&self, Turn { token, .. }: Turn) -> Pending {
        let slot = self.slot;
        self.operate(move |directory, member| {
            let largest = directory.largest.entry(slot).or_default();
            if *largest > token {
                return Err(format!("token {largest} is newer"));
            }
            *largest = token;
            directory.entries.insert(slot, (member.to_owned(), token));
            Ok(())
        })
    }

    fn disturbed(&self, Turn { token, .. }: Turn) -> Watching {
        let Self { slot, directory, .. } = self.clone();
        Box::pin(async move {
            let disturbance = Rc::clone(&directory.borrow().disturbance);
            loop {
                {
                    let directory = directory.borrow();
                    let is_newest = directory.largest.get(&slot).is_none_or(|largest| *largest <= token);
                    if is_newest && directory.entries.get(&slot).is_none_or(|(_, published)| *published != token) {
                        return;
                    }
                }
                disturbance.notified().await;
            }
        })
    }

    fn withdraw(&self, Turn { token, .. }: Turn) -> Pending {
        let slot = self.slot;
        self.operate(move |directory, _| {
            if directory.entries.get(&slot).is_some_and(|(_, published)| *published == token) {
                directory.entries.remove(&slot);
            }
            Ok(())
        })
    }
}
