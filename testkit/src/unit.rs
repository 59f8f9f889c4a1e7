//! The unit for systemd, read as systemd would: what it runs, and with which variables.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A template of a unit.
#[derive(Clone, Debug)]
pub struct Unit(String);

impl Unit {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self> {
        fs::read_to_string(path).map(Self).with_context(|| format!("failed to read {}", path.display()))
    }

    /// The value of a setting, for this instance.
    pub fn setting(&self, name: &str, instance: &str) -> Result<String> {
        let prefix = format!("{name}=");
        let value = self.0.lines().find_map(|line| line.strip_prefix(&prefix)).context(prefix.clone())?;
        Ok(value.replace("%i", instance))
    }

    /// Whether it says anything of this setting.
    pub fn has(&self, name: &str) -> bool {
        self.setting(name, "").is_ok()
    }

    /// A shell's script that does what an instance with this file of variables does. The file goes before the unit.
    pub fn script(&self, instance: &str, variables: &Path) -> Result<String> {
        let file = fs::read_to_string(variables).with_context(|| format!("failed to read {}", variables.display()))?;
        let own = self.setting("Environment", instance)?;
        let set = [own.as_str()].into_iter().chain(file.lines().filter(|line| !line.starts_with('#')));
        let exports = set.filter_map(|line| line.split_once('='));
        let exports: String = exports.map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        Ok(format!("{exports}exec {}\n", self.setting("ExecStart", instance)?))
    }
}
