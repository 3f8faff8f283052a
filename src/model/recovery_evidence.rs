//! Up to when a snapshot holds the data, by what is known of it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::manifest::{RecoveryPoint, RecoveryPointBasis};

/// The clocks of a primary and its standby differ a little.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(2);
/// A heartbeat's own transaction is replayed this soon after the moment in its row: then both speak of one thing, and
/// what was seen in the snapshot itself is the better witness.
const SAME_MOMENT: TimeDelta = TimeDelta::seconds(1);

/// What is known of a snapshot. All times but `taken_at` may be of another server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryEvidence {
    /// On the clock of the server that was read, not later than the snapshot.
    pub taken_at: DateTime<Utc>,
    /// That server takes the writes itself, and nobody said otherwise.
    pub is_origin: bool,
    /// The last transaction that a standby had replayed before the snapshot.
    pub replayed_at: Option<DateTime<Utc>>,
    /// The heartbeat in the snapshot.
    pub heartbeat: Option<DateTime<Utc>>,
}

impl RecoveryEvidence {
    /// The recovery point; `None` where nothing tells it. Of a copy, each witness is a lower bound, and the later counts.
    pub fn recovery_point(&self) -> Option<RecoveryPoint> {
        if self.is_origin {
            return Some(RecoveryPoint {
                at: self.taken_at,
                basis: RecoveryPointBasis::Snapshot,
            });
        }
        let heartbeat = self.heartbeat.filter(|_| !self.heartbeat_is_in_the_future());
        let heartbeat = heartbeat.map(|at| RecoveryPoint {
            // It cannot hold what came after it.
            at: at.min(self.taken_at),
            basis: RecoveryPointBasis::Heartbeat,
        });
        let replayed = self.replayed_at.map(|at| RecoveryPoint {
            at,
            basis: RecoveryPointBasis::Replay,
        });
        match (heartbeat, replayed) {
            (Some(heartbeat), Some(replayed)) if replayed.at > heartbeat.at + SAME_MOMENT => Some(replayed),
            (heartbeat, replayed) => heartbeat.or(replayed),
        }
    }

    /// A heartbeat later than the snapshot that holds it proves only that a clock is wrong.
    pub fn heartbeat_is_in_the_future(&self) -> bool {
        self.heartbeat
            .is_some_and(|heartbeat| heartbeat > self.taken_at + CLOCK_TOLERANCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::time;

    /// Of a snapshot at second 100: replayed, heartbeat, and the recovery point with its basis.
    fn of_a_copy(replayed: Option<i64>, heartbeat: Option<i64>) -> Option<(i64, RecoveryPointBasis)> {
        let evidence = RecoveryEvidence {
            taken_at: time(100),
            is_origin: false,
            replayed_at: replayed.map(time),
            heartbeat: heartbeat.map(time),
        };
        let point = evidence.recovery_point()?;
        Some(((point.at - time(0)).num_seconds(), point.basis))
    }

    #[test]
    fn the_origin_holds_everything_up_to_the_snapshot() {
        let evidence = RecoveryEvidence {
            taken_at: time(100),
            is_origin: true,
            replayed_at: None,
            heartbeat: Some(time(3)),
        };
        let expected = RecoveryPoint {
            at: time(100),
            basis: RecoveryPointBasis::Snapshot,
        };
        assert_eq!(evidence.recovery_point(), Some(expected));
    }

    #[test]
    fn a_copy_holds_what_the_later_witness_says() {
        use RecoveryPointBasis::{Heartbeat, Replay};
        assert_eq!(of_a_copy(None, None), None);
        assert_eq!(of_a_copy(Some(40), None), Some((40, Replay)));
        assert_eq!(of_a_copy(None, Some(30)), Some((30, Heartbeat)));
        assert_eq!(of_a_copy(Some(40), Some(50)), Some((50, Heartbeat)));
        assert_eq!(of_a_copy(Some(40), Some(30)), Some((40, Replay)));
        // The heartbeat's own transaction, replayed.
        assert_eq!(of_a_copy(Some(31), Some(30)), Some((30, Heartbeat)));
    }

    #[test]
    fn a_heartbeat_later_than_its_snapshot_is_not_believed() {
        use RecoveryPointBasis::{Heartbeat, Replay};
        assert_eq!(of_a_copy(Some(40), Some(103)), Some((40, Replay)));
        assert_eq!(of_a_copy(None, Some(103)), None);
        assert_eq!(of_a_copy(Some(40), Some(102)), Some((100, Heartbeat)));
    }
}
