//! What lies between a member and the store, and what of it is broken now.

use super::clock::{MS, Nanos};
use super::event::{Back, Instead};
use super::fault::Kind;
use super::random::Random;

/// What is broken.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Nothing passes, in either direction; attempts hang.
    Drop,
    /// Nothing is there: attempts fail at once.
    Refuse,
    /// Requests do not arrive.
    RequestLost,
    /// Answers do not arrive.
    AnswerLost,
    /// One answer to a write does not arrive.
    AnswerLostOnce,
    /// Answers take so long.
    Delay(Nanos, Nanos),
    /// Writes arrive twice, the second up to so much later.
    Repeat(Nanos),
    /// Writes arrive up to so much later.
    Late(Nanos),
    /// The store says something else instead.
    Say(Instead),
    /// The store fails, before or after its work.
    Fail,
    /// Reads show what was there up to so many changes ago.
    Stale(usize),
    /// Change notices are lost.
    NoticeLost,
    /// Change notices take up to so long.
    NoticeLate(Nanos),
    /// Change notices come three times.
    NoticeRepeated(Nanos),
    /// Nothing any more.
    Over,
}

/// Something that is broken for a while.
#[derive(Clone, Debug)]
pub struct Window {
    /// The fault that it belongs to.
    pub kind: Kind,
    /// What is broken.
    pub effect: Effect,
    /// For whom; for everybody where there is nobody.
    pub member: Option<usize>,
    /// From when.
    pub from: Nanos,
    /// Until when.
    pub until: Nanos,
    /// Whether it has had an effect.
    pub hit: bool,
}

impl Window {
    fn holds(&self, member: usize, now: Nanos) -> bool {
        (self.from..self.until).contains(&now) && self.member.is_none_or(|only| only == member)
    }
}

/// How a request travels.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Arrivals at the store, each with what comes back.
    pub arrivals: [Option<(Nanos, Back)>; 2],
    /// Failed at once, without an arrival.
    pub refused: bool,
    /// So many changes ago.
    pub stale: usize,
}

/// Everything that is broken.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// All windows, past ones included until they are cleared.
    pub windows: Vec<Window>,
}

impl Network {
    /// Breaks something. Forgets what is over.
    pub fn add(&mut self, now: Nanos, window: Window) {
        self.windows.retain(|old| old.until > now);
        self.windows.push(window);
    }

    /// How a request that `member` sends at `now` travels. Names the faults that had their first effect on it.
    pub fn route(
        &mut self,
        random: &mut Random,
        member: usize,
        now: Nanos,
        is_write: bool,
        first_hits: &mut Vec<Kind>,
    ) -> Route {
        let there = random.between(MS / 5, 3 * MS);
        let back = Back { delay: Some(random.between(MS / 5, 3 * MS)), instead: None };
        let mut route = Route { arrivals: [Some((there, back)), None], refused: false, stale: 0 };
        for window in self.windows.iter_mut().filter(|window| window.holds(member, now)) {
            if route.suffer(random, &mut window.effect, is_write) && !window.hit {
                window.hit = true;
                first_hits.push(window.kind);
            }
        }
        route
    }

    /// When the notices of one change reach `member`.
    pub fn notices(
        &mut self,
        random: &mut Random,
        member: usize,
        now: Nanos,
        first_hits: &mut Vec<Kind>,
    ) -> [Option<Nanos>; 3] {
        let mut delays = [Some(random.between(MS / 5, 3 * MS)), None, None];
        for window in self.windows.iter_mut().filter(|window| window.holds(member, now)) {
            match window.effect {
                Effect::NoticeLost | Effect::Drop | Effect::Refuse | Effect::AnswerLost => delays = [None; 3],
                Effect::NoticeLate(most) => delays[0] = delays[0].map(|delay| delay + random.below(most)),
                Effect::NoticeRepeated(most) if delays[0].is_some() => {
                    delays = [delays[0], Some(random.below(most)), Some(random.below(most))];
                }
                _ => continue,
            }
            if !window.hit {
                window.hit = true;
                first_hits.push(window.kind);
            }
        }
        delays
    }
}

impl Route {
    /// Lets one broken thing change the way of a request. True where it did.
    fn suffer(&mut self, random: &mut Random, effect: &mut Effect, is_write: bool) -> bool {
        match effect {
            Effect::Drop | Effect::RequestLost => self.arrivals = [None; 2],
            Effect::Refuse => {
                self.arrivals = [None; 2];
                self.refused = true;
            }
            Effect::AnswerLost => self.each(|_, back| back.delay = None),
            Effect::AnswerLostOnce if is_write => {
                self.each(|_, back| back.delay = None);
                *effect = Effect::Over;
            }
            Effect::Delay(low, high) => {
                let more = random.between(*low, *high);
                self.each(|_, back| back.delay = back.delay.map(|delay| delay + more));
            }
            Effect::Repeat(most) if is_write => return self.repeat(random, *most),
            Effect::Late(most) if is_write => {
                let more = random.below(*most);
                self.each(|there, _| *there += more);
            }
            Effect::Say(instead) => {
                let instead = *instead;
                self.each(|_, back| back.instead = Some(instead));
            }
            Effect::Fail => {
                if !random.chance(700) {
                    return false;
                }
                let instead = if random.chance(500) { Instead::Failed } else { Instead::FailedAfter };
                self.each(|_, back| back.instead = Some(instead));
            }
            Effect::Stale(most) if !is_write => self.stale = random.index(*most) + 1,
            _ => return false,
        }
        true
    }

    /// The same write a second time; the member hears only one of the two answers, or the second where it is first.
    fn repeat(&mut self, random: &mut Random, most: Nanos) -> bool {
        let Some((there, back)) = self.arrivals[0] else { return false };
        let soon = random.chance(500);
        let spread = if soon { 50 * MS } else { most };
        let later = there + random.below(spread);
        // Heard long after its limit it would be a lost answer, which is another fault.
        let hears_second = soon && random.chance(500);
        let mute = Back { delay: None, ..back };
        self.arrivals = [
            Some((there, if hears_second { mute } else { back })),
            Some((later, if hears_second { back } else { mute })),
        ];
        true
    }

    fn each(&mut self, mut change: impl FnMut(&mut Nanos, &mut Back)) {
        for (there, back) in self.arrivals.iter_mut().flatten() {
            change(there, back);
        }
    }
}
