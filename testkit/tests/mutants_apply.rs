//! A mutant that does not apply any more would survive unnoticed until somebody runs them all.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

#[test]
fn every_mutant_still_applies_and_says_how_it_is_caught() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("testkit/mutants"))? {
        let patch = entry?.path();
        let text = std::fs::read_to_string(&patch)?;
        ensure!(text.contains("\ncaught by: ") && text.contains("\nfinding: "), "{}", patch.display());
        let check = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root).output()?;
        ensure!(check.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&check.stderr));
        count += 1;
    }
    ensure!(count >= 12, "only {count} mutants");
    Ok(())
}
