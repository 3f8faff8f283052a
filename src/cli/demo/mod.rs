//! `ernstfall demo`: everything on a throw-away database, by the same functions that the other commands call.
//!
//! All of it lies in one temporary directory, and goes with it: also after an error or a signal.

mod acts;
mod place;
mod shop;

use std::sync::Arc;

use anyhow::anyhow;
use chrono::Utc;
use serde::Serialize;

use crate::journal::Journal;
use crate::model::record::{BackupRecord, RestoreTestRecord};
use crate::model::target_name::TargetName;
use crate::ops::context::Context;
use crate::ops::keys::Keys;
use crate::postgres::programs::{Installation, Programs};
use crate::repository::Repository;
use crate::scratch::{Embedded, EmbeddedSettings, IsolationWanted};
use crate::store::directory::Directory;

use super::arguments::{Demo, Global};
use super::exit::{Exit, Failure};
use super::signals::Signals;
use super::{print, progress};
use place::Place;

/// What the demo has shown, for `--json`.
#[derive(Serialize)]
struct Story {
    backup: BackupRecord,
    restore_test: RestoreTestRecord,
    second_backup: BackupRecord,
    damaged_object: String,
    restore_test_of_damaged: RestoreTestRecord,
    /// Transactions that the shop committed while all this went on.
    live_writes: u64,
    slowest_live_write_seconds: f64,
}

/// What every act needs.
struct Stage<'a> {
    global: &'a Global,
    context: Context,
    place: &'a Place,
    source: &'a Embedded,
}

pub(super) async fn run(global: &Global, options: &Demo) -> Result<Exit, Failure> {
    let signals = Signals::listen().map_err(Failure::operation)?;
    let programs = find_programs()?;
    let place = Place::make().map_err(Failure::operation)?;
    let told = play(global, options, &signals, programs, &place).await;
    if options.keep {
        say(global, &format!("kept: {}", place.path().display()));
    } else {
        place.remove().map_err(Failure::operation)?;
    }
    // What a signal broke off failed for no other reason.
    if let Some(exit) = signals.exit() {
        return Ok(exit);
    }
    let story = told?;
    if global.json {
        print::json(&story).map_err(Failure::operation)?;
    } else {
        where_next();
    }
    Ok(Exit::Done)
}

/// Facts that a person watches; with `--json` they would be in the way of the JSON.
fn say(global: &Global, text: &str) {
    if global.json {
        print::talk(text);
    } else {
        print::text(text);
    }
}

fn find_programs() -> Result<Installation, Failure> {
    let needed = ["initdb", "postgres", "pg_dump", "pg_restore"];
    let found = Programs::find(None).into_iter().rfind(|one| one.has(&needed));
    found.ok_or_else(|| {
        Failure::operation(anyhow!(
            "the demo needs the programs of a PostgreSQL server, and found none: apt-get install postgresql"
        ))
    })
}

/// Sets the stage, plays, and clears it again.
async fn play(
    global: &Global,
    options: &Demo,
    signals: &Signals,
    programs: Installation,
    place: &Place,
) -> Result<Story, Failure> {
    say(
        global,
        &format!(
            "a private PostgreSQL {} for the shop, reached by nobody else",
            programs.version
        ),
    );
    let bin_dir = programs.directory.clone();
    let mut settings = EmbeddedSettings::new(place.scratch(), programs);
    settings.isolation = IsolationWanted::BestEffort;
    settings.run = "demo".to_owned();
    let source = Embedded::provision(settings, &signals.cancel)
        .await
        .map_err(Failure::operation)?;
    place.note_scratch_base(source.disk_path());
    let store = Arc::new(Directory::new(place.repository()));
    let target: TargetName = acts::TARGET.parse().map_err(Failure::operation)?;
    let told = async {
        let repository = Repository::open_or_create(store, Utc::now()).await;
        let context = Context {
            repository: Arc::new(repository.map_err(Failure::operation)?),
            journal: Arc::new(Journal::open(place.state()).map_err(Failure::operation)?),
            keys: Keys::default(),
            bin_dir: Some(bin_dir),
            progress: progress::display(global, &target),
            cancel: signals.cancel.clone(),
            deadline: None,
            state_dir: place.state(),
            clock: Utc::now,
        };
        acts::play(&Stage {
            global,
            context,
            place,
            source: &source,
        })
        .await
    }
    .await;
    if options.keep && signals.exit().is_none() {
        let kept = source.keep().await.map_err(Failure::operation)?;
        say(
            global,
            &format!(
                "kept: the shop's server in {}; start it with {}",
                kept.path.display(),
                kept.command
            ),
        );
    } else {
        source.remove().await.map_err(Failure::operation)?;
    }
    told
}

fn where_next() {
    print::text("");
    print::text("That is all there is to it. For a database of yours:");
    print::text("  ernstfall init           write a configuration");
    print::text("  ernstfall check          see that everything is in place");
    print::text("  ernstfall backup         take a backup");
    print::text("  ernstfall restore-test   restore it, compare it, measure it");
    print::text("README.md says more, and config/ernstfall.toml explains every setting.");
}
