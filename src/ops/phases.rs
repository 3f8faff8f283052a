//! Timing the phases of a run by a monotonic clock.

use std::time::Instant;

use crate::model::record::Phase;

use super::context::Progress;

/// Phases in the order in which they began.
pub(super) struct Phases<'a> {
    progress: &'a dyn Progress,
    began: Instant,
    done: Vec<Phase>,
    current: Option<(&'static str, Instant)>,
}

impl<'a> Phases<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            began: Instant::now(),
            done: Vec::new(),
            current: None,
        }
    }

    /// Ends the current phase and begins the next one.
    pub(super) fn begin(&mut self, name: &'static str) {
        self.end();
        self.progress.phase(name);
        self.current = Some((name, Instant::now()));
    }

    /// Ends the current phase. A phase that comes twice is added up.
    pub(super) fn end(&mut self) {
        let Some((name, began)) = self.current.take() else {
            return;
        };
        let seconds = began.elapsed().as_secs_f64();
        match self.done.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => phase.seconds += seconds,
            None => self.done.push(Phase {
                name: name.to_owned(),
                seconds,
            }),
        }
    }

    /// Seconds since the first phase could begin.
    pub(super) fn total_seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// What was timed, the unfinished phase included.
    pub(super) fn take(&mut self) -> Vec<Phase> {
        self.end();
        std::mem::take(&mut self.done)
    }
}
