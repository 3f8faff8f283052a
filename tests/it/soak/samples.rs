//! What the daemon holds, measured every second, and whether it grows.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use crate::shop::descendants;

use super::leftovers::{OF_RUNS, clients, entries, open_files};
use super::{MAX_BACKUPS, MAX_RESTORE_TESTS, Town};

/// In a soak of so long, the second tenth begins after three minutes: each kind of run and of fault has been there by then,
/// and caches have filled but for a few MiB.
const LONG: Duration = Duration::from_secs(30 * 60);

/// One thing that is measured.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// The median of the last tenth may be so many times that of the second tenth (0: there is a fixed limit) …
    factor: f64,
    /// … and so much more.
    more: f64,
    values: Vec<f64>,
}

/// Growth is judged after the first tenth, by medians: what runs at a moment comes and goes, and a leak stays. What fills
/// slowly in a short soak fits into what may be added: some threads with their memory, and a few MiB of records, of which
/// the daemon keeps so many of each kind and no more.
pub(super) struct Samples {
    measures: Vec<Measure>,
}

impl Samples {
    pub(super) fn new(length: Duration) -> Self {
        let measure = |name, unit, factor, more| Measure {
            name,
            unit,
            factor,
            more,
            values: Vec::new(),
        };
        let memory_more = if length >= LONG { 6.0 } else { 16.0 };
        // Nothing is measured while somebody works by hand, so no more are at it than these, and one prune.
        let at_work = (MAX_BACKUPS + MAX_RESTORE_TESTS) as f64;
        Self {
            measures: vec![
                measure("memory", "MiB", 1.15, memory_more),
                measure("files", "", 1.2, 15.0),
                // What may go on at once is limited, to some twenty; short runs see the first bursts late.
                measure("threads", "", 1.2, 24.0),
                measure("processes", "", 1.2, 15.0),
                measure("connections", "", 1.2, 10.0),
                measure("state/scratch", "", 0.0, MAX_RESTORE_TESTS as f64),
                measure("state/work", "", 0.0, at_work),
                measure("state/runs", "", 0.0, at_work + 1.0),
            ],
        }
    }

    pub(super) fn take(&mut self, town: &Town, daemon: u32) {
        let status = fs::read_to_string(format!("/proc/{daemon}/status")).expect("the daemon runs");
        let number = |key: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let connections = town.servers.iter().filter_map(clients).flatten().count();
        let mut values = vec![
            number("VmRSS:") / 1024.0,
            open_files(daemon) as f64,
            number("Threads:"),
            descendants(daemon).len() as f64,
            connections as f64,
        ];
        // Some are there only once something ran.
        let in_folder = |folder| entries(town, folder).map_or(0, |found| found.len()) as f64;
        values.extend(OF_RUNS.map(in_folder));
        for (measure, value) in self.measures.iter_mut().zip(values) {
            measure.values.push(value);
        }
    }

    pub(super) fn growth(&self) -> Vec<String> {
        self.measures.iter().filter_map(Measure::growth).collect()
    }

    /// A table. In the middle, a leak is half-way, and what fills is full.
    pub(super) fn told(&self) -> String {
        let mut text = format!(
            "{:<14} {:>12} {:>12} {:>12} {:>12} {:>8} {:>8}\n",
            "", "first tenth", "second tenth", "middle tenth", "last tenth", "most", "allowed"
        );
        for measure in &self.measures {
            text += &format!(
                "{:<14} {:>12.1} {:>12.1} {:>12.1} {:>12.1} {:>8.1} {:>8.1} {}\n",
                measure.name,
                measure.median(0..10),
                measure.median(SECOND),
                measure.median(MIDDLE),
                measure.median(LAST),
                measure.values.iter().copied().fold(0.0, f64::max),
                measure.allowed(),
                measure.unit
            );
        }
        text + &format!("medians of {} samples", self.measures[0].values.len())
    }
}

/// Tenths of the time, in percent.
const SECOND: Range<usize> = 10..20;
const MIDDLE: Range<usize> = 45..55;
const LAST: Range<usize> = 90..100;

impl Measure {
    fn median(&self, percent: Range<usize>) -> f64 {
        let count = self.values.len();
        let mut values = self.values[count * percent.start / 100..count * percent.end / 100].to_vec();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    fn allowed(&self) -> f64 {
        self.median(SECOND) * self.factor + self.more
    }

    fn growth(&self) -> Option<String> {
        let [before, middle, after] = [SECOND, MIDDLE, LAST].map(|tenth| self.median(tenth));
        let Measure { name, unit, .. } = self;
        (after > self.allowed())
            .then(|| format!("{name} grew from {before:.1} over {middle:.1} to {after:.1} {unit}"))
    }
}

#[test]
fn growth_is_told_from_noise() {
    let of = |values: Vec<f64>| Measure {
        name: "memory",
        unit: "MiB",
        factor: 1.15,
        more: 6.0,
        values,
    };
    let noise = (0..100).map(|number| 100.0 + f64::from(number % 7)).collect();
    assert_eq!(of(noise).growth(), None);
    let settles = (0..100)
        .map(|number| if number < 10 { 20.0 } else { 100.0 })
        .collect();
    assert_eq!(of(settles).growth(), None, "the first tenth does not count");
    let grows = (0..100).map(|number| 100.0 + f64::from(number)).collect();
    assert_eq!(
        of(grows).growth().unwrap(),
        "memory grew from 115.0 over 150.0 to 195.0 MiB"
    );
}
