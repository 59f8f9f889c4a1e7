//! Unsafe code is in one file, and all of it was looked at.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::documents::root;

const AUDITED: &str = "soloist/src/workload/sys.rs";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {folder:?}"))? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn nothing_but_the_audited_file_may_be_unsafe() -> Result<()> {
    let mut found = Vec::new();
    for package in ["bench", "election", "fuzz/fuzz_targets", "model", "soloist", "testkit"] {
        sources(&root().join(package), &mut found)?;
    }
    ensure!(found.len() > 100, "{}", found.len());
    // The compiler denies it wherever this is not said.
    let permission = concat!("allow(unsafe", "_code");
    for path in found {
        let permits = fs::read_to_string(&path)?.contains(permission);
        ensure!(permits == path.ends_with(AUDITED), "{path:?}");
    }
    ensure!(fs::read_to_string(root().join("Cargo.toml"))?.contains("\nunsafe_code = \"deny\"\n"));
    Ok(())
}

#[test]
fn the_audit_is_of_what_is_there() -> Result<()> {
    let source = fs::read_to_string(root().join(AUDITED))?;
    let count = |what: &str| {
        let code = source.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        code.map(|line| line.matches(what).count()).sum::<usize>()
    };
    let (blocks, functions, implementations) = (count("unsafe {"), count("unsafe fn "), count("unsafe impl "));
    let audited = format!("{blocks} blocks, {functions} functions and {implementations} implementations");
    let page = fs::read_to_string(root().join("docs/unsafe.md"))?;
    ensure!(page.contains(&audited), "{AUDITED} has {audited}: look at what has changed, and say so in docs/unsafe.md");
    Ok(())
}
