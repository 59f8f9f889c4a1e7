//! Raw arguments become one validated `Settings`; every refusal says what was got, what is allowed and how to fix it.

mod command;
pub mod consul_service;
pub mod controller;
pub mod health;
pub mod hooks;
mod http;
mod lock_url;
mod name;
pub mod notify;
mod realm;
mod route;
mod slots;
mod store;
pub mod target;
mod variables;
pub mod warm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use election::{OnExit, OnLoss, Plain, Timing};

use crate::error::{Code, Failure};
use crate::handover;
use crate::lock::kubernetes::Access;
use crate::route::open::Wanted;
use crate::workload::size::memory_limit_bytes;

pub use command::check as check_command;
pub use http::{Address, Http, socket_path};
pub use lock_url::{ConsulPlace, FilePlace, Place, of_slot, only_one, place};
pub(crate) use lock_url::{is_label, is_subdomain};
pub use realm::Realm;
pub use slots::ACTIVE_MAX;
pub use store::{Store, store};
pub use variables::warn_about_unknown_variables;

/// What a person typed for `soloist run`, in words.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// `--lock`
    pub lock: Option<String>,
    /// `--group`
    pub group: Option<String>,
    /// `--name`
    pub name: Option<String>,
    /// `--lease`
    pub lease: String,
    /// `--active`
    pub active: Option<String>,
    /// `--stop-grace`
    pub stop_grace: String,
    /// `--allow-remote-fs`
    pub allow_remote_fs: bool,
    /// `--allow-plaintext`.
    pub allow_plaintext: bool,
    /// `--kubeconfig` and `--context`
    pub access: Access,
    /// `--evidence pod`
    pub asks_kubelet: bool,
    /// `--fail-fast`
    pub fail_fast: bool,
    /// `--http`
    pub http: Option<String>,
    /// `--http-token-file`
    pub http_token_file: Option<PathBuf>,
    /// `--handover-on eviction`
    pub hands_over_on_eviction: bool,
    /// `--route`
    pub routes: Vec<String>,
    /// `--consul-check-http` and so on.
    pub consul_service: consul_service::Raw,
    /// `--warm`
    pub is_warm: bool,
    /// What follows `--`; nothing for a member that runs nothing itself.
    pub command: Option<Vec<OsString>>,
    /// `--via` of a sidecar.
    pub via: Option<PathBuf>,
    /// What the member is active for is done by a task of this process, which holds the lock itself.
    pub has_task: bool,
    /// `--health-...`
    pub health: health::Raw,
    /// `--on-active` and so on.
    pub hooks: hooks::Raw,
    /// `--notify` and `--notify-token-file`.
    pub notify: notify::Raw,
}

/// What a member does, without contradictions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group's name: as given, else the lock's.
    pub group: String,
    /// Where the lock is.
    pub lock: Place,
    /// How the API server is reached, for a lock that is there.
    pub access: Access,
    /// Whether the kubelet's word on the holder's container is believed.
    pub asks_kubelet: bool,
    /// The member's name.
    pub name: String,
    /// All durations that follow from the lease.
    pub timing: Timing,
    /// How many members of the group may be active at a time.
    pub active: u32,
    /// What the workload gets on a planned stop.
    pub stop_grace: Duration,
    /// Whether a remote or layered file system will do.
    pub allow_remote_fs: bool,
    /// Whether to leave when the lock cannot be read at the start.
    pub fail_fast: bool,
    /// Where HTTP is served, if it is.
    pub http: Option<Http>,
    /// The pod whose deletion begins a handover, if there is one.
    pub handover: Option<handover::Place>,
    /// Who gets the group's traffic.
    pub routes: Vec<Wanted>,
    /// What the member is active for.
    pub duty: Duty,
    /// How its command is kept warm, if it is.
    pub warm: Option<warm::Warm>,
    /// After the workload's own end.
    pub on_exit: OnExit,
    /// After a loss.
    pub on_loss: OnLoss,
    /// The health check, if there is one.
    pub health: Option<health::Health>,
    /// The hooks, if there are any.
    pub hooks: Option<hooks::Hooks>,
    /// Who is told which part this member plays.
    pub listeners: Vec<notify::Listener>,
}

