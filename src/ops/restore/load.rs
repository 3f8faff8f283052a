//! Loading the rows: one data object at a time in each of several connections, nothing staged on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::model::contents::{Chunk, Contents, LoadStage, Table, TableName};
use crate::model::manifest::Object;
use crate::ops::context::Progress;
use crate::ops::fault_point::pause;
use crate::ops::script::{Piece, ScriptReader};
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::copy_in;
use crate::postgres::copy_out::load_statement;
use crate::postgres::identifier::Quoting;
use crate::postgres::session::Session;
use crate::postgres::silence::Silence;

use super::RestoreError;
use super::build::Powers;
use super::marker::Marker;
use super::source::Reader;

/// What the loading connections share.
pub(super) struct Load {
    pub(super) reader: Reader,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) connection: ConnectionSettings,
    pub(super) contents: Arc<Contents>,
    pub(super) stage: LoadStage,
    pub(super) powers: Powers,
    /// Only the rows of these tables of the contents, each into another table; all into their own where it is not given.
    pub(super) into: Option<BTreeMap<usize, Table>>,
    /// In a real restore: the objects that are in, each noted in the transaction that loaded it.
    pub(super) marker: Option<Marker>,
}

impl Load {
    /// The table that takes the rows of one of the contents' tables now; none where they are passed over.
    fn destination(&self, table: usize) -> Option<&Table> {
        match &self.into {
            Some(into) => into.get(&table),
            None => Some(&self.contents.tables[table]).filter(|table| table.load == self.stage),
        }
    }
}

/// Loads all objects that hold rows of the stage.
pub(super) async fn load(load: Load, objects: &[Object], jobs: usize) -> Result<(), RestoreError> {
    let mut by_object: BTreeMap<&str, Vec<Chunk>> = BTreeMap::new();
    for chunk in &load.contents.chunks {
        by_object.entry(&chunk.object).or_default().push(chunk.clone());
    }
    let done = match &load.marker {
        Some(marker) => marker.loaded_objects(load.stage).await?,
        None => Default::default(),
    };
    let of_stage = |chunks: &Vec<Chunk>| chunks.iter().any(|chunk| load.destination(chunk.table).is_some());
    let queue: VecDeque<(Object, Vec<Chunk>)> = objects
        .iter()
        .filter(|object| !done.contains(&object.key))
        .filter_map(|object| Some((object.clone(), by_object.get(object.key.as_str())?.clone())))
        .filter(|(_, chunks)| of_stage(chunks))
        .collect();
    let quiet = silence(&load).await?;
    // Whoever switches triggers off keeps the others from the tables.
    let jobs = if quiet.is_needed() { 1 } else { jobs };
    let jobs = jobs.clamp(1, queue.len().max(1));
    let (load, queue) = (Arc::new(load), Arc::new(Mutex::new(queue)));
    let quiet = Arc::new(quiet);
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        workers.spawn(worker(Arc::clone(&load), Arc::clone(&queue), Arc::clone(&quiet)));
    }
    while let Some(result) = workers.join_next().await {
        result??;
    }
    Ok(())
}

/// What keeps triggers from firing for rows that are loaded when the triggers are there already.
async fn silence(load: &Load) -> Result<Silence, RestoreError> {
    let late = |table: &&Table| table.load == LoadStage::AfterIndexes;
    let late: Vec<&Table> = load.contents.tables.iter().filter(late).collect();
    if load.stage != LoadStage::AfterIndexes || load.into.is_some() || late.is_empty() {
        return Ok(Silence::default());
    }
    let quoting = Quoting::for_encoding(&load.contents.database.encoding);
    let session = Session::connect(&load.connection, "restore", None).await?;
    let mut of_tables = Silence::default();
    for table in late {
        let itself = TableName {
            schema: table.schema.clone(),
            name: table.name.clone(),
        };
        for table in [&itself].into_iter().chain(&table.partitions) {
            of_tables
                .add_table(&session, &table.schema, &table.name, quoting)
                .await?;
        }
    }
    if !of_tables.is_needed() {
        return Ok(of_tables);
    }
    // Switching them off is a command that event triggers would see.
    let events = load.powers.silence(&session, quoting).await?;
    Ok(events.and(&of_tables))
}

