//! Parts of expressions that several rules share.

/// What tells one target of one daemon from all others; of several daemons, each is judged by its own metrics.
pub(super) const TARGET: &str = "on (job, instance, target)";

/// The same, and one of its tasks.
pub(super) const TASK: &str = "on (job, instance, target, task)";

/// That there was a daemon is remembered for so long: one that dies on a Friday evening is told of when everybody is
/// back. Prometheus keeps fifteen days, unless it is told otherwise.
pub(super) const REMEMBERED: &str = "7d";

/// What a daemon said last of its targets counts for so long: for a week, each evaluation would read millions of samples.
const BRIDGED: &str = "1d";

/// What a daemon tells as soon as it runs; of one that answers no more, what it said last. So an objective can be
/// missed although nobody is there any more to say so, while what a living daemon does not show is not there.
pub(super) fn last_known(metric: &str) -> String {
    last_until(metric, "ernstfall_build_info")
}

/// What a daemon tells once it has seen the repository. Until then a living one shows nothing of it, which is no
/// all-clear: after a restart, what it said before goes on to count, as in the daemon's own evaluation.
pub(super) fn last_seen(metric: &str) -> String {
    last_until(metric, "ernstfall_repository_seen_timestamp_seconds")
}

/// The metric; of a daemon that does not show the sign, what it said last.
fn last_until(metric: &str, sign: &str) -> String {
    format!("({metric} or (last_over_time({metric}[{BRIDGED}]) unless on (job, instance) {sign}))")
}

/// With the target's environment and owner, so that alerts find their way. Where these changed meanwhile, either will do.
pub(super) fn owned(expression: &str) -> String {
    let info = last_known("ernstfall_target_info");
    let expression = expression.replace('\n', "\n  ");
    format!(
        "(\n  {expression}\n)\n* {TARGET} group_left (environment, owner)\n  topk by (job, instance, target) (1, {info})"
    )
}

/// How long ago a moment of the source's clock was, which is given as it is known.
pub(super) fn age_there(moment: &str) -> String {
    let skew = last_seen("ernstfall_clock_skew_seconds");
    format!("time() - {moment}\n+ {TARGET} ({skew} or {TARGET} {moment} * 0)")
}
