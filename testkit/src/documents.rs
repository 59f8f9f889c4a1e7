//! What the documents show, so that tests can try it.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The lines of all fenced blocks, with the document they stand in.
pub fn shown_lines() -> Vec<(String, String)> {
    let root = root();
    let mut documents = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let pages = fs::read_dir(root.join("docs")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort();
    documents.extend(pages);
    documents.iter().flat_map(|document| lines_of(document)).collect()
}

fn lines_of(document: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(document).unwrap_or_default();
    let name = document.display().to_string();
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.flat_map(|block| block.lines().skip(1)).map(|line| (name.clone(), line.trim().to_owned())).collect()
}

/// The lines that call `program`.
pub fn commands(program: &str) -> Vec<(String, String)> {
    let prefix = format!("{program} ");
    shown_lines().into_iter().filter(|(_, line)| line.starts_with(&prefix)).collect()
}

/// Whether a shown line can only be tried where a Consul is.
pub fn needs_consul(line: &str) -> bool {
    line.contains("consul://")
}

/// The metrics that only a controller has.
pub const OF_A_CONTROLLER: [&str; 4] = [
    "soloist_controller_groups",
    "soloist_controller_groups_in_trouble",
    "soloist_controller_groups_without_standby",
    "soloist_controller_groups_paused",
];

/// Whether a shown question is one for a controller.
pub fn asks_a_controller(line: &str) -> bool {
    line.starts_with("curl ") && (line.contains("/groups") || line.contains("with=groups"))
}

/// Whether a shown line can only be tried where a Kubernetes is.
pub fn needs_a_cluster(line: &str) -> bool {
    let is_of_soloist = line.starts_with("soloist ");
    line.starts_with("kubectl ")
        || line.contains("| kubectl ")
        || is_of_soloist && (line.contains("kubernetes://") || line.ends_with(" -A"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_manifest_is_no_command() {
        for line in ["ENTRYPOINT [\"soloist\", \"--lock\", \"kubernetes:///a\"]", "command: [run, \"kubernetes:///a\"]"]
        {
            assert!(!needs_a_cluster(line), "{line}");
        }
        for line in ["soloist list -A", "soloist status --lock kubernetes:///a", "a | kubectl apply -f -"] {
            assert!(needs_a_cluster(line), "{line}");
        }
    }
}