type Queue = Mutex<VecDeque<(Object, Vec<Chunk>)>>;

async fn worker(load: Arc<Load>, queue: Arc<Queue>, quiet: Arc<Silence>) -> Result<(), RestoreError> {
    let encoding = &load.contents.database.encoding;
    let session = Session::connect(&load.connection, "restore", Some(encoding)).await?;
    session
        .batch("prepare the connection", load.powers.preparation())
        .await?;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((object, chunks)) = next else {
            return Ok(());
        };
        pause("before-object").await;
        load_object(&load, &session, &object, &chunks, &quiet).await?;
    }
}

/// Loads one object in one transaction: all of it or nothing.
async fn load_object(
    load: &Load,
    session: &Session,
    object: &Object,
    chunks: &[Chunk],
    quiet: &Silence,
) -> Result<(), RestoreError> {
    let mut reader = ScriptReader::new(load.reader.object(object).await?);
    let damaged = |what: String| RestoreError::Damaged {
        object: object.key.clone(),
        what,
    };
    let mut next_piece = || reader.next_piece().map_err(|error| damaged(error.to_string()));
    let quoting = Quoting::for_encoding(&load.contents.database.encoding);
    session.batch("begin", "BEGIN").await?;
    session.batch("switch triggers off", &quiet.before).await?;
    for chunk in chunks {
        let table = &load.contents.tables[chunk.table];
        let statement = load_statement(table, quoting);
        match next_piece()? {
            Some(Piece::Copy(found)) if found == statement => {}
            other => {
                return Err(damaged(format!(
                    "`{statement}` was expected, found {}",
                    describe(&other)
                )));
            }
        }
        let destination = load.destination(chunk.table);
        let copy = match destination {
            Some(into) => Some(copy_in::begin(session, &load_statement(into, quoting)).await?),
            None => None,
        };
        let loaded = load_rows(load, copy, &mut next_piece).await?;
        if destination.is_some() && loaded != Some(chunk.fingerprint.rows) {
            return Err(RestoreError::RowsLost {
                table: table.display_name(),
                loaded: loaded.unwrap_or(0),
                expected: chunk.fingerprint.rows,
            });
        }
    }
    if let Some(piece) = next_piece()? {
        return Err(damaged(format!(
            "more than the contents say: {}",
            describe(&Some(piece))
        )));
    }
    if load.marker.is_some() {
        session
            .batch("note the object", &Marker::note_object(load.stage, &object.key))
            .await?;
    }
    session.batch("switch triggers on", &quiet.after).await?;
    session.batch("commit", "COMMIT").await?;
    Ok(())
}

/// Sends the rows up to the end of the block, or passes over them. Returns how many the server took.
async fn load_rows(
    load: &Load,
    copy: Option<copy_in::CopyIn>,
    next_piece: &mut impl FnMut() -> Result<Option<Piece>, RestoreError>,
) -> Result<Option<u64>, RestoreError> {
    let mut copy = copy;
    loop {
        match next_piece()? {
            Some(Piece::Rows(rows)) => {
                if let Some(copy) = &mut copy {
                    let bytes = rows.len() as u64;
                    let count = memchr::memchr_iter(b'\n', &rows).count() as u64;
                    copy.send(rows).await?;
                    load.progress.rows(count, bytes);
                }
            }
            // The reader itself reports rows without an end.
            _ => {
                return match copy {
                    Some(copy) => Ok(Some(copy.finish().await?)),
                    None => Ok(None),
                };
            }
        }
    }
}

fn describe(piece: &Option<Piece>) -> String {
    match piece {
        None => "the end".to_owned(),
        Some(Piece::Copy(statement)) => format!("`{statement}`"),
        Some(Piece::Rows(_)) => "rows".to_owned(),
        Some(Piece::EndOfRows) => "the end of rows".to_owned(),
    }
}
