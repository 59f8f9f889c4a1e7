//! A descriptor that is waited for, registered with the runtime on first use: a lock may be opened before it runs.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Something behind one descriptor, which is always the same one.
pub(super) struct Ready<T> {
    source: Shared<T>,
    registered: OnceLock<AsyncFd<Shared<T>>>,
}

/// What is owned and what is registered are one thing.
struct Shared<T> {
    thing: Arc<T>,
    descriptor: RawFd,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { thing: Arc::clone(&self.thing), descriptor: self.descriptor }
    }
}

impl<T> AsRawFd for Shared<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

impl<T> Ready<T> {
    /// Takes the thing and the number of the descriptor that it owns.
    pub fn new(thing: T, descriptor: impl FnOnce(&T) -> RawFd) -> Self {
        let descriptor = descriptor(&thing);
        Self { source: Shared { thing: Arc::new(thing), descriptor }, registered: OnceLock::new() }
    }

    /// The thing itself.
    pub fn get(&self) -> &T {
        &self.source.thing
    }

    /// Waits until there is something to read. Cancel safe.
    pub async fn ready(&self) -> io::Result<()> {
        let registered = match self.registered.get() {
            Some(registered) => registered,
            None => {
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe; this descriptor is owned and always the same one"
                )]
                let new = AsyncFd::with_interest(self.source.clone(), Interest::READABLE)?;
                self.registered.get_or_init(|| new)
            }
        };
        registered.readable().await?.clear_ready();
        Ok(())
    }
}
