//! What is wanted of a target's recovery, and whether what was measured meets it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::human_duration::HumanDuration;

/// The objectives of a target. One that is absent was never agreed, and is neither met nor missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    pub rpo: Option<HumanDuration>,
    pub rto: Option<HumanDuration>,
}

/// The human part of a recovery: declared, not measured; added to the RTA and shown apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtoOverhead {
    pub detect: Option<HumanDuration>,
    pub decide: Option<HumanDuration>,
    pub provision: Option<HumanDuration>,
    pub cut_over: Option<HumanDuration>,
}

impl RtoOverhead {
    pub fn total(&self) -> Duration {
        let declared = [self.detect, self.decide, self.provision, self.cut_over];
        declared
            .into_iter()
            .flatten()
            .map(HumanDuration::as_duration)
            .sum()
    }
}

/// Whether an objective is met. Unknown is not met: what could not be measured says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveState {
    Met,
    Missed,
    Unknown,
}

/// Compares what was measured with what is wanted; exactly the objective is still met.
pub fn judge(objective: Option<HumanDuration>, actual: Option<Duration>) -> ObjectiveState {
    match (objective, actual) {
        (Some(objective), Some(actual)) if actual <= objective.as_duration() => ObjectiveState::Met,
        (Some(_), Some(_)) => ObjectiveState::Missed,
        _ => ObjectiveState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_is_met_up_to_its_last_second() {
        let hour = Some(HumanDuration::from_seconds(3600));
        assert_eq!(judge(hour, Some(Duration::from_secs(3600))), ObjectiveState::Met);
        assert_eq!(
            judge(hour, Some(Duration::from_millis(3_600_001))),
            ObjectiveState::Missed
        );
    }

    #[test]
    fn what_was_not_measured_or_not_agreed_is_unknown() {
        let hour = Some(HumanDuration::from_seconds(3600));
        assert_eq!(judge(hour, None), ObjectiveState::Unknown);
        assert_eq!(judge(None, Some(Duration::ZERO)), ObjectiveState::Unknown);
    }

    #[test]
    fn declared_times_add_up() {
        let minute = Some(HumanDuration::from_seconds(60));
        let overhead = RtoOverhead {
            detect: minute,
            decide: None,
            provision: minute,
            cut_over: minute,
        };
        assert_eq!(overhead.total(), Duration::from_secs(180));
    }
}
