//! Exit codes that depend on who one is.

use std::fs;

use anyhow::{Result, ensure};
use testkit::group::Group;
use testkit::root::{NOBODY, as_nobody, need_root};
use testkit::scenario::LIMIT;

#[test]
fn a_lock_that_may_not_be_written_is_77() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    need_root()?;
    let mut group = Group::new()?;
    group.give_to(NOBODY)?;
    let locked = group.folder().join("locked");
    fs::create_dir(&locked)?;
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755))?;
    group.set_lock(locked.join("app.lock"));
    let started = group.folder().join("started");
    let mut member = group.member("a").wrapper(as_nobody()).run(&["touch", &started.to_string_lossy()])?;
    assert_eq!(member.wait_exit_code(LIMIT)?, 77);
    ensure!(member.log().contains("locked"), "the path is not named: {}", member.log());
    ensure!(!started.exists() && fs::read_dir(&locked)?.next().is_none(), "something was started or left");
    Ok(())
}
