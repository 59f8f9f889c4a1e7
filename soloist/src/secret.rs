//! Files with one secret in them. Read anew each time, so that they can be replaced under a running member.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NONBLOCK;

/// No secret is longer.
const BYTES_MAX: u64 = 4096;

/// The secret in a file, without the blanks around it. It may be empty.
///
/// # Errors
/// Not a regular file, too long, or unreadable.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe in its place must not be waited for.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(bytes.trim_ascii().to_vec())
}
