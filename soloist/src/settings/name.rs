//! Names of groups and members.

use crate::error::{Code, Failure};

/// The longest name that a Kubernetes object could have.
const NAME_MAX: usize = 253;

const ALLOWED: &str = "letters, digits, '-', '.', '_', at most 253, first and last a letter or digit";

/// Checks `--group`, which becomes part of a file name.
pub(super) fn group(name: &str) -> Result<&str, Failure> {
    check("--group", name).map(|()| name)
}

/// `--name`, else POD_NAME, else the host's name; with this process's PID where members share a host.
pub(super) fn member(given: Option<&str>, share_a_host: bool) -> Result<String, Failure> {
    if let Some(name) = given {
        return check("--name", name).map(|()| name.to_owned());
    }
    if let Ok(name) = std::env::var("POD_NAME") {
        return check("POD_NAME", &name).map(|()| name);
    }
    let host = nix::unistd::gethostname()
        .map_err(|error| Failure::new(Code::Internal, format!("failed to read the hostname: {error}")))?;
    let host = host.to_string_lossy();
    let name = if share_a_host { format!("{host}-{}", std::process::id()) } else { host.into_owned() };
    check("the hostname", &name).map_err(|failure| failure.hint("give --name NAME"))?;
    Ok(name)
}

/// Whether a member could have this name.
pub(super) fn is_valid(name: &str) -> bool {
    fault(name).is_none()
}

fn check(what: &str, name: &str) -> Result<(), Failure> {
    match fault(name) {
        Some(why) => Err(Failure::new(Code::Usage, format!("{what} {name:?} {why}")).hint(ALLOWED)),
        None => Ok(()),
    }
}

/// What is wrong with a name, if anything is.
fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.contains("$(") {
        return Some("contains a variable that nobody expanded");
    }
    if name.len() > NAME_MAX {
        return Some("is too long");
    }
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let has_ends =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    (!name.chars().all(is_inner) || !has_ends).then_some("has characters that are not allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "$(POD_NAME)", "a/b", "../x", ".a", "a-", "a b", "\u{fc}", &"x".repeat(254)] {
            assert_eq!(group(name).unwrap_err().code, Code::Usage, "{name:?}");
            assert_eq!(member(Some(name), true).unwrap_err().code, Code::Usage, "{name:?}");
        }
    }

    #[test]
    fn default_name_tells_members_of_one_host_apart() {
        let (shared, alone) = (member(None, true).unwrap(), member(None, false).unwrap());
        assert_eq!(shared, format!("{alone}-{}", std::process::id()));
    }
}
