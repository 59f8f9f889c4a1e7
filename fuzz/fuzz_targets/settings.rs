//! What people type: lock URL, group, name and two durations, one a line. All of it is refused or understood.
#![no_main]

use std::time::Duration;

use election::{LEASE_MAX, OnExit, OnLoss};
use libfuzzer_sys::fuzz_target;
use soloist::settings::{Raw, Settings};

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let raw = Raw {
        // Always given: without it a folder would be created.
        lock: Some(next()),
        lease: next(),
        stop_grace: next(),
        name: Some(next()),
        group: Some(next()).filter(|group| !group.is_empty()),
        command: vec!["/bin/sh".into()],
        ..Raw::default()
    };
    match Settings::new(raw, OnExit::Exit, OnLoss::Standby) {
        Ok(settings) => {
            assert!(settings.lock.is_absolute() && !settings.lock_is_default);
            assert!(!settings.name.is_empty() && settings.name.len() <= 253);
            assert!(settings.timing.slack().is_some());
            assert!(settings.stop_grace > Duration::ZERO && settings.stop_grace <= LEASE_MAX);
        }
        Err(failure) => assert!(!failure.message.is_empty()),
    }
});
