//! Between a member and the store: requests and answers that are late, lost, or come twice.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use election::{Record, Seen, Version, Write};
use soloist::lock::memory::MemoryLock;
use soloist::lock::{Lock, LockError};

use super::Dice;

/// What happens to requests now. All rates are "one in n"; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Requests that never arrive.
    pub request_lost: u64,
    /// Answers that never come back: the write has landed.
    pub answer_lost: u64,
    /// Requests that arrive twice.
    pub repeated: u64,
    /// Requests that arrive long after their sender has given them up.
    pub held_back: u64,
    /// The longest time on the way, in each direction.
    pub delay_max: Duration,
}

/// How long a request may be held back.
const HELD_BACK_MAX_MS: u64 = 60_000;

/// A lock seen through the weather.
pub struct Network {
    lock: MemoryLock,
    weather: Rc<RefCell<Weather>>,
    dice: RefCell<Dice>,
}

impl Network {
    /// A member's way to the store.
    pub fn new(lock: MemoryLock, weather: Rc<RefCell<Weather>>, dice: Dice) -> Self {
        Self { lock, weather, dice: RefCell::new(dice) }
    }

    fn weather(&self) -> Weather {
        *self.weather.borrow()
    }

    fn strikes(&self, one_in: u64) -> bool {
        self.dice.borrow_mut().one_in(one_in)
    }

    async fn travel(&self) {
        let most = u64::try_from(self.weather().delay_max.as_micros()).unwrap_or(u64::MAX);
        let delay = self.dice.borrow_mut().below(most);
        tokio::time::sleep(Duration::from_micros(delay)).await;
    }
}

impl Lock for Network {
    async fn read(&self) -> Result<Seen, LockError> {
        self.travel().await;
        let weather = self.weather();
        if self.strikes(weather.request_lost) || self.strikes(weather.answer_lost) {
            std::future::pending::<()>().await;
        }
        let seen = self.lock.read().await;
        self.travel().await;
        seen
    }

    async fn write(&self, expected: Version, record: &Record, why: &str) -> Write {
        self.travel().await;
        let weather = self.weather();
        if self.strikes(weather.request_lost) {
            std::future::pending::<()>().await;
        }
        if self.strikes(weather.held_back) {
            let wait = Duration::from_millis(self.dice.borrow_mut().below(HELD_BACK_MAX_MS));
            let (lock, record, why) = (self.lock.clone(), record.clone(), why.to_owned());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(wait).await;
                lock.write(expected, &record, &why).await
            });
            std::future::pending::<()>().await;
        }
        let mut answer = self.lock.write(expected, record, why).await;
        if self.strikes(weather.repeated) {
            answer = self.lock.write(expected, record, why).await;
        }
        if self.strikes(weather.answer_lost) {
            std::future::pending::<()>().await;
        }
        self.travel().await;
        answer
    }

    async fn changed(&self, since: Version) -> Result<(), LockError> {
        self.lock.changed(since).await?;
        self.travel().await;
        Ok(())
    }
}
