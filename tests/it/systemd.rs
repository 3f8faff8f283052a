//! The unit as far as it can be judged without a booted system; `make test-systemd` runs it in one.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::directory::TestDir;
use crate::support::monitoring::find;
use crate::support::process::run_or_panic;
use crate::support::skip::require;

const UNIT: &str = "systemd/ernstfall.service";

/// Ten times the exposure that `systemd-analyze security` may find, of at most 100.
const THRESHOLD: &str = "--threshold=25";

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(UNIT)).unwrap()
}

/// A unit file of that text, with a program that is there.
fn written(directory: &TestDir, text: &str) -> String {
    let text = text.replace("/usr/local/bin/ernstfall", env!("CARGO_BIN_EXE_ernstfall"));
    let file = directory.write("ernstfall.service", text);
    file.display().to_string()
}

fn security(directory: &TestDir, text: &str) -> bool {
    let file = written(directory, text);
    let arguments = ["security", "--offline=yes", THRESHOLD, &file];
    let output = Command::new("systemd-analyze").args(arguments).output();
    output.unwrap().status.success()
}

#[test]
fn the_unit_is_free_of_faults_and_its_exposure_is_at_most_two_and_a_half() {
    require!(
        find("systemd-analyze").is_some(),
        "systemd-analyze is not installed"
    );
    let directory = TestDir::new("unit");
    let file = written(&directory, &unit());
    let mut verify = Command::new("systemd-analyze");
    run_or_panic(verify.args(["verify", "--man=no", "--recursive-errors=no", &file]));
    assert!(security(&directory, &unit()));
    let (hardened, rest) = (unit(), "CapabilityBoundingSet=");
    let open = hardened.split(rest).next().unwrap();
    assert_ne!(open, hardened);
    assert!(!security(&directory, open), "whatever the unit says, it passes");
}

/// What takes a layer from scratch, or stops it, where somebody hardens the unit further without trying it.
#[test]
fn the_unit_leaves_scratch_what_it_needs() {
    let text = unit();
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start}")).to_owned()
    };
    for namespace in ["user", "mnt", "net", "pid", "ipc", "uts"] {
        assert!(line("RestrictNamespaces=").contains(namespace), "{namespace}");
    }
    assert!(line("SystemCallFilter=@system-service").contains("landlock_restrict_self"));
    assert!(line("SystemCallFilter=mount").contains("pivot_root mount_setattr"));
}
