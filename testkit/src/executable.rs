//! Programs that a test makes and then runs. They are written by a process of their own: while this one had them open to
//! write, a thread beside it could start a child, and until that child runs its own program it holds the file open too.
//! Whoever runs the file then is refused ("Text file busy").

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Writes a script that all may run.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut draft = tempfile::NamedTempFile::new().context("failed to draft a script")?;
    draft.write_all(text.as_bytes()).context("failed to draft a script")?;
    copy(draft.path(), path)
}

/// Copies a program, for all to run.
///
/// # Errors
/// It cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let output =
        Command::new("install").args(["-m", "755"]).args([from, to]).output().context("failed to run install")?;
    ensure!(output.status.success(), "failed to copy {} to {}: {output:?}", from.display(), to.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_was_written_runs_while_others_start_children() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let _ = Command::new("true").status();
                    }
                });
            }
            let all = (0..200).try_for_each(|round| {
                let path = folder.path().join(format!("script-{round}"));
                write(&path, "#!/bin/sh\n")?;
                let status = Command::new(&path).status().with_context(|| format!("round {round}"))?;
                ensure!(status.success(), "{status}");
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            all
        })
    }
}
