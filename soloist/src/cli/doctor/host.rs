//! The host that this runs on: what holds a workload, how late timers are, and how much CPU there is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Finding, Terms};
use crate::cli::operate::print::exactly;
use crate::clock::now;
use crate::workload::Containment;
use crate::workload::cgroup::{self, Base};

/// How often a timer is set, and for how long each: half a second together.
const SAMPLES: u32 = 100;
const SAMPLE: Duration = Duration::from_millis(5);

/// Shells that are found as the first process of containers.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "busybox"];

/// Whether this runs in a pod of Kubernetes.
pub(super) fn is_in_a_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

pub(super) async fn examine(terms: &Terms) -> Vec<Finding> {
    let lateness = tokio::task::spawn_blocking(worst_lateness).await.unwrap_or_default();
    let mut findings = vec![judged(lateness, terms.timing.lateness()), containment()];
    findings.extend(cpu());
    if is_in_a_pod() {
        let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
        findings.push(first_process(first.trim()));
    }
    findings
}

/// As the guard waits for its deadline: how late does one wake up?
fn worst_lateness() -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..SAMPLES {
        let due = now() + SAMPLE;
        std::thread::sleep(SAMPLE);
        worst = worst.max(now().since(due));
    }
    worst
}

fn judged(worst: Duration, allowed: Duration) -> Finding {
    let worst_ms = worst.as_secs_f64() * 1_000.0;
    let found = format!("{SAMPLES} timers were {worst_ms:.1} ms late at most; S is {}", exactly(allowed));
    let fix = "more CPU for the container or the host, or a longer --lease";
    if worst > allowed {
        Finding::problem("lateness", found, fix)
    } else if worst > allowed / 2 {
        Finding::warning("lateness", found, fix)
    } else {
        Finding::ok("lateness", found)
    }
}

/// What would hold the tree if both keepers died at once.
fn containment() -> Finding {
    if std::process::id() == 1 {
        return Finding::ok("containment", format!("{}: this is PID 1", Containment::PidNamespace.word()));
    }
    match Base::own() {
        Some(base) => {
            base.remove();
            let word = Containment::Cgroup.word();
            Finding::ok("containment", format!("{word}: a cgroup v2 can be made and killed whole"))
        }
        None => Finding::warning(
            "containment",
            format!("{}: no cgroup v2 can be written, and this is not PID 1", Containment::Subreaper.word()),
            "Delegate=yes in a systemd unit, or soloist as the first process of a container",
        ),
    }
}

fn cpu() -> Vec<Finding> {
    let Some(folder) = cgroup::own_folder() else { return Vec::new() };
    let read = |name: &str| {
        let limits = folder.ancestors().filter_map(|folder| fs::read_to_string(folder.join(name)).ok());
        limits.collect::<Vec<_>>()
    };
    let cpus = read("cpu.max").iter().filter_map(|text| cpus_of(text)).reduce(f64::min);
    vec![judged_cpu(cpus, throttled(&folder))]
}

/// `50000 100000` is half a CPU, `max 100000` no limit.
fn cpus_of(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(quota), Ok(period)) if period > 0.0 => Some(quota / period),
        _ => None,
    }
}

/// The part of all periods in which the limit was reached.
fn throttled(folder: &Path) -> f64 {
    let text = fs::read_to_string(folder.join("cpu.stat")).unwrap_or_default();
    let number = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_default()
    };
    let periods = number("nr_periods ");
    if periods > 0.0 { number("nr_throttled ") / periods } else { 0.0 }
}

fn judged_cpu(cpus: Option<f64>, throttled: f64) -> Finding {
    let fix = "a CPU limit of 1 or more, or none: the guard shares it with the workload, and must not be late";
    match cpus {
        None => Finding::ok("cpu", "no limit"),
        Some(cpus) if throttled > 0.01 => {
            let share = throttled * 100.0;
            Finding::warning(
                "cpu",
                format!("a limit of {cpus:.2} CPUs, reached in {share:.0} percent of all periods"),
                fix,
            )
        }
        Some(cpus) if cpus < 1.0 => Finding::warning("cpu", format!("a limit of {cpus:.2} CPUs"), fix),
        Some(cpus) => Finding::ok("cpu", format!("a limit of {cpus:.2} CPUs")),
    }
}

fn first_process(name: &str) -> Finding {
    if SHELLS.contains(&name) {
        return Finding::problem(
            "pid-1",
            format!("the shell {name} is the container's first process: it passes no SIGTERM on"),
            "command: [soloist, run, ...] without a shell around it, or exec soloist as the shell's last command",
        );
    }
    Finding::ok("pid-1", format!("the container's first process is {name}"))
}

/// Whether this is the command of a shell, by its first word.
pub(super) fn is_shell(command: &str) -> bool {
    SHELLS.contains(&command.rsplit('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn lateness_is_judged_by_what_is_allowed() {
        let of = |ms| judged(Duration::from_millis(ms), Duration::from_millis(500)).level;
        assert_eq!([of(1), of(251), of(501)], [Level::Ok, Level::Warning, Level::Problem]);
        assert!(worst_lateness() < Duration::from_secs(60));
    }

    #[test]
    fn limits_are_read_and_tight_ones_are_a_warning() {
        assert_eq!(cpus_of("50000 100000\n"), Some(0.5));
        assert_eq!(cpus_of("max 100000\n"), None);
        assert_eq!(judged_cpu(None, 0.0).level, Level::Ok);
        assert_eq!(judged_cpu(Some(2.0), 0.0).level, Level::Ok);
        assert_eq!(judged_cpu(Some(0.5), 0.0).level, Level::Warning);
        assert!(judged_cpu(Some(2.0), 0.2).found.contains("20 percent"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cpu.stat"), "usage_usec 1\nnr_periods 10\nnr_throttled 2\n").unwrap();
        assert!((throttled(folder.path()) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_shell_as_the_first_process_is_a_problem() {
        assert_eq!(first_process("sh").level, Level::Problem);
        assert_eq!(first_process("soloist").level, Level::Ok);
        assert!(is_shell("/bin/sh") && is_shell("bash") && !is_shell("/usr/bin/soloist") && !is_shell(""));
    }
}