/// What a member does while it is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Runs a command.
    Command(Vec<OsString>),
    /// Has the command run of whoever connects to this socket.
    Via(PathBuf),
    /// Says so.
    Tell,
}

impl Settings {
    /// Validates everything that can be known before anything is started or written.
    ///
    /// # Errors
    /// The first contradiction, with its exit code.
    pub fn new(raw: Raw, on_exit: OnExit, on_loss: OnLoss) -> Result<Self, Failure> {
        let group = raw.group.as_deref().map(group_name).transpose()?.map(str::to_owned);
        let place = place(raw.lock.as_deref(), group.as_deref())?;
        Self::at(place, group, raw, on_exit, on_loss)
    }

    /// The same for a lock that is known already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(
        place: Place,
        group: Option<String>,
        raw: Raw,
        on_exit: OnExit,
        on_loss: OnLoss,
    ) -> Result<Self, Failure> {
        let stop_grace = duration("--stop-grace", &raw.stop_grace)?;
        // How large the workload may become is known of the own container alone.
        let limit = if raw.via.is_none() { memory_limit_bytes() } else { None };
        let timing = timing_within(&raw.lease, limit)?;
        let active = slots::active(raw.active.as_deref(), &place)?;
        slots::check_warm(raw.is_warm, active)?;
        if let Place::Consul(consul) = &place {
            consul.check_plaintext(raw.allow_plaintext)?;
        }
        place.store().check_lease(&timing, &raw.lease)?;
        if raw.asks_kubelet && !matches!(place, Place::Kubernetes(_)) {
            return Err(Failure::new(Code::Configuration, format!("--evidence pod: got the lock {place}"))
                .hint("it is for --lock kubernetes://NAMESPACE/NAME"));
        }
        let name = name::member(raw.name.as_deref(), matches!(place, Place::File(_)))?;
        let duty = duty(raw.command, raw.via, raw.has_task, &place)?;
        let subject = match &duty {
            Duty::Tell => health::Subject::Beside,
            Duty::Command(_) if raw.is_warm => health::Subject::Warm,
            Duty::Command(_) | Duty::Via(_) => health::Subject::Cold,
        };
        let health = health::health(raw.health, subject)?;
        let hook_limit = duration("--hook-timeout", &raw.hooks.timeout)?;
        let hooks = hooks::hooks(raw.hooks)?;
        let notify::Wanted { listeners, signal } = notify::listeners(&raw.notify, hook_limit, raw.allow_plaintext)?;
        let http = http::http(raw.http.as_deref(), raw.http_token_file)?;
        let warm = warm::warm(raw.is_warm, health.is_some(), signal, !listeners.is_empty() || http.is_some())?;
        let variable = |name: &str| std::env::var(name).ok();
        let instance =
            |service: &str| consul_service::definition(&raw.consul_service, service, &name, &place, &variable);
        let routes = route::routes(&raw.routes, &instance, &variable)?;
        slots::check_routes(&routes, active)?;
        let watches_pod = raw.hands_over_on_eviction && matches!(place, Place::Kubernetes(_));
        let handover = watches_pod.then(|| route::own_place(&variable)).flatten();
        place.prepare()?;
        Ok(Self {
            group: group.unwrap_or_else(|| place.name()),
            lock: place,
            access: raw.access,
            asks_kubelet: raw.asks_kubelet,
            name,
            timing,
            active,
            stop_grace,
            allow_remote_fs: raw.allow_remote_fs,
            fail_fast: raw.fail_fast,
            http,
            handover,
            routes,
            duty,
            warm,
            on_exit,
            on_loss,
            health,
            hooks,
            listeners,
        })
    }
}

impl Settings {
    /// The numbers of all slots.
    pub fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.active
    }
}

