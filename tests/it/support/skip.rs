//! Tests that cannot run here: said aloud by a developer's run, refused by CI, never passed in silence.

use std::fs::File;
use std::io::Write;

/// `require!(condition, "why not")`: ends the test as skipped when the condition does not hold.
macro_rules! require {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            $crate::support::skip::skipped(&format!($($why)+));
            return;
        }
    };
}
pub(crate) use require;

pub(crate) fn skipped(why: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    if let Err(refusal) = judge(&test, why, in_ci) {
        panic!("{refusal}");
    }
    eprintln!("SKIPPED: {test}: {why}");
    // Runners hide the output of a test that passes; `make test` shows this file at its end.
    if let Some(path) = std::env::var_os("ERNSTFALL_TEST_SKIPS") {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(format!("SKIPPED: {test}: {why}\n").as_bytes()))
            .unwrap();
    }
}

fn judge(test: &str, why: &str, in_ci: bool) -> Result<(), String> {
    if in_ci {
        Err(format!("{test} may not be skipped in CI: {why}"))
    } else {
        Ok(())
    }
}

#[test]
fn skip_is_refused_in_ci_and_allowed_elsewhere() {
    assert!(
        judge("a test", "no such program", true)
            .unwrap_err()
            .contains("no such program")
    );
    assert_eq!(judge("a test", "no such program", false), Ok(()));
}

#[test]
fn require_goes_on_when_the_condition_holds() {
    let mut reached = false;
    let mut body = || {
        require!(1 + 1 == 2, "arithmetic is broken");
        reached = true;
    };
    body();
    assert!(reached);
}
