//! `soloist install`: puts this binary into a folder, for containers whose image has none. An image with nothing but soloist
//! has no other program that could.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Code, Failure};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder: a volume that another container mounts
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes FOLDER/soloist, and returns the exit code.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    let folder = &arguments.folder;
    install(folder).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::Permission,
            _ => Code::Configuration,
        };
        Failure::new(code, format!("failed to write a binary to {}: {error}", folder.display()))
            .hint("name a folder that is there and that this user may write to, such as a mounted emptyDir")
    })?;
    Ok(0)
}

/// Whoever starts it meanwhile gets the old one or the new one, and never a part.
fn install(folder: &Path) -> io::Result<PathBuf> {
    let mut new = tempfile::Builder::new().prefix(".soloist-").tempfile_in(folder)?;
    io::copy(&mut fs::File::open("/proc/self/exe")?, &mut new)?;
    new.as_file().set_permissions(Permissions::from_mode(0o755))?;
    new.as_file().sync_all()?;
    let path = folder.join("soloist");
    new.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_there_whole_and_executable_also_in_the_place_of_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let path = install(folder.path()).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
            assert_eq!(fs::read(&path).unwrap(), fs::read("/proc/self/exe").unwrap());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            fs::write(path, "older").unwrap();
        }
    }

    #[test]
    fn what_is_no_folder_is_refused_with_a_way_out() {
        let refused = main(&Arguments { folder: "/proc/self/nowhere".into() }).unwrap_err();
        assert!(refused.code == Code::Configuration && refused.hint.is_some(), "{refused}");
    }
}
