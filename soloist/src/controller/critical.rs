//! Which containers are critical: a pod that loses one is of no use any more.

use super::group::Group;
use super::pod::{Container, Pod, State};

/// The environment variable that marks a container, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    name: String,
    value: String,
}

impl Default for Mark {
    /// What the seed's applications use.
    fn default() -> Self {
        Self { name: "pwcriticality".to_owned(), value: "critical".to_owned() }
    }
}

impl Mark {
    /// From `NAME=VALUE`; nothing if it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let is_sound = !name.is_empty() && !value.is_empty();
        is_sound.then(|| Self { name: name.to_owned(), value: value.to_owned() })
    }

    /// Whether this variable is the mark.
    pub fn is_set_by(&self, name: &str, value: Option<&str>) -> bool {
        name == self.name && value == Some(&*self.value)
    }
}

/// The critical containers of a pod.
pub fn critical<'a>(pod: &'a Pod, group: &'a Group) -> impl Iterator<Item = &'a Container> {
    pod.containers.iter().filter(|container| container.is_marked || group.critical.contains(&container.name))
}

/// The critical container of this pod that has ended, if one has.
pub fn ended<'a>(pod: &'a Pod, group: &'a Group) -> Option<&'a str> {
    let is_over = |container: &&Container| matches!(container.state, State::Ended | State::Lost);
    critical(pod, group).find(is_over).map(|container| container.name.as_str())
}

/// The critical container that has begun anew between two sights of a pod, if one has: its end was not seen.
pub fn restarted<'a>(before: &Pod, now: &'a Pod, group: &'a Group) -> Option<&'a str> {
    let restarts = |name: &str| before.containers.iter().find(|one| one.name == name).map_or(0, |one| one.restarts);
    critical(now, group).find(|container| container.restarts > restarts(&container.name)).map(|one| one.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_name_and_a_value() {
        let mark = Mark::parse("pwcriticality=critical").unwrap();
        assert_eq!(mark, Mark::default());
        assert!(mark.is_set_by("pwcriticality", Some("critical")));
        for (name, value) in [("pwcriticality", None), ("pwcriticality", Some("no")), ("other", Some("critical"))] {
            assert!(!mark.is_set_by(name, value));
        }
        for text in ["", "x", "=x", "x="] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}
