//! How long something is waited for.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use election::Entropy;
use tokio::time::timeout;

use crate::entropy::KernelEntropy;
use crate::lock::{Failed, LockError};

/// There was no answer in time. Nobody knows what became of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late(Duration);

impl Display for Late {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "no answer within {:?}", self.0)
    }
}

impl From<Late> for String {
    fn from(late: Late) -> Self {
        late.to_string()
    }
}

impl From<Late> for LockError {
    fn from(late: Late) -> Self {
        LockError::Unavailable(late.into())
    }
}

impl From<Late> for Failed {
    fn from(late: Late) -> Self {
        Failed::Unknown(late.into())
    }
}

/// What `call` brings, or that it was late.
///
/// # Errors
/// Those of the call, and [`Late`] as one of them.
pub async fn within<T, E: From<Late>>(limit: Duration, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(limit, call).await.unwrap_or_else(|_| Err(Late(limit).into()))
}

/// Between half of `pause` and all of it, so that those who fail together do not come back together.
pub fn jittered(pause: Duration) -> Duration {
    let thousandths = 500 + u32::try_from(KernelEntropy.bits() % 501).unwrap_or(0);
    pause * thousandths / 1000
}
