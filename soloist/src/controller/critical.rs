//! Which containers are critical: a pod that loses one is of no use any more.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::group::Group;
use super::pod::{Container, Pod, State};

/// An environment variable and its value, by which a container may be marked. Only a number is kept: all variables of tens
/// of thousands of pods are remembered, as any group may choose its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Default for Mark {
    /// What the seed's applications use.
    fn default() -> Self {
        Self::of("pwcriticality", "critical")
    }
}

impl Mark {
    /// A variable with this value.
    pub fn of(name: &str, value: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (name, value).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// From `NAME=VALUE`; nothing if it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let is_sound = !name.is_empty() && !value.is_empty();
        is_sound.then(|| Self::of(name, value))
    }
}

/// The critical containers of a pod.
fn critical<'a>(pod: &'a Pod, group: &'a Group) -> impl Iterator<Item = &'a Container> {
    let is_critical =
        |container: &&Container| container.variables.contains(&group.mark) || group.critical.contains(&container.name);
    pod.containers.iter().filter(is_critical)
}

/// The critical container that ends the time of a pod, if one has ended, or did between two sights of it.
pub fn fallen(before: Option<&Pod>, now: &Pod, group: &Group) -> Option<String> {
    let restarted = before.and_then(|before| restarted(before, now, group));
    ended(now, group).or(restarted).map(str::to_owned)
}

/// The critical container of this pod that has ended, if one has.
fn ended<'a>(pod: &'a Pod, group: &'a Group) -> Option<&'a str> {
    let is_over = |container: &&Container| matches!(container.state, State::Ended | State::Lost);
    critical(pod, group).find(is_over).map(|container| container.name.as_str())
}

/// The critical container that has begun anew between two sights of a pod, if one has: its end was not seen.
fn restarted<'a>(before: &Pod, now: &'a Pod, group: &'a Group) -> Option<&'a str> {
    let restarts = |name: &str| before.containers.iter().find(|one| one.name == name).map_or(0, |one| one.restarts);
    critical(now, group).find(|container| container.restarts > restarts(&container.name)).map(|one| one.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_name_and_a_value() {
        assert_eq!(Mark::parse("pwcriticality=critical"), Some(Mark::default()));
        for other in ["pwcriticality=no", "other=critical", "pwcriticalit=ycritical"] {
            assert_ne!(Mark::parse(other), Some(Mark::default()), "{other}");
        }
        for text in ["", "x", "=x", "x="] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}