/// A lock file is held by the workload itself, and so far nobody takes part on Consul without one.
fn duty(command: Option<Vec<OsString>>, via: Option<PathBuf>, has_task: bool, place: &Place) -> Result<Duty, Failure> {
    if let Some(command) = command {
        command::check(&command)?;
        return Ok(Duty::Command(command));
    }
    if !has_task && !matches!(place, Place::Kubernetes(_)) {
        let what = format!("a member without a workload of its own cannot use the lock {place}");
        return Err(Failure::new(Code::Configuration, what).hint("kubernetes://NAMESPACE/NAME"));
    }
    let Some(via) = via else { return Ok(Duty::Tell) };
    socket_path("--via", &via)?;
    Ok(Duty::Via(via))
}

/// Whether a member could have this name, wherever it was read.
pub fn is_member_name(name: &str) -> bool {
    name::is_valid(name)
}

/// Everything that follows from `--lease`, for a workload within the memory limit that is in force here.
///
/// # Errors
/// Not a duration, or one for which the timing inequality does not hold.
pub fn timing(lease: &str) -> Result<Timing, Failure> {
    timing_within(lease, memory_limit_bytes())
}

/// The same for a workload within another limit, over a lock of this kind.
///
/// # Errors
/// As [`timing`], or one that the store cannot carry.
pub fn timing_on(store: Store, lease: &str, memory_limit_bytes: Option<u64>) -> Result<Timing, Failure> {
    let timing = timing_within(lease, memory_limit_bytes)?;
    store.check_lease(&timing, lease)?;
    Ok(timing)
}

fn timing_within(lease: &str, memory_limit_bytes: Option<u64>) -> Result<Timing, Failure> {
    let parsed = duration("--lease", lease)?;
    Timing::new(parsed, memory_limit_bytes).map_err(|error| {
        let failure = Failure::new(Code::Configuration, format!("--lease {lease}: {error}"));
        match error.smallest() {
            Some(smallest) => failure.hint(format!("use --lease {}", Plain(smallest))),
            None => failure,
        }
    })
}

/// Checks `--group`, which becomes part of a file name.
///
/// # Errors
/// Which characters are allowed.
pub fn group_name(name: &str) -> Result<&str, Failure> {
    name::group(name)
}

