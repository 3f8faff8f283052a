//! The table of contents of a schema archive, as the stock pg_restore reads it.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::model::archive_list::ArchiveList;

use super::error::{Error, ErrorKind};
use super::programs::Installation;

/// Lists the entries of an archive in the custom format, with what each needs.
pub async fn list(installation: &Installation, archive: &[u8]) -> Result<ArchiveList, Error> {
    const ON: &str = "the schema archive";
    let mut command = Command::new(installation.directory.join("pg_restore"));
    command.args(["--list", "--verbose"]).env("LC_ALL", "C");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let failed = |source| Error::program("pg_restore", ON, &source);
    let mut child = command.spawn().map_err(failed)?;
    let mut input = child.stdin.take();
    let feed = async {
        if let Some(input) = &mut input {
            // It stops reading at the end of the contents: that the pipe is broken then is no fault.
            let _ = input.write_all(archive).await;
        }
        drop(input);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(ArchiveList::parse(&String::from_utf8_lossy(&output.stdout)));
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let hint = "the archive may be damaged: restore-test the backup";
    Err(Error::new(
        "list the schema archive",
        ON,
        ErrorKind::Other,
        reason,
        hint,
    ))
}
