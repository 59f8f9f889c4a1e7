//! Environment variables that look like settings but are none.

use clap::Command;

use crate::workload::process::MARK;

/// What the environment of workloads, checks and hooks carries, which a nested soloist inherits.
const WORKLOADS_OWN: [&str; 8] = [
    "SOLOIST_FENCING_TOKEN",
    "SOLOIST_ROLE",
    "SOLOIST_MEMBER",
    "SOLOIST_ACTIVATION",
    "SOLOIST_SLOT",
    "SOLOIST_HOOK",
    "SOLOIST_REASON",
    MARK,
];

/// Settings that are no flags.
const OTHERS: [&str; 1] = ["SOLOIST_LOG"];

/// Further than this, a name is no misspelling of another.
const DISTANCE_MAX: usize = 4;

/// Warns about each variable `SOLOIST_*` that nothing reads, with the nearest name that something does.
pub fn warn_about_unknown_variables(definition: &Command) {
    let known = known_names(definition);
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("SOLOIST_")) else { continue };
        if let Some(warning) = warning_about(name, &known) {
            tracing::warn!("{warning}");
        }
    }
}

fn known_names(definition: &Command) -> Vec<String> {
    let verbs = definition.get_subcommands().flat_map(Command::get_arguments);
    verbs.filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned)).collect()
}

fn warning_about(name: &str, known: &[String]) -> Option<String> {
    let is_read = WORKLOADS_OWN.contains(&name) || OTHERS.contains(&name) || known.iter().any(|known| known == name);
    if is_read || is_service_variable(name) {
        return None;
    }
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    Some(match nearest {
        Some((distance, nearest)) if distance <= DISTANCE_MAX => {
            format!("the variable {name} is unknown and has no effect; is {nearest} meant?")
        }
        _ => format!("the variable {name} is unknown and has no effect"),
    })
}

/// Kubernetes puts variables such as `SOLOIST_PORT_80_TCP_ADDR` into every pod beside a Service called soloist.
fn is_service_variable(name: &str) -> bool {
    ["SOLOIST_PORT", "SOLOIST_SERVICE_HOST", "SOLOIST_SERVICE_PORT"].iter().any(|prefix| name.starts_with(prefix))
}

/// How many single-character edits lie between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        ["SOLOIST_LEASE", "SOLOIST_GROUP"].map(str::to_owned).to_vec()
    }

    #[test]
    fn misspelt_variable_is_named_with_its_nearest() {
        let warning = warning_about("SOLOIST_LEESE", &known()).unwrap();
        assert!(warning.contains("SOLOIST_LEASE"), "{warning}");
        assert!(!warning_about("SOLOIST_ENTIRELY_ELSE", &known()).unwrap().contains("meant"));
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        for name in ["SOLOIST_LEASE", "SOLOIST_ROLE", "SOLOIST_PORT", "SOLOIST_PORT_80_TCP", "SOLOIST_SERVICE_HOST"] {
            assert_eq!(warning_about(name, &known()), None, "{name}");
        }
    }
}
