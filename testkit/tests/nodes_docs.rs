//! What the documents show of Kubernetes is run, on two nodes with real pods.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use testkit::documents::{needs_a_cluster, root, shown_lines};
use testkit::group::binary;
use testkit::pods::{LIMIT, Pods, Seed};
use testkit::wait::wait_until;

#[test]
fn every_command_of_the_documents_for_kubernetes_works() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    copy_examples(&pods, seed.root())?;
    let is_member = |line: &str| line.starts_with("soloist run") || line.starts_with("soloist sidecar");
    let shown = shown_lines().into_iter().filter(|(_, line)| needs_a_cluster(line) && !is_member(line));
    let shown: Vec<_> = shown.collect();
    ensure!(shown.len() >= 10, "{shown:?}");
    symlink(binary("soloist")?, seed.root().join("kubectl-soloist"))?;
    for (document, line) in shown {
        works_soon(seed.root(), &line).with_context(|| format!("{document}: {line}{}", pods.logs()))?;
    }
    Ok(())
}

/// The examples as a reader has them in front, but with the image of the tests. What has none is copied as it is: kubectl
/// cannot read an object of a kind that the reader is only about to define.
fn copy_examples(pods: &Pods, to: &Path) -> Result<()> {
    for folder in ["examples/kubernetes", "examples/controller"] {
        let copies = to.join(folder);
        fs::create_dir_all(&copies)?;
        for entry in fs::read_dir(root().join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yml") {
                let name = path.file_name().context("a file without a name")?;
                let text = fs::read_to_string(&path)?;
                let has_image = text.contains("kind: Deployment");
                let text = if has_image { pods.fitted(&path, |_| {})? } else { text };
                fs::write(copies.join(name), text)?;
            }
        }
    }
    Ok(())
}

/// Runs a line until it succeeds: what it asks about may be a moment away.
fn works_soon(folder: &Path, line: &str) -> Result<()> {
    let mut last = None;
    let worked = wait_until("success", LIMIT, || {
        let output = run(folder, line);
        let success = output.as_ref().is_ok_and(|output| output.status.success());
        last = Some(output);
        success
    });
    worked.with_context(|| format!("{last:?}"))
}

fn run(folder: &Path, line: &str) -> Result<Output> {
    let kubectl = std::env::var("KUBECTL").context("no KUBECTL")?;
    let programs = [binary("soloist")?, kubectl.into()];
    let folders: Vec<_> = programs.iter().filter_map(|program| program.parent()).chain([folder]).collect();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().map(Path::to_owned).chain(std::env::split_paths(&rest)))?;
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder).env("PATH", path).stdin(Stdio::null());
    shell.output().context("failed to run a shell")
}
