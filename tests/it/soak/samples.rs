//! What the daemon holds, measured every second, and whether it grows.

use std::fs;

use crate::shop::descendants;
use crate::support::cluster::Cluster;

use super::Town;

/// One thing that is measured.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// The median of the last tenth may be so many times that of the second tenth …
    factor: f64,
    /// … and so much more.
    more: f64,
    values: Vec<f64>,
}

/// Growth is judged after the first tenth, by medians: what runs at a moment comes and goes, and a leak stays. What is
/// meant to fill fits into what may be added: some threads with their memory, and a few MiB of records, of which the
/// daemon keeps so many of each kind and no more.
pub(super) struct Samples {
    measures: Vec<Measure>,
}

impl Default for Samples {
    fn default() -> Self {
        let measure = |name, unit, factor, more| Measure {
            name,
            unit,
            factor,
            more,
            values: Vec::new(),
        };
        Self {
            measures: vec![
                measure("memory", "MiB", 1.15, 16.0),
                measure("files", "", 1.2, 15.0),
                // What may go on at once is limited, to some twenty; short runs see the first bursts late.
                measure("threads", "", 1.2, 24.0),
                measure("processes", "", 1.2, 15.0),
                measure("scratches", "", 1.0, 2.0),
                measure("connections", "", 1.2, 10.0),
            ],
        }
    }
}

impl Samples {
    pub(super) fn take(&mut self, town: &Town, daemon: u32) {
        let status = fs::read_to_string(format!("/proc/{daemon}/status")).expect("the daemon runs");
        let number = |key: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let files = fs::read_dir(format!("/proc/{daemon}/fd"))
            .expect("open files of the daemon")
            .count();
        let connections: usize = town.servers.iter().filter_map(connections).sum();
        let values = [
            number("VmRSS:") / 1024.0,
            files as f64,
            number("Threads:"),
            descendants(daemon).len() as f64,
            super::working_directories(town) as f64,
            connections as f64,
        ];
        for (measure, value) in self.measures.iter_mut().zip(values) {
            measure.values.push(value);
        }
    }

    pub(super) fn growth(&self) -> Vec<String> {
        self.measures.iter().filter_map(Measure::growth).collect()
    }

    /// A table.
    pub(super) fn told(&self) -> String {
        let mut text = format!(
            "{:<12} {:>12} {:>12} {:>12} {:>8} {:>8}\n",
            "", "first tenth", "second tenth", "last tenth", "most", "allowed"
        );
        for measure in &self.measures {
            text += &format!(
                "{:<12} {:>12.1} {:>12.1} {:>12.1} {:>8.1} {:>8.1} {}\n",
                measure.name,
                measure.median(0),
                measure.median(1),
                measure.median(9),
                measure.values.iter().copied().fold(0.0, f64::max),
                measure.allowed(),
                measure.unit
            );
        }
        text + &format!("medians of {} samples", self.measures[0].values.len())
    }
}

impl Measure {
    /// Of the tenth of the time with this number, counted from 0.
    fn median(&self, tenth: usize) -> f64 {
        let count = self.values.len();
        let mut values = self.values[count * tenth / 10..count * (tenth + 1) / 10].to_vec();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    fn allowed(&self) -> f64 {
        self.median(1) * self.factor + self.more
    }

    fn growth(&self) -> Option<String> {
        let (before, after) = (self.median(1), self.median(9));
        let Measure { name, unit, .. } = self;
        (after > self.allowed()).then(|| format!("{name} grew from {before:.1} to {after:.1} {unit}"))
    }
}

/// Of clients other than the one that asks; nothing while the server is away.
pub(super) fn connections(server: &Cluster) -> Option<usize> {
    let session = server.maintenance().try_session().ok()?;
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let rows = session.try_query_rows(sql).ok()?;
    rows.first()?.first()?.as_ref()?.parse().ok()
}

#[test]
fn growth_is_told_from_noise() {
    let of = |values: Vec<f64>| Measure {
        name: "memory",
        unit: "MiB",
        factor: 1.15,
        more: 16.0,
        values,
    };
    let noise = (0..100).map(|number| 100.0 + f64::from(number % 7)).collect();
    assert_eq!(of(noise).growth(), None);
    let settles = (0..100)
        .map(|number| if number < 10 { 20.0 } else { 100.0 })
        .collect();
    assert_eq!(of(settles).growth(), None, "the first tenth does not count");
    let grows = (0..100).map(|number| 100.0 + f64::from(number)).collect();
    assert_eq!(of(grows).growth().unwrap(), "memory grew from 115.0 to 195.0 MiB");
}
