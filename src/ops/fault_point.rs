//! Places where tests of the debug build stop a run, to kill it or to change the world under it.

/// In a debug build with `ERNSTFALL_PAUSE_AT` set to `name`: says so on stderr and waits while the file
/// named by `ERNSTFALL_PAUSE_FILE` exists. Nothing in a release build.
pub(super) async fn pause(name: &'static str) {
    if !cfg!(debug_assertions) || std::env::var("ERNSTFALL_PAUSE_AT").as_deref() != Ok(name) {
        return;
    }
    let Some(file) = std::env::var_os("ERNSTFALL_PAUSE_FILE").map(std::path::PathBuf::from) else {
        return;
    };
    let said = std::io::Write::write_all(&mut std::io::stderr(), format!("paused at {name}\n").as_bytes());
    debug_assert!(said.is_ok(), "stderr is open in tests");
    while file.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
