//! Several routes of one member, all at the same time.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use futures_util::future::join_all;

use super::{Pending, Route, Turn, Watching};

/// Publishes by each of them, or fails: then all of them are withdrawn, as for one.
pub struct Several(Vec<Rc<dyn Route>>);

impl Several {
    /// All of `routes`.
    pub fn new(routes: Vec<Rc<dyn Route>>) -> Self {
        Self(routes)
    }

    fn all(&self, operation: impl Fn(&dyn Route) -> Pending) -> Pending {
        let operations: Vec<Pending> = self.0.iter().map(|route| operation(&**route)).collect();
        Box::pin(async move {
            let failures: Vec<String> = join_all(operations).await.into_iter().filter_map(Result::err).collect();
            if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
        })
    }
}

impl Route for Several {
    fn prepare(&self) -> Pending {
        self.all(|route| route.prepare())
    }

    fn publish(&self, turn: Turn) -> Pending {
        self.all(|route| route.publish(turn))
    }

    fn disturbed(&self, turn: Turn) -> Watching {
        let mut all: Vec<Watching> = self.0.iter().map(|route| route.disturbed(turn)).collect();
        Box::pin(poll_fn(move |context| {
            let is_one = all.iter_mut().any(|one| one.as_mut().poll(context).is_ready());
            if is_one { Poll::Ready(()) } else { Poll::Pending }
        }))
    }

    fn withdraw(&self, turn: Turn) -> Pending {
        self.all(|route| route.withdraw(turn))
    }

    fn close(&self) -> Pending {
        self.all(|route| route.close())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use election::{Activation, Token};
    use tokio::time::{Instant, sleep};

    use super::*;

    const TURN: Turn = Turn { activation: Activation(1), token: Token(1), before: None };

    /// Takes a second, and fails if it shall.
    struct Slow {
        told: Rc<RefCell<Vec<&'static str>>>,
        failure: Option<&'static str>,
    }

    impl Slow {
        fn tell(&self, what: &'static str) -> Pending {
            let (told, failure) = (Rc::clone(&self.told), self.failure);
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                told.borrow_mut().push(what);
                failure.map_or(Ok(()), |why| Err(why.to_owned()))
            })
        }
    }

    impl Route for Slow {
        fn publish(&self, _: Turn) -> Pending {
            self.tell("published")
        }

        fn withdraw(&self, _: Turn) -> Pending {
            self.tell("withdrawn")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_them_go_at_the_same_time_and_all_failures_are_told() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let slow = |failure| Rc::new(Slow { told: Rc::clone(&told), failure }) as Rc<dyn Route>;
        let before = Instant::now();
        let several = Several::new(vec![slow(None), slow(None)]);
        several.prepare().await.unwrap();
        several.publish(TURN).await.unwrap();
        assert_eq!(before.elapsed().as_secs(), 1);
        let several = Several::new(vec![slow(Some("one")), slow(None), slow(Some("two"))]);
        assert_eq!(several.withdraw(TURN).await.unwrap_err(), "one; two");
        assert_eq!(*told.borrow(), ["published", "published", "withdrawn", "withdrawn", "withdrawn"]);
    }
}
