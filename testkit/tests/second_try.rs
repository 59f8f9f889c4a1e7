//! `scripts/tests` gives a test that waited in vain a second try, and no other: a stand-in for cargo says what happened.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use tempfile::TempDir;
use testkit::executable;

const VAIN: &str = "Error: waited 20s in vain for a stamp";

/// What cargo prints of tests of which these failed, with what they said.
fn failed(tests: &[(&str, &str)]) -> String {
    let lines = tests.iter().map(|(name, _)| format!("test {name} ... FAILED\n"));
    let sections = tests.iter().map(|(name, said)| format!("---- {name} stdout ----\n{said}\n\n"));
    let names = tests.iter().map(|(name, _)| format!("    {name}\n"));
    let [lines, sections, names] = [lines.collect::<String>(), sections.collect(), names.collect()];
    format!("{lines}\nfailures:\n\n{sections}\nfailures:\n{names}\ntest result: FAILED. 1 passed\n")
}

/// A copy of the script beside a cargo that says these things, one with each call, and fails with all but the last.
struct Site(TempDir);

impl Site {
    fn new(says: &[&str], last_passes: bool) -> Result<Self> {
        let folder = TempDir::new()?;
        for name in ["scripts", "bin"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/tests");
        executable::copy(&script, &folder.path().join("scripts/tests"))?;
        for (index, text) in says.iter().enumerate() {
            fs::write(folder.path().join(format!("says-{}", index + 1)), text)?;
        }
        let passes = if last_passes { says.len() } else { 0 };
        let cargo = format!(
            "#!/bin/bash\necho \"$*\" >> calls\nn=$(wc -l < calls)\ncat \"says-$n\"\n[ \"$n\" = {passes} ] || exit 101\n"
        );
        executable::write(&folder.path().join("bin/cargo"), &cargo)?;
        Ok(Self(folder))
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let path = format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH")?);
        Ok(Command::new(self.0.path().join("scripts/tests")).args(arguments).env("PATH", path).output()?)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
    }
}

#[test]
fn what_waited_in_vain_is_tried_once_more_by_itself_and_named() -> Result<()> {
    let site = Site::new(&[&failed(&[("a::b", VAIN)]), "test a::b ... ok\n"], true)?;
    let output = site.run(&["-p", "x", "--", "--test-threads=4"])?;
    assert!(output.status.success(), "{output:?}");
    let calls = "test --no-fail-fast -p x -- --test-threads=4\n\
                 test --no-fail-fast -p x -- --test-threads=4 --exact a::b\n";
    assert_eq!(site.read("calls"), calls);
    assert_eq!(site.read("target/second-tries"), "a::b\n");
    Ok(())
}

#[test]
fn what_waits_in_vain_twice_has_failed() -> Result<()> {
    let said = failed(&[("a", VAIN)]);
    let site = Site::new(&[&said, &said], false)?;
    assert_eq!(site.run(&["-p", "x"])?.status.code(), Some(101));
    assert_eq!(site.read("calls").lines().count(), 2);
    assert_eq!(site.read("target/second-tries"), "");
    Ok(())
}

#[test]
fn what_saw_something_wrong_has_failed_at_once() -> Result<()> {
    let wrong = [
        failed(&[("a", "Error: 1 violations:\noverlap of 4 us: token 1 of a")]),
        failed(&[("a", &format!("Error: 1 violations:\noverlap of 4 us\n{VAIN}"))]),
        failed(&[("a", "assertion `left == right` failed")]),
        failed(&[("a", VAIN), ("b", "assertion failed: took too long")]),
        failed(&[("a", VAIN), ("b", VAIN), ("c", VAIN)]),
        "error[E0425]: cannot find value\n".to_owned(),
    ];
    for said in wrong {
        let site = Site::new(&[&said, "test a ... ok\n"], true)?;
        assert_eq!(site.run(&[])?.status.code(), Some(101), "{said}");
        assert_eq!(site.read("calls").lines().count(), 1, "{said}");
    }
    Ok(())
}

#[test]
fn a_second_try_that_runs_nothing_has_failed() -> Result<()> {
    let site = Site::new(&[&failed(&[("a", VAIN)]), "running 0 tests\n"], true)?;
    assert_eq!(site.run(&[])?.status.code(), Some(1));
    Ok(())
}
