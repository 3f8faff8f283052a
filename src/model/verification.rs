//! What a comparison of the copy with the backup found.

use serde::{Deserialize, Serialize};

use crate::model::contents::NotCovered;

/// The result of comparing a restored copy with what the source sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Tables compared.
    pub tables: u64,
    /// Rows compared.
    pub rows: u64,
    /// COPY text compared.
    pub bytes: u64,
    pub mismatches: Vec<Mismatch>,
    pub findings: Vec<Finding>,
    pub not_covered: Vec<NotCovered>,
    pub checks: Vec<CheckResult>,
}

/// One difference that makes the backup bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// `table`, `sequence`, `large objects`, `schema object`, …
    pub kind: String,
    pub name: String,
    pub expected: String,
    pub found: String,
}

/// Something an operator should know, which does not make the backup bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub subject: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// One of the target's own SQL checks, run in the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    pub name: String,
    pub passed: bool,
    pub expected: String,
    /// The value found, or the error.
    pub found: String,
}
