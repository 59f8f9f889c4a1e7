//! `--on-active`, `--on-standby`, `--on-stop`: lines for the shell, and the time that each of them has.

use std::time::Duration;

use super::duration;
use crate::error::{Code, Failure};

/// What a person typed.
#[derive(Clone, Debug)]
pub struct Raw {
    /// `--on-active`
    pub on_active: Option<String>,
    /// `--on-standby`
    pub on_standby: Option<String>,
    /// `--on-stop`
    pub on_stop: Option<String>,
    /// `--hook-timeout`
    pub timeout: String,
}

/// How long a hook may take where nothing else is said.
pub const TIMEOUT: &str = "10s";

impl Default for Raw {
    fn default() -> Self {
        Self { on_active: None, on_standby: None, on_stop: None, timeout: TIMEOUT.to_owned() }
    }
}

/// What is run when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// When the workload runs.
    pub on_active: Option<String>,
    /// When the member stands by.
    pub on_standby: Option<String>,
    /// When the workload is being stopped.
    pub on_stop: Option<String>,
    /// How long each of them may take.
    pub timeout: Duration,
}

/// Validates the flags; nothing if there is no hook.
pub(super) fn hooks(raw: Raw) -> Result<Option<Hooks>, Failure> {
    let timeout = duration("--hook-timeout", &raw.timeout)?;
    let lines = [("--on-active", &raw.on_active), ("--on-standby", &raw.on_standby), ("--on-stop", &raw.on_stop)];
    if let Some((flag, _)) = lines.iter().find(|(_, line)| line.as_ref().is_some_and(|line| line.trim().is_empty())) {
        return Err(Failure::new(Code::Usage, format!("{flag} is empty")).hint("a line for /bin/sh"));
    }
    let any = lines.iter().any(|(_, line)| line.is_some());
    let Raw { on_active, on_standby, on_stop, .. } = raw;
    Ok(any.then_some(Hooks { on_active, on_standby, on_stop, timeout }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_hooks_only_where_one_is_given() {
        assert_eq!(hooks(Raw::default()).unwrap(), None);
        let given = hooks(Raw { on_stop: Some("true".to_owned()), ..Raw::default() }).unwrap().unwrap();
        assert_eq!((given.on_stop.as_deref(), given.timeout), (Some("true"), Duration::from_secs(10)));
    }

    #[test]
    fn empty_lines_and_times_without_a_unit_are_refused() {
        for raw in [
            Raw { on_active: Some(" ".to_owned()), ..Raw::default() },
            Raw { timeout: "10".to_owned(), ..Raw::default() },
        ] {
            let failure = hooks(raw).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.hint.is_some());
        }
    }
}
