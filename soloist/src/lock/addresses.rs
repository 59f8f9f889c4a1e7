//! Where the API server is found, if it has a name: which of several addresses comes first, and what counts while the
//! name cannot be looked up.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use election::Entropy;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::entropy::KernelEntropy;

/// How long a look-up may take where the last addresses are known: a part of the shortest attempt.
const LOOKUP_LIMIT: Duration = Duration::from_millis(150);

/// Addresses in the order in which they are tried.
pub type List = std::vec::IntoIter<SocketAddr>;

/// The addresses of one user of the API server. A user whose session has disappointed finds another address first next
/// time, whatever the others do meanwhile.
#[derive(Debug)]
pub struct Addresses {
    turn: AtomicUsize,
    /// What the name led to last.
    last: Mutex<Vec<SocketAddr>>,
}

impl Default for Addresses {
    /// Users begin anywhere: all members of all groups do not share one server.
    fn default() -> Self {
        let start = usize::try_from(KernelEntropy.bits() % (1 << 16)).unwrap_or(0);
        Self { turn: AtomicUsize::new(start), last: Mutex::default() }
    }
}

impl Addresses {
    /// For one session.
    pub fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// What `name` leads to, the one of this turn first. A name that cannot be looked up leads to where it led last:
    /// TLS tells whether that is still the API server.
    ///
    /// # Errors
    /// It cannot be looked up, and never could.
    pub async fn of(&self, name: &str, turn: usize) -> io::Result<List> {
        let known = self.last().clone();
        let found = match known.is_empty() {
            true => look_up(name).await,
            false => timeout(LOOKUP_LIMIT, look_up(name)).await.unwrap_or_else(|late| Err(late.into())),
        };
        let mut list = match found {
            Ok(found) => found,
            Err(error) if known.is_empty() => return Err(error),
            Err(error) => {
                tracing::debug!("the last addresses of {name:?} count still: {error}");
                known
            }
        };
        self.last().clone_from(&list);
        let first = turn % list.len().max(1);
        list.rotate_left(first);
        Ok(list.into_iter())
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In an order of their own: a name server may turn them as well.
async fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    let mut list: Vec<SocketAddr> = lookup_host((name, 0)).await?.collect();
    list.sort_unstable();
    list.dedup();
    match list.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "the name leads nowhere")),
        false => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowing(last: &[SocketAddr]) -> Addresses {
        let addresses = Addresses::default();
        addresses.last().extend_from_slice(last);
        addresses
    }

    #[tokio::test]
    async fn each_session_begins_with_the_next_address() {
        let [a, b] = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], 0)));
        let addresses = knowing(&[a, b]);
        let mut firsts = Vec::new();
        for _ in 0..4 {
            let turn = addresses.next_turn();
            firsts.push(addresses.of("no such name", turn).await.unwrap().next().unwrap());
        }
        assert!(firsts == [a, b, a, b] || firsts == [b, a, b, a], "{firsts:?}");
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_leads_to_where_it_led_last() {
        assert!(Addresses::default().of("no such name", 0).await.is_err());
        let addresses = Addresses::default();
        let found: Vec<_> = addresses.of("localhost", 0).await.unwrap().collect();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
        assert_eq!(addresses.of("no such name", 0).await.unwrap().collect::<Vec<_>>(), found);
    }
}