/// Reads `512Mi`, `8Gi`, `8GiB` or a number of bytes, as manifests spell them.
///
/// # Errors
/// Not a size.
pub fn bytes(flag: &str, text: &str) -> Result<u64, Failure> {
    let refuse = || {
        Failure::new(Code::Usage, format!("{flag} {text:?} is not a size"))
            .hint("a whole number with a unit, such as 512Mi or 8Gi")
    };
    let plain = text.trim();
    let plain = plain.strip_suffix('B').unwrap_or(plain);
    let (number, shift) = match plain.strip_suffix('i').and_then(|rest| rest.char_indices().next_back()) {
        Some((at, unit)) => {
            let shift = [('K', 10), ('M', 20), ('G', 30), ('T', 40)].into_iter().find(|(name, _)| *name == unit);
            (&plain[..at], shift.ok_or_else(refuse)?.1)
        }
        None => (plain, 0),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(refuse)
}

/// The longest duration that is not taken for a mistake.
const DURATION_MAX: Duration = election::LEASE_MAX;

/// Reads `15s`, `1m30s`, `500ms`. A bare number is refused: nobody knows its unit.
///
/// # Errors
/// Not a duration, or none that makes sense.
pub fn duration(flag: &str, text: &str) -> Result<Duration, Failure> {
    let refuse = |what: &str| {
        Failure::new(Code::Usage, format!("{flag} {text:?} {what}"))
            .hint("a number with a unit, such as 500ms, 15s, 2m or 1m30s, more than 0 and at most 24h")
    };
    let parsed: jiff::SignedDuration = text.trim().parse().map_err(|_| refuse("is not a duration"))?;
    let duration = Duration::try_from(parsed).map_err(|_| refuse("is negative"))?;
    if duration.is_zero() {
        return Err(refuse("is zero"));
    }
    if duration > DURATION_MAX {
        return Err(refuse("is longer than a day"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Raw {
        Raw {
            lock: Some("./x.lock".to_owned()),
            name: Some("a".to_owned()),
            lease: "15s".to_owned(),
            stop_grace: "10s".to_owned(),
            command: Some(vec!["/bin/true".into()]),
            ..Raw::default()
        }
    }

    fn refusal(raw: Raw) -> Failure {
        Settings::new(raw, OnExit::Exit, OnLoss::Standby).unwrap_err()
    }

    #[test]
    fn durations_need_a_unit_and_a_sensible_size() {
        for text in ["15", "", "abc", "-3s", "0s", "NaN", "inf", "25h", "1e400s", "3 parsecs", "99999999999999999999s"]
        {
            let failure = refusal(Raw { lease: text.to_owned(), ..raw() });
            assert_eq!(failure.code, Code::Usage, "{text:?}: {failure}");
            assert!(failure.message.contains("--lease"), "{failure}");
            assert!(failure.hint.is_some());
        }
        for (text, ms) in [("15s", 15_000), ("1m30s", 90_000), ("500ms", 500), ("2m", 120_000), (" 24h ", 86_400_000)] {
            assert_eq!(duration("--lease", text).unwrap(), Duration::from_millis(ms), "{text}");
        }
    }

    #[test]
    fn sizes_are_spelled_as_in_manifests() {
        for (text, size) in [("512Mi", 512 << 20), ("8Gi", 8 << 30), ("8GiB", 8 << 30), ("4096", 4096), (" 1Ki ", 1024)]
        {
            assert_eq!(bytes("--memory", text).unwrap(), size, "{text}");
        }
        for text in ["", "Gi", "8G", "8 Gi", "-1Mi", "0", "1.5Gi", "99999999999Ti", "8\u{e9}i", "i"] {
            assert_eq!(bytes("--memory", text).unwrap_err().code, Code::Usage, "{text}");
        }
    }

    #[test]
    fn a_lease_of_kubernetes_holds_whole_seconds_from_4_on() {
        let lock = Some("kubernetes://prod/app".to_owned());
        for lease in ["3s", "4500ms", "15s1ms"] {
            let failure = refusal(Raw { lock: lock.clone(), lease: lease.to_owned(), ..raw() });
            assert_eq!(failure.code, Code::Configuration, "{lease}");
            assert!(failure.message.contains("whole seconds from 4s"), "{failure}");
        }
        let settings = Settings::new(Raw { lock, ..raw() }, OnExit::Exit, OnLoss::Standby).unwrap();
        assert_eq!((settings.group.as_str(), settings.lock.to_string()), ("app", "kubernetes://prod/app".to_owned()));
    }

    #[test]
    fn only_on_kubernetes_a_member_needs_no_workload() {
        let raw = || Raw { command: None, ..raw() };
        assert_eq!(refusal(raw()).code, Code::Configuration);
        let lock = Some("kubernetes://prod/app".to_owned());
        assert!(Settings::new(Raw { lock, ..raw() }, OnExit::Exit, OnLoss::Standby).is_ok());
    }

    #[test]
    fn the_kubelet_knows_nothing_of_a_lock_file() {
        let failure = refusal(Raw { asks_kubelet: true, ..raw() });
        assert_eq!(failure.code, Code::Configuration);
        assert!(failure.message.contains("--evidence") && failure.hint.is_some(), "{failure}");
        let lock = Some("kubernetes://prod/app".to_owned());
        let settings = Settings::new(Raw { asks_kubelet: true, lock, ..raw() }, OnExit::Exit, OnLoss::Standby);
        assert!(settings.unwrap().asks_kubelet);
    }

    #[test]
    fn lease_that_does_not_hold_is_refused_with_all_terms_and_the_smallest_that_does() {
        let failure = refusal(Raw { lease: "1s".to_owned(), ..raw() });
        assert_eq!(failure.code, Code::Configuration);
        for term in [" L ", " D ", " S ", " P ", "epsilon", "rho", " G "] {
            assert!(failure.message.contains(term), "{term}: {failure}");
        }
        let hint = failure.hint.unwrap();
        let smallest = hint.strip_prefix("use --lease ").unwrap().to_owned();
        assert!(Settings::new(Raw { lease: smallest, ..raw() }, OnExit::Exit, OnLoss::Standby).is_ok());
    }
}
