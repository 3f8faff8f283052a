//! What runs for months: one loop for each task and target, that knows no task.
