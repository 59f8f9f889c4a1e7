//! How large a workload is and may become: what a kill costs depends on it.

use std::fs;
use std::path::PathBuf;

use super::process::children_of;

/// The kernel reports "no limit" in cgroup v1 as a number near the largest.
const NO_LIMIT: u64 = 1 << 60;

/// More processes than this are not counted: the largest trees are measured by their first members.
const PROCESSES_MAX: usize = 4096;

/// The memory limit that holds for this process and all it starts; nothing where there is none.
pub fn memory_limit_bytes() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    own.lines().filter_map(limit_of_line).min()
}

/// The smallest limit from the cgroup that a line of `/proc/self/cgroup` names up to the root of its hierarchy.
fn limit_of_line(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => (unified_root()?, "memory.max"),
        controllers if controllers.split(',').any(|name| name == "memory") => {
            (PathBuf::from("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let folder = root.join(path.trim_start_matches('/'));
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(&root));
    let limits = folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok());
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

fn unified_root() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|root| root.join("cgroup.controllers").exists())
}

/// Resident memory of the descendants of `pid`, in bytes. Processes that come and go meanwhile may be missed.
pub fn resident_bytes_below(pid: i32) -> u64 {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut open = children_of(pid);
    let mut pages = 0;
    let mut counted = 0;
    while let Some(pid) = open.pop() {
        counted += 1;
        if counted > PROCESSES_MAX {
            break;
        }
        pages += resident_pages(pid).unwrap_or(0);
        open.extend(children_of(pid));
    }
    pages * page
}

fn resident_pages(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_child_is_counted() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut bytes = 0;
        // A process that has just been started has no pages yet.
        while bytes <= 100_000 && std::time::Instant::now() < limit {
            bytes = resident_bytes_below(std::process::id().cast_signed());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(bytes > 100_000, "{bytes}");
    }

    #[test]
    fn line_without_memory_has_no_limit() {
        assert_eq!(limit_of_line("3:cpu:/x"), None);
        assert_eq!(limit_of_line("garbage"), None);
    }
}
