//! The workload's command, looked at before anything is started.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use crate::error::{Code, Failure};

/// Where the C library looks when there is no PATH.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// Refuses a command that exec would refuse, or whose rights soloist could not take back.
///
/// # Errors
/// Why it could not be run, with the exit code of a shell.
pub fn check(command: &[OsString]) -> Result<(), Failure> {
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return Err(
            Failure::new(Code::Usage, "no command was given").hint("soloist run --lock PATH -- COMMAND ARGUMENTS")
        );
    };
    if command.iter().any(|argument| argument.as_bytes().contains(&0)) {
        return Err(Failure::new(Code::Usage, "an argument of the command contains a NUL byte"));
    }
    let path = find(program)?;
    check_privileges(&path)
}

/// The file that exec would take.
fn find(program: &OsStr) -> Result<PathBuf, Failure> {
    let shown = program.to_string_lossy();
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return match path.metadata() {
            Ok(metadata) if metadata.is_file() && access(&path, AccessFlags::X_OK).is_ok() => Ok(path),
            Ok(_) => Err(not_executable(&shown)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(not_executable(&shown)),
            Err(_) => Err(Failure::new(Code::NotFound, format!("command {shown:?} does not exist"))),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into());
    let mut is_there = false;
    for folder in std::env::split_paths(&folders) {
        let path = folder.join(program);
        if path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            is_there = true;
            if access(&path, AccessFlags::X_OK).is_ok() {
                return Ok(path);
            }
        }
    }
    if is_there {
        return Err(not_executable(&shown));
    }
    Err(Failure::new(Code::NotFound, format!("command {shown:?} was not found in PATH")).hint("give its full path"))
}

fn not_executable(shown: &str) -> Failure {
    Failure::new(Code::NotExecutable, format!("command {shown:?} is not an executable file")).hint("chmod +x")
}

/// A command that gains rights by exec could not be killed by its guard, and loses its parent-death signal.
fn check_privileges(path: &Path) -> Result<(), Failure> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    let is_setuid = path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o6000 != 0);
    let mut none = [0_u8; 0];
    let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut none).is_ok_and(|size| size > 0);
    if is_setuid || has_capabilities {
        let what = format!("command {} gains rights by being executed, and could not be killed", path.display());
        return Err(Failure::new(Code::Configuration, what).hint("run soloist with those rights instead"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(command: &[&str]) -> Option<Code> {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        check(&command).err().map(|failure| failure.code)
    }

    #[test]
    fn commands_are_found_as_exec_finds_them() {
        assert_eq!(code(&["sh", "-c", "true"]), None);
        assert_eq!(code(&["/bin/sh"]), None);
        assert_eq!(code(&[]), Some(Code::Usage));
        assert_eq!(code(&[""]), Some(Code::Usage));
        assert_eq!(code(&["no-such-command-anywhere"]), Some(Code::NotFound));
        assert_eq!(code(&["/no/such/file"]), Some(Code::NotFound));
        assert_eq!(code(&["/etc/passwd"]), Some(Code::NotExecutable));
        assert_eq!(code(&["/tmp"]), Some(Code::NotExecutable));
    }
}
