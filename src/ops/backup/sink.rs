//! From rows to stored objects, with at most one object being stored while the next one is filled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::encryption::Recipients;
use crate::model::backup_id::BackupId;
use crate::model::contents::{Chunk, LoadStage};
use crate::model::fingerprint::Fingerprint;
use crate::model::manifest::Object;
use crate::model::target_name::TargetName;
use crate::ops::context::Progress;
use crate::ops::packing::stored_name;
use crate::ops::script::{FinishedScript, ScriptWriter};
use crate::postgres::copy_out::{Room, RowSink};
use crate::repository::Repository;

use super::BackupError;
use super::pace::Pace;
use super::plan::Unit;
use super::puts::Puts;

/// What all sinks of one backup share.
pub(super) struct Stock {
    pub(super) repository: Arc<Repository>,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) target: TargetName,
    pub(super) id: BackupId,
    pub(super) recipients: Option<Arc<Recipients>>,
    pub(super) next_object: AtomicU64,
    /// Of those that are loaded after the indexes.
    pub(super) next_late_object: AtomicU64,
    pub(super) puts: Puts,
    pub(super) pace: Arc<Pace>,
    /// SET lines of each script.
    pub(super) header: Vec<u8>,
}

impl Stock {
    fn writer(&self, stage: LoadStage) -> ScriptWriter {
        let header = match stage {
            LoadStage::AfterIndexes => [LATE_COMMENT, &self.header].concat(),
            LoadStage::BeforeIndexes | LoadStage::Never => self.header.clone(),
        };
        ScriptWriter::new(header, self.recipients.clone())
    }

    /// The name of the next object. Rows that are loaded after the indexes are in a folder of their own, so that whoever
    /// restores by hand knows without reading the contents.
    fn next_name(&self, stage: LoadStage) -> String {
        let (folder, counter) = match stage {
            LoadStage::AfterIndexes => ("late-data", &self.next_late_object),
            LoadStage::BeforeIndexes | LoadStage::Never => ("data", &self.next_object),
        };
        let number = counter.fetch_add(1, Ordering::Relaxed);
        stored_name(&format!("{folder}/{number}.sql"), self.recipients.as_deref())
    }
}

/// The first line of what is loaded late.
const LATE_COMMENT: &[u8] =
    b"-- Load after the indexes and constraints are there: these rows may name them\n";

/// What a sink has stored.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) objects: Vec<Object>,
    pub(super) chunks: Vec<Chunk>,
    /// Of the rows with their generated columns, by table.
    pub(super) generated: BTreeMap<usize, Fingerprint>,
}

/// How many rows go by between two words to the progress display.
const ROWS_PER_REPORT: u64 = 4096;

/// One worker's way into the repository.
pub(super) struct Sink {
    stock: Arc<Stock>,
    /// Of all rows in the script that is being written.
    stage: LoadStage,
    writer: ScriptWriter,
    storing: Option<JoinHandle<Result<Object, BackupError>>>,
    storing_parts: Vec<(usize, Fingerprint)>,
    stored: Stored,
    /// Of the table that is being read, if it has generated columns.
    generated: Option<Fingerprint>,
    unreported: (u64, u64),
    /// The script has grown as long as one may be.
    full: bool,
    /// No row is to be read before this.
    pause_until: Option<Instant>,
}

impl Sink {
    pub(super) fn new(stock: Arc<Stock>) -> Self {
        let stage = LoadStage::BeforeIndexes;
        Self {
            writer: stock.writer(stage),
            stock,
            stage,
            storing: None,
            storing_parts: Vec::new(),
            stored: Stored::default(),
            generated: None,
            unreported: (0, 0),
            full: false,
            pause_until: None,
        }
    }

    /// Begins the rows of a unit; those of two stages share no object.
    pub(super) async fn begin_table(&mut self, unit: &Unit) -> Result<(), BackupError> {
        if self.stage != unit.stage {
            self.cut().await?;
            self.stage = unit.stage;
            self.writer = self.stock.writer(unit.stage);
        }
        self.writer.begin_table(unit.table, unit.load_statement.clone());
        self.generated = (!unit.source.generated.is_empty()).then(Fingerprint::default);
        Ok(())
    }

    pub(super) fn end_table(&mut self, unit: &Unit) {
        self.writer.end_table();
        if let Some(generated) = self.generated.take() {
            let sum = self.stored.generated.entry(unit.table).or_default();
            sum.merge(generated);
        }
        self.report();
    }

    fn report(&mut self) {
        let (rows, bytes) = std::mem::take(&mut self.unreported);
        self.stock.progress.rows(rows, bytes);
    }

    /// Stores what was written so far.
    async fn cut(&mut self) -> Result<(), BackupError> {
        self.full = false;
        match self.writer.cut().map_err(unpacked)? {
            Some(script) => self.store(script).await,
            None => Ok(()),
        }
    }

    async fn store(&mut self, script: FinishedScript) -> Result<(), BackupError> {
        self.settle().await?;
        let stock = Arc::clone(&self.stock);
        let name = stock.next_name(self.stage);
        self.storing_parts = script.parts;
        let puts = stock.puts.clone();
        self.storing = Some(puts.spawn(async move {
            stock
                .repository
                .put_object(&stock.target, &stock.id, &name, script.bytes)
                .await
        }));
        Ok(())
    }

    /// Waits for the object that is being stored.
    async fn settle(&mut self) -> Result<(), BackupError> {
        let Some(storing) = self.storing.take() else {
            return Ok(());
        };
        let object = storing.await??;
        let parts = std::mem::take(&mut self.storing_parts);
        let chunk = |(table, fingerprint)| Chunk {
            object: object.key.clone(),
            table,
            fingerprint,
        };
        self.stored.chunks.extend(parts.into_iter().map(chunk));
        self.stored.objects.push(object);
        Ok(())
    }

    /// Stores what is left.
    pub(super) async fn finish(mut self) -> Result<Stored, BackupError> {
        self.cut().await?;
        self.settle().await?;
        Ok(std::mem::take(&mut self.stored))
    }
}

fn unpacked(error: std::io::Error) -> BackupError {
    BackupError::Pack("the rows".to_owned(), error)
}

#[async_trait::async_trait]
impl RowSink for Sink {
    type Error = BackupError;

    fn row(&mut self, row: &[u8], whole: &[u8]) -> Result<Room, BackupError> {
        if let Some(generated) = &mut self.generated {
            generated.add_row(whole);
        }
        self.unreported.0 += 1;
        self.unreported.1 += row.len() as u64 + 1;
        if self.unreported.0 >= ROWS_PER_REPORT {
            self.report();
        }
        self.full = self.writer.row(row).map_err(unpacked)?;
        self.pause_until = self.stock.pace.note(whole.len() as u64 + 1);
        let room = if self.full || self.pause_until.is_some() {
            Room::Full
        } else {
            Room::More
        };
        Ok(room)
    }

    async fn drain(&mut self) -> Result<(), BackupError> {
        if self.full {
            self.cut().await?;
        }
        if let Some(until) = self.pause_until.take() {
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }
}
