//! What a restart must not forget, in a file.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::alert::evaluation::Evaluation;
use crate::alert::outbox::Outbox;
use crate::store::durable::write_over;

const VERSION: u32 = 1;

/// Which alerts there are, and what waits to be told.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    pub(super) evaluation: Evaluation,
    pub(super) outbox: Outbox,
}

/// Where it is kept.
pub(super) struct File {
    path: PathBuf,
    /// What is on disk.
    saved: Vec<u8>,
}

impl File {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("alerts.json"),
            saved: Vec::new(),
        }
    }

    /// What was kept; nothing where it cannot be used. Telling everything again is better than telling nothing.
    pub(super) fn read(&self) -> Kept {
        let mut kept = self.parsed().unwrap_or_else(|fault| {
            let file = self.path.display();
            tracing::error!("{file} cannot be used, and alerts begin anew: {fault}");
            Kept::default()
        });
        kept.version = VERSION;
        kept
    }

    fn parsed(&self) -> Result<Kept, String> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(error) => return Err(error.to_string()),
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if kept.version > VERSION {
            return Err("a newer ernstfall has written it".to_owned());
        }
        Ok(kept)
    }

    /// Writes it, durably, where it has changed.
    pub(super) fn save(&mut self, kept: &Kept) {
        if let Err(error) = self.try_to_save(kept) {
            let file = self.path.display();
            tracing::error!(
                "keep the state of alerts in {file}: {error}; after a restart some may be told again"
            );
        }
    }

    fn try_to_save(&mut self, kept: &Kept) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(kept).map_err(io::Error::other)?;
        if bytes != self.saved {
            write_over(&self.path.with_file_name(".tmp"), &self.path, &bytes)?;
            self.saved = bytes;
        }
        Ok(())
    }
}
