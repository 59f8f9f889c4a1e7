//! By a file, which is replaced as a whole: whoever reads it never finds half a notice.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Notice;

/// Everybody may read which part a member plays.
const MODE: u32 = 0o644;

/// Writes it once.
pub fn tell(path: &Path, notice: &Notice) -> Result<(), String> {
    replace(path, &notice.text()?).map_err(|error| format!("failed to write {}: {error}", path.display()))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = tempfile::Builder::new().permissions(Permissions::from_mode(MODE)).tempfile_in(folder)?;
    writeln!(draft, "{text}")?;
    draft.persist(path).map(drop).map_err(|error| error.error)
}
