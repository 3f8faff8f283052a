//! Chains as they are read: records are handed on one by one, and what is wrong with them is noted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::journal::history::{ChainProblem, Listener};
use crate::model::record::Entry;
use crate::repository::records::RecordPlace;
use crate::repository::sha256_hex;

/// Chains as they are read, record by record in their order.
pub(super) struct Reading<'a> {
    listener: &'a mut Listener<'a>,
    /// The record before, as it is stored.
    before: Option<(RecordPlace, Bytes)>,
    problems: Vec<ChainProblem>,
    /// Problems, of which nothing was heard since.
    open: BTreeMap<RecordPlace, Vec<String>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(listener: &'a mut Listener<'a>) -> Self {
        Self {
            listener,
            before: None,
            problems: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    pub(super) fn note(&mut self, chain: &str, sequence: u64, reason: impl Into<String>) {
        let of_place = self.open.entry((chain.to_owned(), sequence)).or_default();
        of_place.push(reason.into());
    }

    /// The next record of this chain, or the first.
    pub(super) fn hear(&mut self, chain: &str, sequence: u64, bytes: Bytes) {
        let before = self.before.take().filter(|(place, _)| place.0 == chain);
        let expected = before.as_ref().map_or(1, |(place, _)| place.1 + 1);
        let gap = sequence != expected;
        if gap {
            let last = sequence.saturating_sub(1);
            self.note(
                chain,
                sequence,
                format!("records {expected} to {last} before it are missing"),
            );
        }
        match serde_json::from_slice::<Entry>(&bytes) {
            Err(fault) => self.note(
                chain,
                sequence,
                format!("it cannot be read: {fault}; a newer ernstfall may have written it"),
            ),
            Ok(entry) => {
                if (entry.chain.as_str(), entry.sequence) != (chain, sequence) {
                    let says = format!("it says it is record {} of chain {}", entry.sequence, entry.chain);
                    self.note(chain, sequence, says);
                }
                let hash = before.map(|(_, bytes)| sha256_hex(&bytes));
                if !gap && entry.previous_sha256 != hash {
                    let reason = "the record before it is not the one that it was written after";
                    self.note(chain, sequence, reason);
                }
                self.notice(chain, sequence, entry.record.finished_at());
                (self.listener)(Arc::new(entry));
            }
        }
        self.before = Some(((chain.to_owned(), sequence), bytes));
    }

    /// A record that is no part of the chain as it is read.
    pub(super) fn hear_apart(&mut self, bytes: &Bytes) {
        if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
            (self.listener)(Arc::new(entry));
        }
    }

    /// What was lost up to this record had been said when its run ended.
    fn notice(&mut self, chain: &str, sequence: u64, at: DateTime<Utc>) {
        let up_to = (chain.to_owned(), 0)..=(chain.to_owned(), sequence);
        for (place, reasons) in self.open.extract_if(up_to, |_, _| true) {
            self.problems.extend(problems_at(&place, reasons, Some(at)));
        }
    }

    /// What is wrong, by chain and number.
    pub(super) fn problems(mut self) -> Vec<ChainProblem> {
        for (place, reasons) in std::mem::take(&mut self.open) {
            self.problems.extend(problems_at(&place, reasons, None));
        }
        // Stable: of one record, in the order in which they were found.
        self.problems
            .sort_by(|one, other| (&one.chain, one.sequence).cmp(&(&other.chain, other.sequence)));
        self.problems
    }
}

fn problems_at(
    (chain, sequence): &RecordPlace,
    reasons: Vec<String>,
    noticed_at: Option<DateTime<Utc>>,
) -> impl Iterator<Item = ChainProblem> {
    reasons.into_iter().map(move |reason| ChainProblem {
        chain: chain.clone(),
        sequence: *sequence,
        reason,
        noticed_at,
    })
}
