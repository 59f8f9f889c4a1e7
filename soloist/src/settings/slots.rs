//! `--active N`: how many members of a group may be active at a time.

use super::lock_url::{Place, is_subdomain};
use crate::error::{Code, Failure};
use crate::route::open::Wanted;

/// Each slot is watched by every member: more than so many groups in one are better several.
pub const ACTIVE_MAX: u32 = 64;

/// The number, which is 1 where nothing is said.
///
/// # Errors
/// What was got and what is allowed.
pub(super) fn active(raw: Option<&str>, place: &Place) -> Result<u32, Failure> {
    let Some(text) = raw else { return Ok(1) };
    let active = text.parse().ok().filter(|number| (1..=ACTIVE_MAX).contains(number)).ok_or_else(|| {
        Failure::new(Code::Usage, format!("--active {text:?} is not how many members may be active at a time"))
            .hint(format!("a number from 1 to {ACTIVE_MAX}, the same for all members of the group"))
    })?;
    match place.of_slot(active) {
        Place::Kubernetes(last) if !is_subdomain(&last.name) => {
            let what = format!("--active {active}: the Lease of the last slot would be called {:?}", last.name);
            Err(Failure::new(Code::Usage, what).hint("choose a shorter name: at most 253 characters are allowed"))
        }
        _ => Ok(active),
    }
}

/// Refuses several slots for a workload that is kept warm: it is started before it has one.
///
/// # Errors
/// What was got, and what to use instead.
pub(super) fn check_warm(is_warm: bool, active: u32) -> Result<(), Failure> {
    if !is_warm || active == 1 {
        return Ok(());
    }
    let what = format!("--warm starts a workload before it has a slot, and --active {active} has more than one");
    Err(Failure::new(Code::Configuration, what).hint("several groups of their own, or --active 1"))
}

/// Refuses routes that know one active member.
///
/// # Errors
/// The first of them, and what to use instead.
pub(super) fn check_routes(routes: &[Wanted], active: u32) -> Result<(), Failure> {
    match routes.iter().find(|route| active > 1 && !route.has_slots()) {
        None => Ok(()),
        Some(route) => {
            let what = format!("--route {route} sends traffic to one member, and --active {active} allows {active}");
            Err(Failure::new(Code::Configuration, what).hint("use --route endpoint-slice:SERVICE, or --active 1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::place;

    fn read(raw: &str, lock: &str) -> Result<u32, Failure> {
        active(Some(raw), &place(Some(lock), None).unwrap())
    }

    #[test]
    fn from_1_to_64() {
        assert_eq!(active(None, &place(Some("/a.lock"), None).unwrap()).unwrap(), 1);
        for number in [1, 2, 64] {
            assert_eq!(read(&number.to_string(), "/a.lock").unwrap(), number);
        }
        for text in ["0", "65", "-1", "", "two", "1.5", "4294967297"] {
            let failure = read(text, "/a.lock").unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{text}");
            assert!(failure.message.contains(&format!("--active {text:?}")), "{failure}");
            assert!(failure.hint.is_some_and(|hint| hint.contains("1 to 64")));
        }
    }

    #[test]
    fn a_name_has_room_for_the_number() {
        let lock = format!("kubernetes://prod/{}", "a".repeat(252));
        assert_eq!(read("1", &lock).unwrap(), 1);
        assert!(read("2", &lock).unwrap_err().message.contains("would be called"));
    }
}
