//! All groups of a folder are listed, each as `status` shows it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::group::{Group, binary};
use testkit::member::Member;
use testkit::scenario::{LIMIT, start};
use testkit::wait::wait_until;

fn list(words: &[&str]) -> Result<Output> {
    Command::new(binary("soloist")?).arg("list").args(words).output().context("failed to run soloist")
}

fn json(folder: &Path) -> Result<Value> {
    let output = list(&[&folder.display().to_string(), "-o", "json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("not JSON")
}

/// A group of two slots whose lock is in the folder of the first group.
fn beside(first: &Group) -> Result<Group> {
    let mut group = Group::unhurried()?;
    group.set_lock(first.folder().join("jobs.lock"));
    group.set_slots(2)?;
    Ok(group)
}

#[test]
fn groups_and_slots_of_a_folder_are_listed_as_status_shows_them() -> Result<()> {
    let group = Group::unhurried()?;
    let (_members, active) = start(&group, &["a", "b"], &[], &[])?;
    let jobs = beside(&group)?;
    let _workers = ["x", "y", "z"].map(|name| Member::spawn(&jobs, name, &[], &[]));
    wait_until("two slots to be taken, and all to announce themselves", LIMIT, || {
        json(group.folder()).is_ok_and(|list| {
            let counts = [0, 1].map(|at| list["groups"][at]["members"].as_array().map_or(0, Vec::len));
            list["groups"][1]["slots"][1]["state"] == "held" && counts == [2, 3]
        })
    })
    .with_context(|| format!("{:?}", json(group.folder())))?;

    let listed = json(group.folder())?;
    let groups = listed["groups"].as_array().context("no groups")?;
    let names: Vec<&str> = groups.iter().filter_map(|one| one["group"].as_str()).collect();
    assert_eq!((listed["schema"].as_u64(), names), (Some(1), vec!["app", "jobs"]));
    assert_eq!((&groups[0]["holder"], &groups[0]["fencing_token"]), (&"a".into(), &active.token.into()));
    let status =
        Command::new(binary("soloist")?).args(["status", "-o", "json", "--lock"]).arg(group.lock()).output()?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    for field in ["group", "lock", "state", "activation", "since", "lease", "reason"] {
        assert_eq!(groups[0][field], status[field], "{field}");
    }

    let output = list(&[&group.folder().display().to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[1][..5], ["app", "-", "a", &active.token.to_string(), "held"], "{text}");
    assert_eq!([lines[2][1], lines[3][1]], ["1/2", "2/2"], "{text}");
    Ok(())
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_shown() -> Result<()> {
    let group = Group::unhurried()?;
    let (_members, _) = start(&group, &["a"], &[], &[])?;
    // A record that leads in a circle: not even root reads it.
    let odd = group.folder().join("odd.lock.record");
    std::os::unix::fs::symlink(&odd, &odd)?;
    let output = list(&[&group.folder().display().to_string()])?;
    let (text, message) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code().is_some_and(|code| code == 69 || code == 77), "{:?} {message}", output.status);
    ensure!(text.contains("app.lock") && message.contains("odd.lock: "), "{text}\n{message}");
    assert_eq!(message.lines().filter(|line| line.starts_with("soloist: ")).count(), 1, "{message}");
    Ok(())
}

#[test]
fn where_there_is_no_group_it_says_so_and_leaves_with_0() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("other.lock"), "not ours")?;
    let place = folder.path();
    let output = list(&[&place.display().to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.trim() == format!("no group in {}", place.display()), "{text}");
    assert_eq!(json(folder.path())?["groups"], Value::Array(Vec::new()));
    Ok(())
}

#[test]
fn places_that_are_none_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let file = file.display().to_string();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["/nowhere/at/all"], 69, "there is no folder /nowhere/at/all"),
        (&["kubernetes://prod/app"], 64, "names one lock"),
        (&["http://x"], 64, "unknown scheme"),
        (&["-A", "/srv"], 64, "--all-namespaces"),
        (&[&file], 64, "failed to look for groups in"),
        (&["-A", "--kubeconfig", "/nowhere/config"], 78, "/nowhere/config"),
        (&["consul://127.0.0.1:1/app"], 69, "127.0.0.1:1"),
    ];
    for (words, code, about) in cases {
        let output = list(words)?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{words:?}: {:?} {message}", output.status);
        ensure!(message.starts_with("soloist: ") && message.contains(about), "{words:?}: {message}");
    }
    Ok(())
}
