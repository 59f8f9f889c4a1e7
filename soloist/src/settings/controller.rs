//! `soloist controller`: which pods it looks after, and how.

use std::path::PathBuf;

use super::route::{is_label_text, label};
use super::{is_label, is_subdomain};
use crate::controller::Settings;
use crate::controller::apply::Form;
use crate::controller::critical::Mark;
use crate::controller::group::{Group, Handover, PromoteAfter};
use crate::controller::notice::Notice;
use crate::controller::watch::Scope;
use crate::error::{Code, Failure};
use crate::lock::kubernetes::Access;

/// What a person typed.
#[derive(Clone, Debug)]
pub struct Raw {
    /// `--selector`
    pub selector: String,
    /// `--namespace`
    pub namespaces: Vec<String>,
    /// `--group`
    pub group: Option<String>,
    /// `--active`
    pub active: u32,
    /// `--label`
    pub label: String,
    /// `--promote-after`
    pub promote_after: PromoteAfter,
    /// `--handover`
    pub handover: Handover,
    /// `--critical`
    pub critical: Vec<String>,
    /// `--critical-env`
    pub critical_env: String,
    /// `--delete-grace`
    pub delete_grace_s: Option<u32>,
    /// `--notify`
    pub notify: Option<String>,
    /// `--notify-token-file`
    pub token_file: Option<PathBuf>,
}

/// More pods than that are never active side by side.
const ACTIVE_MAX: u32 = 64;
/// The longest payload that fits into one datagram on every path.
const PAYLOAD_MAX: usize = 512;

/// Validates all of it.
///
/// # Errors
/// The first contradiction.
pub fn controller(raw: Raw, access: Access) -> Result<Settings, Failure> {
    let pairs = selector(&raw.selector)?;
    let label = label(&raw.label)
        .map_err(|why| usage(format!("--label {:?} {why}", raw.label)).hint("a label key, or KEY=ACTIVE|STANDBY"))?;
    if pairs.iter().any(|(key, _)| *key == label.key) {
        let what = format!("--selector {:?} selects by the label {} that is to change", raw.selector, label.key);
        return Err(Failure::new(Code::Configuration, what).hint("select by labels that stay, such as app=NAME"));
    }
    if !(1..=ACTIVE_MAX).contains(&raw.active) {
        return Err(usage(format!("--active {} is not allowed", raw.active)).hint("1 to 64"));
    }
    let name = raw.group.unwrap_or_else(|| pairs[0].1.to_lowercase());
    if !is_subdomain(&name) {
        return Err(
            usage(format!("--group {name:?} cannot be the name of a Lease")).hint("a-z, 0-9, '-' and '.', at most 253")
        );
    }
    for namespace in &raw.namespaces {
        if !is_label(namespace) {
            return Err(usage(format!("--namespace {namespace:?} is no name of a namespace"))
                .hint("a-z, 0-9 and '-', at most 63"));
        }
    }
    let mark = Mark::parse(&raw.critical_env).ok_or_else(|| {
        usage(format!("--critical-env {:?} is not NAME=VALUE", raw.critical_env)).hint("pwcriticality=critical")
    })?;
    let notice = raw.notify.as_deref().map(|text| notice(text, raw.token_file)).transpose()?;
    let scope = |namespace: Option<String>| Scope {
        namespace,
        selector: raw.selector.clone(),
        mark: mark.clone(),
        keeps_objects: false,
    };
    let scopes = match raw.namespaces.is_empty() {
        true => vec![scope(None)],
        false => raw.namespaces.iter().cloned().map(Some).map(scope).collect(),
    };
    let group = Group {
        namespace: String::new(),
        name,
        active: raw.active as usize,
        label,
        promote_after: raw.promote_after,
        handover: raw.handover,
        critical: raw.critical,
        delete_grace_s: raw.delete_grace_s,
        is_told: notice.is_some(),
        is_paused: false,
    };
    Ok(Settings { access, scopes, group, form: Form::Patch, notice })
}

fn usage(what: String) -> Failure {
    Failure::new(Code::Usage, what)
}

