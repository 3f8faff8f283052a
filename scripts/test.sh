#!/usr/bin/env bash
# Runs all tests, in parallel, and shows which were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

ERNSTFALL_TEST_SKIPS=$(mktemp)
export ERNSTFALL_TEST_SKIPS
trap 'cat "$ERNSTFALL_TEST_SKIPS"; rm -f "$ERNSTFALL_TEST_SKIPS"' EXIT

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast
    # nextest leaves the examples in the documentation out.
    cargo test --locked --doc
else
    cargo test --locked --no-fail-fast
fi
