//! What is wanted of a target's recovery.

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

#[cfg(test)]
mod tests {
    use super::*;

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
