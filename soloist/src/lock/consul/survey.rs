//! All locks of ours below a prefix.

use http::Method;

use super::access::Access;
use super::answer;
use super::calls::Keys;
use super::client::{Client, spelled};
use crate::lock::LockError;
use crate::lock::board::CALL_LIMIT;
use crate::patience::within;

/// What `consul lock` calls its key, below each prefix.
const LOCK: &str = "/.lock";

/// The prefixes of all locks at `prefix` or below it; everywhere where that is empty. Some may be of other programs.
///
/// # Errors
/// Keys cannot be listed.
pub async fn survey(access: Access, prefix: &str) -> Result<Vec<String>, LockError> {
    let all = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let client = Client::new(access);
    let path = format!("/v1/kv/{}", spelled(&all));
    let answered = within(CALL_LIMIT, client.call(Method::GET, &path, "consistent&keys", Vec::new())).await?;
    let (_, names) = answer::listed::<String>(&answered, &format!("key_prefix {all:?} {{ policy = \"list\" }}"))?;
    Ok(names.iter().filter_map(|name| prefix_of(name)).collect())
}

fn prefix_of(key: &str) -> Option<String> {
    let prefix = key.strip_suffix(LOCK).filter(|prefix| !prefix.is_empty())?;
    // What members put up beside a lock is below it.
    (Keys::of(prefix).lock() == key && !prefix.contains(".lock.soloist/")).then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_by_the_end_of_its_name() {
        assert_eq!(prefix_of("service/app/.lock").as_deref(), Some("service/app"));
        for key in ["service/app/.lock.soloist/members/1", "service/app", "/.lock", "service/app/.locked", ""] {
            assert_eq!(prefix_of(key), None, "{key}");
        }
    }
}
