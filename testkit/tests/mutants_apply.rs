//! A mutant that does not apply any more, or whose test is gone, would survive unnoticed until somebody runs them all.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// All files of Rust below a folder.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Fails unless what is said to catch a mutant is there.
fn can_run(root: &Path, how: &str) -> Result<()> {
    match how.split(' ').collect::<Vec<_>>()[..] {
        ["sim", "--fault", ..] => Ok(()),
        ["test", package, target, name] => {
            let files = match target {
                "lib" => sources(&root.join(package).join("src"))?,
                file => {
                    // With the modules that lie in a folder of its name.
                    let path = root.join(package).join("tests").join(file);
                    let mut files = if path.is_dir() { sources(&path)? } else { Vec::new() };
                    files.push(path.with_extension("rs"));
                    files
                }
            };
            let function = format!("fn {}(", name.rsplit("::").next().unwrap_or(name));
            let is_there = |path: &PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&function));
            ensure!(files.iter().any(is_there), "there is no test {name} in {package} {target}");
            Ok(())
        }
        _ => bail!("expected 'sim --fault ...' or 'test PACKAGE TARGET NAME', not '{how}'"),
    }
}

#[test]
fn every_mutant_still_applies_and_says_how_it_is_caught() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("testkit/mutants"))? {
        let patch = entry?.path();
        let text = std::fs::read_to_string(&patch)?;
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let how = field("caught by").with_context(|| patch.display().to_string())?;
        can_run(root, how).with_context(|| patch.display().to_string())?;
        ensure!(field("finding").is_some_and(|finding| !finding.is_empty()), "{}", patch.display());
        let check = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root).output()?;
        ensure!(check.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&check.stderr));
        count += 1;
    }
    ensure!(count >= 12, "only {count} mutants");
    Ok(())
}
