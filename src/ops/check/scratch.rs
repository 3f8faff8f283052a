//! The scratch server: is there room for the copy, does a server start, and how far is it shut off?

use std::path::Path;
use std::time::Instant;

use crate::ops::restore::lacks;
use crate::ops::target::Target;
use crate::postgres::programs::{Installation, Programs};
use crate::scratch::{Embedded, EmbeddedSettings, IsolationReport, IsolationWanted, ScratchError};

use super::source::Found;
use super::{Lines, Surroundings, TriedScratches};

/// Whether the disk has room for the copy.
pub(super) fn room(target: &Target, found: &Found, lines: &mut Lines) {
    let directory = &target.scratch_directory;
    // It is made at first use: the nearest that exists says how much room there is.
    let existing = directory
        .ancestors()
        .find(|one| one.exists())
        .unwrap_or(Path::new("/"));
    match lacks::space_for(existing, found.database.size_bytes) {
        Ok(None) => lines.ok(
            "scratch space",
            format!("room for the copy of {} MB", found.database.size_bytes >> 20),
        ),
        Ok(Some(lack)) => lines.failed(
            "scratch space",
            lack,
            format!(
                "df {}, then free some space or set scratch.directory to a larger disk",
                existing.display()
            ),
        ),
        Err(error) => lines.failed(
            "scratch space",
            format!("cannot tell how much is free in {}: {error}", existing.display()),
            format!("df {}", existing.display()),
        ),
    }
}

/// Makes a scratch cluster for a moment, as a restore test would. Targets with equal settings share one.
pub(super) async fn check(
    surroundings: &Surroundings,
    target: &Target,
    found: Option<&Found>,
    tried: &mut TriedScratches,
    lines: &mut Lines,
) {
    let bin_dir = surroundings.bin_dir.as_deref();
    let programs = match found {
        Some(found) => Programs::server_for(bin_dir, found.major()).ok(),
        None => newest_server(bin_dir),
    };
    // That there are none is said in a line of its own.
    let Some(programs) = programs else { return };
    let mut settings = EmbeddedSettings::new(target.scratch_directory.clone(), programs);
    settings.isolation = target.isolation;
    settings.user = target.scratch_user.clone();
    settings.run = format!("check-{}", target.name);
    if let Some(found) = found {
        settings.superuser = found.database.bootstrap_role.clone();
    }
    let key = format!(
        "{:?}",
        (
            &settings.base,
            &settings.programs.directory,
            settings.isolation,
            &settings.user,
            &settings.superuser
        )
    );
    if !tried.0.contains_key(&key) {
        let mut own = Lines::of("");
        provision(surroundings, settings, &mut own).await;
        if let Some(line) = own.lines.pop() {
            tried.0.insert(key.clone(), line);
        }
    }
    if let Some(line) = tried.0.get(&key) {
        lines.add("scratch", line.result, line.message.clone(), line.remedy.clone());
    }
}

fn newest_server(bin_dir: Option<&Path>) -> Option<Installation> {
    let found = Programs::find(bin_dir);
    found.into_iter().rfind(|one| one.has(&["initdb", "postgres"]))
}

/// Adds one line.
async fn provision(surroundings: &Surroundings, settings: EmbeddedSettings, lines: &mut Lines) {
    let wanted = settings.isolation;
    let began = Instant::now();
    let embedded = match Embedded::provision(settings, &surroundings.cancel).await {
        Ok(embedded) => embedded,
        Err(error) => {
            let (message, remedy) = split(&error);
            lines.failed("scratch", message, remedy);
            return;
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let message = format!(
        "PostgreSQL {} answered after {seconds:.1} s; {}",
        embedded.server_version(),
        isolation(embedded.isolation())
    );
    let is_shut = embedded.isolation().isolated;
    let place = embedded.disk_path().to_owned();
    let removed = embedded.remove().await;
    if let Err(error) = removed {
        lines.warning(
            "scratch",
            format!("{message}; but {error}"),
            format!("rm -r {}", place.display()),
        );
    } else if place.exists() {
        lines.warning(
            "scratch",
            format!("{message}; but it left {}", place.display()),
            format!("rm -r {}", place.display()),
        );
    } else if is_shut || wanted == IsolationWanted::None {
        lines.ok("scratch", message);
    } else {
        lines.warning(
            "scratch",
            message,
            "set isolation = \"required\" under [scratch], and `ernstfall check` says what the system has to allow",
        );
    }
}

/// These errors end with what to do, behind the last semicolon but for those that list several ways.
fn split(error: &ScratchError) -> (String, String) {
    let text = crate::ops::chain(error);
    match error {
        ScratchError::MissingLayer { remedy, .. } | ScratchError::Open { remedy, .. } => {
            (text.replace(&format!("; {remedy}"), ""), remedy.clone())
        }
        _ => match text.split_once("; ") {
            Some((message, remedy)) => (message.to_owned(), remedy.to_owned()),
            None => (text, "look at the scratch directory, and try again".to_owned()),
        },
    }
}

fn isolation(report: &IsolationReport) -> String {
    let layers = if report.layers.is_empty() {
        "none".to_owned()
    } else {
        report.layers.join(", ")
    };
    let open = report.open();
    let probe = if open.is_empty() {
        format!(
            "the probe tried {} ways out and found none open",
            report.probe.len()
        )
    } else {
        format!("the probe found open: {}", open.join(", "))
    };
    format!("layers: {layers}; {probe}")
}
