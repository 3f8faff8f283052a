//! How a run goes on: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::model::target_name::TargetName;
use crate::ops::context::Progress;

use super::arguments::Global;
use super::print;

/// The display that suits where stderr goes.
pub(super) fn display(global: &Global, target: &TargetName) -> Arc<dyn Progress> {
    if global.quiet {
        Arc::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        Arc::new(Bar::new(target))
    } else {
        Arc::new(Lines {
            target: target.clone(),
        })
    }
}

/// For the daemon, whose runs nobody watches: what a person should read goes to the log.
pub(super) fn logged(target: &TargetName) -> Arc<dyn Progress> {
    Arc::new(Log {
        prefix: format!("{target}: "),
    })
}

/// The same for what concerns no single target.
pub(super) fn logged_for_all() -> Arc<dyn Progress> {
    Arc::new(Log {
        prefix: String::new(),
    })
}

struct Log {
    prefix: String,
}

impl Progress for Log {
    fn phase(&self, name: &str) {
        tracing::debug!("{}{name}", self.prefix);
    }
    fn expect_bytes(&self, _bytes: u64) {}
    fn rows(&self, _rows: u64, _bytes: u64) {}
    fn note(&self, text: &str) {
        tracing::info!("{}{text}", self.prefix);
    }
}

/// Only what a person has to read.
struct Quiet;

impl Progress for Quiet {
    fn phase(&self, _name: &str) {}
    fn expect_bytes(&self, _bytes: u64) {}
    fn rows(&self, _rows: u64, _bytes: u64) {}
    fn note(&self, text: &str) {
        print::talk(text);
    }
}

/// A line for each phase, for logs.
struct Lines {
    target: TargetName,
}

impl Progress for Lines {
    fn phase(&self, name: &str) {
        print::talk(&format!("{}: {name}", self.target));
    }
    fn expect_bytes(&self, _bytes: u64) {}
    fn rows(&self, _rows: u64, _bytes: u64) {}
    fn note(&self, text: &str) {
        print::talk(&format!("{}: {text}", self.target));
    }
}

/// Rows, bytes, rate and time left.
struct Bar {
    bar: ProgressBar,
    target: TargetName,
    rows: AtomicU64,
}

const REDRAW: Duration = Duration::from_millis(200);

impl Bar {
    fn new(target: &TargetName) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(REDRAW);
        Self {
            bar,
            target: target.clone(),
            rows: AtomicU64::new(0),
        }
    }
}

impl Progress for Bar {
    fn phase(&self, name: &str) {
        let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed_precise}");
        self.bar
            .set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        self.bar.set_length(0);
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.rows.store(0, Ordering::Relaxed);
        self.bar.set_message("");
        self.bar.set_prefix(format!("{}: {name}", self.target));
    }

    fn expect_bytes(&self, bytes: u64) {
        let template =
            "{spinner} {prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg} eta {eta}";
        let style = ProgressStyle::with_template(template);
        self.bar
            .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_length(bytes);
    }

    fn rows(&self, rows: u64, bytes: u64) {
        let rows = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        self.bar.set_message(format!("{rows} rows"));
        self.bar.inc(bytes);
        // The expectation is an estimate: text can be longer than what lies on disk.
        if self
            .bar
            .length()
            .is_some_and(|length| self.bar.position() > length)
        {
            self.bar.set_length(self.bar.position());
        }
    }

    fn note(&self, text: &str) {
        self.bar
            .suspend(|| print::talk(&format!("{}: {text}", self.target)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
