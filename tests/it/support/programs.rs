//! The PostgreSQL server programs of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// One installation: a directory with at least `initdb` and `postgres`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Programs {
    pub(crate) bin_dir: PathBuf,
    pub(crate) major: u32,
}

impl Programs {
    /// Every installation, oldest first. `ERNSTFALL_TEST_BIN_DIRS` (colon-separated) adds others to those found.
    pub(crate) fn installed() -> &'static [Self] {
        static INSTALLED: LazyLock<Vec<Programs>> = LazyLock::new(|| {
            let mut found: Vec<_> = candidates()
                .into_iter()
                .filter_map(|path| Programs::at(&path))
                .collect();
            found.sort_by_key(|programs| programs.major);
            found.dedup_by(|one, other| one.bin_dir == other.bin_dir);
            found
        });
        &INSTALLED
    }

    pub(crate) fn newest() -> Self {
        let newest = Self::installed().last().cloned();
        newest.expect(
            "no PostgreSQL server programs found in PATH or /usr/lib/postgresql/*/bin: run `make test`",
        )
    }

    pub(crate) fn of_major(major: u32) -> Option<Self> {
        Self::installed()
            .iter()
            .rfind(|programs| programs.major == major)
            .cloned()
    }

    pub(crate) fn at(bin_dir: &Path) -> Option<Self> {
        if !bin_dir.join("initdb").is_file() || !bin_dir.join("postgres").is_file() {
            return None;
        }
        let output = Command::new(bin_dir.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self {
            bin_dir: bin_dir.to_owned(),
            major,
        })
    }

    pub(crate) fn path(&self, program: &str) -> PathBuf {
        self.bin_dir.join(program)
    }
}

fn candidates() -> Vec<PathBuf> {
    let split =
        |name: &str| std::env::var_os(name).map(|value| std::env::split_paths(&value).collect::<Vec<_>>());
    let mut candidates = split("ERNSTFALL_TEST_BIN_DIRS").unwrap_or_default();
    candidates.extend(split("PATH").unwrap_or_default());
    for entry in std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
    {
        candidates.push(entry.path().join("bin"));
    }
    candidates
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15; so are `15beta2` and `15rc1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split(") ").nth(1)?;
    let digits = number
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[test]
fn major_is_read_from_every_form_of_version() {
    assert_eq!(
        major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
        Some(15)
    );
    assert_eq!(major_of("postgres (PostgreSQL) 18beta2\n"), Some(18));
    assert_eq!(major_of("postgres (PostgreSQL) 17\n"), Some(17));
    assert_eq!(major_of("something else"), None);
}