/// Labels that all must be there; at least one.
fn selector(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let refuse =
        |why: &str| usage(format!("--selector {text:?} {why}")).hint("KEY=VALUE, or several with commas between");
    if text.is_empty() {
        return Err(refuse("is empty: it would fit every pod"));
    }
    let pair = |text: &str| {
        let (key, value) = text.split_once('=')?;
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        (is_label_text(name) && is_label_text(value)).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',').map(|part| pair(part.trim()).ok_or_else(|| refuse("is no list of labels"))).collect()
}

fn notice(text: &str, token_file: Option<PathBuf>) -> Result<Notice, Failure> {
    let refuse = || {
        usage(format!("--notify {text:?} cannot be sent to a pod"))
            .hint("udp:PORT, udp:PORT/PAYLOAD, or http:PORT/PATH")
    };
    let (kind, rest) = text.split_once(':').ok_or_else(refuse)?;
    let (port, path) = rest.split_once('/').map_or((rest, None), |(port, path)| (port, Some(path)));
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
    match (kind, path) {
        ("udp", payload) if payload.is_none_or(|text| !text.is_empty() && text.len() <= PAYLOAD_MAX) => {
            Ok(Notice::Udp { port, payload: payload.map(str::to_owned) })
        }
        ("http", Some(path)) => Ok(Notice::Http { port, path: format!("/{path}"), token_file }),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Raw {
        Raw {
            selector: "app=hapod".to_owned(),
            namespaces: Vec::new(),
            group: None,
            active: 1,
            label: "role".to_owned(),
            promote_after: PromoteAfter::Removed,
            handover: Handover::DrainFirst,
            critical: Vec::new(),
            critical_env: "pwcriticality=critical".to_owned(),
            delete_grace_s: None,
            notify: None,
            token_file: None,
        }
    }

    fn read(raw: Raw) -> Result<Settings, Failure> {
        controller(raw, Access::default())
    }

    #[test]
    fn each_namespace_has_a_watch_of_its_own_or_one_is_for_all() {
        let all = read(raw()).unwrap();
        assert_eq!((all.scopes.len(), &all.scopes[0].namespace, all.group.name.as_str()), (1, &None, "hapod"));
        let two = read(Raw { namespaces: vec!["a".to_owned(), "b".to_owned()], ..raw() }).unwrap();
        assert_eq!(two.scopes.len(), 2);
    }

    #[test]
    fn what_makes_no_group_is_refused_with_what_would() {
        for (raw, part) in [
            (Raw { selector: String::new(), ..raw() }, "--selector"),
            (Raw { selector: "app".to_owned(), ..raw() }, "--selector"),
            (Raw { selector: "app=a,role=active".to_owned(), ..raw() }, "role"),
            (Raw { selector: "app in (a,b)".to_owned(), ..raw() }, "--selector"),
            (Raw { label: "role=x|x".to_owned(), ..raw() }, "--label"),
            (Raw { active: 0, ..raw() }, "--active"),
            (Raw { active: 65, ..raw() }, "--active"),
            (Raw { group: Some("A_b".to_owned()), ..raw() }, "--group"),
            (Raw { namespaces: vec!["A".to_owned()], ..raw() }, "--namespace"),
            (Raw { critical_env: "x".to_owned(), ..raw() }, "--critical-env"),
        ] {
            let failure = read(raw).unwrap_err();
            assert!(failure.message.contains(part) && failure.hint.is_some(), "{failure}");
        }
        for text in ["", "udp", "udp:", "udp:0", "udp:65536", "udp:1/", "http:80", "tcp:1", "udp:x/y"] {
            let failure = read(Raw { notify: Some(text.to_owned()), ..raw() }).unwrap_err();
            assert!(failure.message.contains("--notify") && failure.hint.is_some(), "{failure}");
        }
    }

    #[test]
    fn a_pod_is_told_on_a_port_of_its_own() {
        let notice = |text: &str| read(Raw { notify: Some(text.to_owned()), ..raw() }).unwrap().notice;
        let payload = Some("Go/Active".to_owned());
        assert_eq!(notice("udp:10001/Go/Active"), Some(Notice::Udp { port: 10001, payload }));
        assert_eq!(notice("udp:10001"), Some(Notice::Udp { port: 10001, payload: None }));
        let path = "/role/x".to_owned();
        assert_eq!(notice("http:8080/role/x"), Some(Notice::Http { port: 8080, path, token_file: None }));
    }
}
