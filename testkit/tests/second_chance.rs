//! `scripts/tests` gives a test that failed a second chance, unless it saw a rule broken: a stand-in for cargo says what
//! happened.

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

/// A copy of the script beside a cargo that says these things, one with each call, and fails in the calls named.
struct Site(TempDir);

impl Site {
    fn new(says: &[&str], fails: &[usize]) -> Result<Self> {
        let folder = TempDir::new()?;
        for name in ["scripts", "bin"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/tests");
        executable::copy(&script, &folder.path().join("scripts/tests"))?;
        for (index, text) in says.iter().enumerate() {
            fs::write(folder.path().join(format!("says-{}", index + 1)), text)?;
        }
        let fails: String = fails.iter().map(|call| format!("{call}) exit 101 ;; ")).collect();
        let cargo =
            format!("#!/bin/bash\necho \"$*\" >> calls\nn=$(wc -l < calls)\ncat \"says-$n\"\ncase $n in {fails}esac\n");
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
fn what_passes_three_times_by_itself_has_passed_and_is_named() -> Result<()> {
    for said in [VAIN, "assertion `left == right` failed", "Error: Text file busy (os error 26)"] {
        let passed = "test a::b ... ok\n";
        let site = Site::new(&[&failed(&[("a::b", said)]), passed, passed, passed], &[1])?;
        let output = site.run(&["-p", "x", "--", "--test-threads=4"])?;
        assert!(output.status.success(), "{output:?}");
        let again = "test --no-fail-fast -p x -- --test-threads=4 --exact a::b\n";
        assert_eq!(site.read("calls"), format!("test --no-fail-fast -p x -- --test-threads=4\n{}", again.repeat(3)));
        assert_eq!(site.read("target/second-chances"), "a::b\n");
    }
    Ok(())
}

#[test]
fn what_fails_once_more_has_failed() -> Result<()> {
    let (said, passed) = (failed(&[("a", VAIN)]), "test a ... ok\n");
    for passes in 0..3 {
        let mut says = vec![said.as_str()];
        says.extend(vec![passed; passes]);
        says.push(&said);
        let site = Site::new(&says, &[1, says.len()])?;
        assert_eq!(site.run(&["-p", "x"])?.status.code(), Some(101));
        assert_eq!(site.read("calls").lines().count(), says.len());
        assert_eq!(site.read("target/second-chances"), "");
    }
    Ok(())
}

#[test]
fn what_saw_a_rule_broken_has_failed_at_once() -> Result<()> {
    let wrong = [
        failed(&[("a", "Error: 1 violations:\noverlap of 4 us: token 1 of a")]),
        failed(&[("a", &format!("Error: 1 violations:\noverlap of 4 us\n{VAIN}"))]),
        failed(&[("a", VAIN), ("b", "Error: 1 violations:\ntoken 3 after 4")]),
        failed(&[("a", VAIN), ("b", VAIN), ("c", VAIN)]),
        "error[E0425]: cannot find value\n".to_owned(),
    ];
    for said in wrong {
        let site = Site::new(&[&said, "test a ... ok\n"], &[1])?;
        assert_eq!(site.run(&[])?.status.code(), Some(101), "{said}");
        assert_eq!(site.read("calls").lines().count(), 1, "{said}");
    }
    Ok(())
}

#[test]
fn a_second_chance_in_which_nothing_runs_has_failed() -> Result<()> {
    let site = Site::new(&[&failed(&[("a", VAIN)]), "running 0 tests\n"], &[1])?;
    assert_eq!(site.run(&[])?.status.code(), Some(1));
    Ok(())
}
