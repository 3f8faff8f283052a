//! Parts of expressions that several rules share.

/// What tells one target of one daemon from all others; of several daemons, each is judged by its own metrics.
pub(super) const TARGET: &str = "on (job, instance, target)";

/// The same, and one of its tasks.
pub(super) const TASK: &str = "on (job, instance, target, task)";

/// The metric; of a daemon that answers no more, what it said last, for a day. So an objective can be missed although
/// nobody is there any more to say so, while what a living daemon does not show is not known.
pub(super) fn last_known(metric: &str) -> String {
    format!("({metric} or (last_over_time({metric}[1d]) unless on (job, instance) ernstfall_build_info))")
}

/// With the target's environment and owner, so that alerts find their way. Where these changed meanwhile, either will do.
pub(super) fn owned(expression: &str) -> String {
    let info = last_known("ernstfall_target_info");
    let expression = expression.replace('\n', "\n  ");
    format!(
        "(\n  {expression}\n)\n* {TARGET} group_left (environment, owner)\n  topk by (job, instance, target) (1, {info})"
    )
}

/// How long ago a moment of the source's clock was.
pub(super) fn age_there(timestamp: &str) -> String {
    let moment = last_known(timestamp);
    let skew = last_known("ernstfall_clock_skew_seconds");
    format!("time() - {moment}\n+ {TARGET} ({skew} or {TARGET} {moment} * 0)")
}
