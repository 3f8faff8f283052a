//! The state directory: may we write there, and is there room?

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::journal::Journal;
use crate::store::random::random_hexadecimal;

use super::{CheckLine, Lines};

/// Journal and locks are small; with less than this even they may soon not fit.
const SPACE_WARNING_BYTES: u64 = 256 << 20;

/// Whether the journal can be kept. Makes the directory, as the first backup would.
pub fn state_directory(directory: &Path) -> Vec<CheckLine> {
    let mut lines = Lines::of("state");
    let shown = directory.display();
    if let Err(error) = Journal::open(directory) {
        lines.failed(
            "directory",
            crate::ops::chain(&error),
            format!("mkdir -p {shown} && chmod 700 {shown}, owned by the user that runs ernstfall; or set `state_dir`"),
        );
        return lines.lines;
    }
    match probe_file(directory) {
        Ok(()) => lines.ok("directory", format!("{shown} can be written")),
        Err(error) => lines.failed(
            "directory",
            format!("cannot write in {shown}: {error}"),
            format!("give {shown} to the user that runs ernstfall, or set `state_dir`"),
        ),
    }
    private(directory, &mut lines);
    space(directory, &mut lines);
    lines.lines
}

fn probe_file(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".check-{}", random_hexadecimal::<8>()?));
    let written = File::create_new(&path).and_then(|mut file| io::Write::write_all(&mut file, b"probe"));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

pub(super) fn private(directory: &Path, lines: &mut Lines) {
    let shown = directory.display();
    let Ok(found) = directory.metadata() else {
        return;
    };
    match found.permissions().mode() & 0o777 {
        mode if mode & 0o077 == 0 => lines.ok("permissions", format!("{shown} is private (mode {mode:04o})")),
        mode => lines.warning(
            "permissions",
            format!("others may look into {shown} (mode {mode:04o})"),
            format!("chmod 700 {shown}"),
        ),
    }
}

pub(super) fn space(directory: &Path, lines: &mut Lines) {
    let shown = directory.display();
    match nix::sys::statvfs::statvfs(directory) {
        Ok(found) => {
            let free = found.blocks_available() * found.fragment_size();
            let message = format!("{} MB free in {shown}", free >> 20);
            if free < SPACE_WARNING_BYTES {
                lines.warning("space", message, "free some space, or move it to a larger disk");
            } else {
                lines.ok("space", message);
            }
        }
        Err(error) => lines.warning(
            "space",
            format!("cannot tell how much is free in {shown}: {error}"),
            format!("df {shown}"),
        ),
    }
}
