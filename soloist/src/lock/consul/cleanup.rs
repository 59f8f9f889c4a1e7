//! Clears a lock away that nobody needs any more, as `consul lock` does when it leaves.

use std::time::Duration;

use election::Claim;

use super::Access;
use super::board::ConsulBoard;
use super::calls::{Calls, Keys, Operation};
use crate::lock::board::Board;
use crate::lock::{Failed, LockError};
use crate::patience::within;

/// How long whoever waits for the lock is given to take it: the release is the proof that nobody is active, and a key
/// that is deleted under it proves nothing.
const TURN: Duration = Duration::from_millis(100);
/// For everything.
const LIMIT: Duration = Duration::from_secs(4);

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// The key is gone.
    Done,
    /// Somebody holds it, or waits for it.
    InUse,
}

/// Deletes a lock that was released, unless somebody takes it within a moment or has announced that he waits.
///
/// # Errors
/// Consul did not answer, or does not allow it.
pub async fn clean_up(access: Access, keys: Keys) -> Result<Cleanup, LockError> {
    within(LIMIT, try_to_clean_up(access, keys)).await
}

/// Whether the key can be a lock: it is one, or there is none.
///
/// # Errors
/// Consul did not answer, or does not allow it.
pub async fn is_usable(access: Access, keys: Keys) -> Result<bool, LockError> {
    let calls = Calls::new(access, keys);
    let (_, entry) = within(LIMIT, calls.get()).await?;
    Ok(entry.is_none_or(|entry| !entry.is_of_another_use()))
}

async fn try_to_clean_up(access: Access, keys: Keys) -> Result<Cleanup, LockError> {
    if !ConsulBoard::new(access.clone(), keys.clone()).look().await?.members.is_empty() {
        return Ok(Cleanup::InUse);
    }
    let key = keys.lock();
    let calls = Calls::new(access, keys);
    tokio::time::sleep(TURN).await;
    let (_, entry) = calls.get().await?;
    let Some(entry) = entry else { return Ok(Cleanup::Done) };
    if entry.holder().is_some() || !matches!(entry.record().claim, Claim::Released(_)) {
        return Ok(Cleanup::InUse);
    }
    match calls.transact(&[Operation::delete(&key, entry.modify_index)]).await {
        Ok(_) => Ok(Cleanup::Done),
        Err(Failed::Conflict) => Ok(Cleanup::InUse),
        Err(failed) => Err(failed.into()),
    }
}
