//! `soloist controller`: which pods it looks after, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::notify::{PAYLOAD_MAX, check_token};
use super::route::{is_label_text, label};
use super::{is_label, is_subdomain};
use crate::controller::critical::Mark;
use crate::controller::group::{Group, Handover, Order, PromoteAfter, Selector};
use crate::controller::notice::Notice;
use crate::controller::pods::Eye;
use crate::controller::{Groups, Settings};
use crate::error::{Code, Failure};
use crate::lock::kubernetes::Access;

/// What a person typed.
#[derive(Clone, Debug)]
pub struct Raw {
    /// `--selector`; nothing for groups that are declared
    pub selector: Option<String>,
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

/// Validates all of it.
///
/// # Errors
/// The first contradiction.
pub fn controller(raw: Raw, access: Access) -> Result<Settings, Failure> {
    for (at, namespace) in raw.namespaces.iter().enumerate() {
        if raw.namespaces[..at].contains(namespace) {
            return Err(usage(format!("--namespace {namespace:?} is given twice")).hint("once will do"));
        }
        if !is_label(namespace) {
            return Err(usage(format!("--namespace {namespace:?} is no name of a namespace"))
                .hint("a-z, 0-9 and '-', at most 63"));
        }
    }
    let namespaces = raw.namespaces.clone();
    let groups = match raw.selector.clone() {
        Some(selector) => Groups::Each(Box::new(each(&selector, raw)?)),
        None => declared(raw.token_file)?,
    };
    Ok(Settings { access, namespaces, groups, eye: Eye::default(), looks_around: true, gallery: None })
}

/// Groups that are declared say everything themselves, but for the secret.
fn declared(token_file: Option<PathBuf>) -> Result<Groups, Failure> {
    if let Some(file) = &token_file {
        check_token(file)?;
    }
    Ok(Groups::Declared { token_file })
}

/// What every group wants, but for its namespace.
fn each(text: &str, raw: Raw) -> Result<Group, Failure> {
    let (selector, first) = selector(text)?;
    let label = label(&raw.label)
        .map_err(|why| usage(format!("--label {:?} {why}", raw.label)).hint("a label key, or KEY=ACTIVE|STANDBY"))?;
    if selector.uses(&label.key) {
        let what = format!("--selector {text:?} selects by the label {} that is to change", label.key);
        return Err(Failure::new(Code::Configuration, what).hint("select by labels that stay, such as app=NAME"));
    }
    if !(1..=ACTIVE_MAX).contains(&raw.active) {
        return Err(usage(format!("--active {} is not allowed", raw.active)).hint("1 to 64"));
    }
    let name = raw.group.unwrap_or_else(|| first.to_lowercase());
    if !is_subdomain(&name) {
        return Err(
            usage(format!("--group {name:?} cannot be the name of a Lease")).hint("a-z, 0-9, '-' and '.', at most 253")
        );
    }
    let mark = Mark::parse(&raw.critical_env).ok_or_else(|| {
        usage(format!("--critical-env {:?} is not NAME=VALUE", raw.critical_env)).hint("pwcriticality=critical")
    })?;
    let notice = notice(raw.notify.as_deref(), raw.token_file)?;
    Ok(Group {
        namespace: String::new(),
        name,
        selector,
        active: raw.active as usize,
        label,
        promote_after: raw.promote_after,
        handover: raw.handover,
        critical: raw.critical,
        mark,
        delete_grace_s: raw.delete_grace_s,
        notice,
        order: Order::Priority,
        is_paused: false,
        switchover: None,
    })
}

fn usage(what: String) -> Failure {
    Failure::new(Code::Usage, what)
}

/// Labels that all must be there; at least one.
fn selector(text: &str) -> Result<(Selector, String), Failure> {
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
    let read = |part: &str| pair(part.trim()).ok_or_else(|| refuse("is no list of labels"));
    let pairs: Vec<(String, String)> = text.split(',').map(read).collect::<Result<_, _>>()?;
    let first = pairs[0].1.clone();
    let mut labels = BTreeMap::new();
    for (key, value) in pairs {
        if labels.insert(key, value).is_some() {
            return Err(refuse("names a label twice"));
        }
    }
    Selector::all(labels).map(|selector| (selector, first)).ok_or_else(|| refuse("is empty"))
}

/// A token is for a request, which alone can bring it.
fn notice(target: Option<&str>, token_file: Option<PathBuf>) -> Result<Option<Notice>, Failure> {
    if let Some(file) = &token_file {
        check_token(file)?;
    }
    let notice = target.map(listener).transpose()?;
    match (notice, token_file) {
        (Some(Notice::Http { port, path, .. }), token_file) => Ok(Some(Notice::Http { port, path, token_file })),
        (_, Some(_)) => {
            let what = "--notify-token-file is given without --notify http:PORT/PATH";
            Err(Failure::new(Code::Configuration, what).hint("only a request can bring a token"))
        }
        (notice, None) => Ok(notice),
    }
}

fn listener(text: &str) -> Result<Notice, Failure> {
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
        ("http", Some(path)) => Ok(Notice::Http { port, path: format!("/{path}"), token_file: None }),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Raw {
        Raw {
            selector: Some("app=hapod".to_owned()),
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

    fn group(raw: Raw) -> Group {
        let Groups::Each(group) = read(raw).unwrap().groups else { panic!("declared") };
        *group
    }

    #[test]
    fn without_a_selector_groups_are_declared() {
        let named = group(raw());
        assert_eq!((named.name.as_str(), named.selector.to_string().as_str()), ("hapod", "app=hapod"));
        let declared = read(Raw { selector: None, ..raw() }).unwrap().groups;
        assert!(matches!(declared, Groups::Declared { token_file: None }), "{declared:?}");
    }

    #[test]
    fn what_makes_no_group_is_refused_with_what_would() {
        for (raw, part) in [
            (Raw { selector: Some(String::new()), ..raw() }, "--selector"),
            (Raw { selector: Some("app".to_owned()), ..raw() }, "--selector"),
            (Raw { selector: Some("app=a,role=active".to_owned()), ..raw() }, "role"),
            (Raw { selector: Some("app in (a,b)".to_owned()), ..raw() }, "--selector"),
            (Raw { selector: Some("app=a,app=b".to_owned()), ..raw() }, "twice"),
            (Raw { label: "role=x|x".to_owned(), ..raw() }, "--label"),
            (Raw { active: 0, ..raw() }, "--active"),
            (Raw { active: 65, ..raw() }, "--active"),
            (Raw { group: Some("A_b".to_owned()), ..raw() }, "--group"),
            (Raw { namespaces: vec!["A".to_owned()], ..raw() }, "--namespace"),
            (Raw { namespaces: vec!["a".to_owned(), "a".to_owned()], ..raw() }, "twice"),
            (Raw { token_file: Some("/does/not/exist".into()), ..raw() }, "--notify-token-file"),
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
    fn only_a_request_brings_a_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret").unwrap();
        let with = |notify: Option<&str>| {
            let raw = Raw { notify: notify.map(str::to_owned), token_file: Some(file.path().to_owned()), ..raw() };
            each("app=hapod", raw)
        };
        let notice = with(Some("http:8080/x")).unwrap().notice;
        assert!(matches!(notice, Some(Notice::Http { token_file: Some(_), .. })), "{notice:?}");
        for notify in [None, Some("udp:1")] {
            assert_eq!(with(notify).unwrap_err().code, Code::Configuration, "{notify:?}");
        }
    }

    #[test]
    fn a_pod_is_told_on_a_port_of_its_own() {
        let notice = |text: &str| group(Raw { notify: Some(text.to_owned()), ..raw() }).notice;
        let payload = Some("Go/Active".to_owned());
        assert_eq!(notice("udp:10001/Go/Active"), Some(Notice::Udp { port: 10001, payload }));
        assert_eq!(notice("udp:10001"), Some(Notice::Udp { port: 10001, payload: None }));
        let path = "/role/x".to_owned();
        assert_eq!(notice("http:8080/role/x"), Some(Notice::Http { port: 8080, path, token_file: None }));
    }
}
