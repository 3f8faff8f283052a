//! All records there are, read one by one: of years, only those are kept that still say something.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::journal::{ChainProblem, Error, Journal};
use crate::model::record::Entry;
use crate::model::target_name::TargetName;
use crate::observe::window::{Forgotten, Window};
use crate::repository::{Manifests, Repository};

/// What whole chains said.
pub(super) struct Whole {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) problems: Vec<ChainProblem>,
    pub(super) forgotten: Forgotten,
    /// The newest record of each chain.
    pub(super) read: BTreeMap<String, u64>,
}

impl Whole {
    /// The records on this machine, while no backup is known that they might speak of.
    pub(super) fn here(journal: &Journal) -> Result<Self, Error> {
        let nothing = BTreeMap::new();
        let mut window = Window::new(&nothing);
        let problems = journal.read(&mut |entry| window.hear(entry))?;
        Ok(Self::of(window, problems))
    }

    /// The records of all machines, for the backups that there are.
    pub(super) async fn everywhere(
        journal: &Journal,
        repository: &Repository,
        manifests: &BTreeMap<TargetName, Arc<Manifests>>,
    ) -> Result<Self, Error> {
        let mut window = Window::new(manifests);
        let mut listener = |entry| window.hear(entry);
        let problems = journal.read_with(repository, &mut listener).await?;
        Ok(Self::of(window, problems))
    }

    fn of(window: Window<'_>, problems: Vec<ChainProblem>) -> Self {
        let (entries, forgotten, mut read) = window.into_kept();
        // A record that cannot be read is not looked at again and again.
        for problem in &problems {
            let read = read.entry(problem.chain.clone()).or_default();
            *read = problem.sequence.max(*read);
        }
        Self {
            entries,
            problems,
            forgotten,
            read,
        }
    }
}
