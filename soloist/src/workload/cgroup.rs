//! A cgroup v2 for each activation, where one is writable.
