//! The PostgreSQL programs of this machine: where they are and which version they have.
//!
//! Nothing is guessed from a directory's name: every installation was asked for its version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// Programs that answer `--version`, in the order asked; a directory may hold only one of them.
const ASKED: [&str; 3] = ["postgres", "pg_dump", "initdb"];

/// One directory that holds PostgreSQL programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub directory: PathBuf,
    pub major: u32,
    /// As the program says it, for example `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
}

impl Installation {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether it has all these programs.
    pub fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.program(name).is_file())
    }
}

/// The search for PostgreSQL programs.
pub struct Programs;

impl Programs {
    /// All installations, lowest major first. With `bin_dir` only that directory is looked at: who names
    /// one wants no other.
    pub fn find(bin_dir: Option<&Path>) -> Vec<Installation> {
        let directories = match bin_dir {
            Some(directory) => vec![directory.to_path_buf()],
            None => candidates(),
        };
        let mut seen = BTreeSet::new();
        let mut found: Vec<Installation> = Vec::new();
        for directory in directories {
            // PATH may name the same place twice, or by a link.
            let Ok(directory) = directory.canonicalize() else {
                continue;
            };
            if seen.insert(directory.clone()) {
                found.extend(ask(&directory));
            }
        }
        // A stable sort: among equals PATH comes first, as the operator would expect.
        found.sort_by_key(|installation| installation.major);
        found
    }

    /// The programs to dump from and restore into a server of this major: pg_dump refuses newer servers.
    pub fn client_for(bin_dir: Option<&Path>, server_major: u32) -> Result<Installation, ProgramsError> {
        choose_client(&Self::find(bin_dir), server_major)
    }

    /// The server for a scratch copy: the source's major, or the next newer one.
    pub fn server_for(bin_dir: Option<&Path>, major: u32) -> Result<Installation, ProgramsError> {
        choose_server(&Self::find(bin_dir), major)
    }
}

/// The rule of [`Programs::client_for`] on installations already found.
pub fn choose_client(found: &[Installation], server_major: u32) -> Result<Installation, ProgramsError> {
    found
        .iter()
        .filter(|one| one.major >= server_major && one.has(&["pg_dump", "pg_restore"]))
        .min_by_key(|one| one.major)
        .cloned()
        .ok_or_else(|| ProgramsError::NoClient {
            major: server_major,
            found: describe(found, &["pg_dump", "pg_restore"]),
            remedy: remedy("postgresql-client", server_major),
        })
}

/// The rule of [`Programs::server_for`] on installations already found.
pub fn choose_server(found: &[Installation], major: u32) -> Result<Installation, ProgramsError> {
    // Further than the next major would prove less and less about the server that has to be recovered.
    let newest = next_major(major);
    found
        .iter()
        .filter(|one| one.major >= major && one.major <= newest && one.has(&["initdb", "postgres"]))
        .min_by_key(|one| one.major)
        .cloned()
        .ok_or_else(|| ProgramsError::NoServer {
            major,
            next: newest,
            found: describe(found, &["initdb", "postgres"]),
            remedy: remedy("postgresql", major),
        })
}

/// Why there are no fitting programs. Each names what was found and what to install.
#[derive(Debug, Error)]
pub enum ProgramsError {
    #[error("no pg_dump and pg_restore of PostgreSQL {major} or newer: found {found}; {remedy}")]
    NoClient {
        major: u32,
        found: String,
        remedy: String,
    },
    #[error("no initdb and postgres of PostgreSQL {major} or {next}: found {found}; {remedy}")]
    NoServer {
        major: u32,
        next: u32,
        found: String,
        remedy: String,
    },
}

fn next_major(major: u32) -> u32 {
    major + 1
}

fn candidates() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    // Debian and Ubuntu put server programs outside PATH, so do the packages of PGDG for RPM systems.
    for entry in entries(Path::new("/usr/lib/postgresql")) {
        directories.push(entry.join("bin"));
    }
    for entry in entries(Path::new("/usr")) {
        let name = entry
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.starts_with("pgsql-") {
            directories.push(entry.join("bin"));
        }
    }
    // A relative entry of PATH would name another program after a change of directory.
    directories.retain(|directory| directory.is_absolute());
    directories
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn ask(directory: &Path) -> Option<Installation> {
    ASKED
        .iter()
        .map(|name| directory.join(name))
        .filter(|path| path.is_file())
        .find_map(|path| {
            let output = Command::new(&path)
                .arg("--version")
                .env("LC_ALL", "C")
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()?;
            let (major, version) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
            Some(Installation {
                directory: directory.to_path_buf(),
                major,
                version,
            })
        })
}

/// Reads `pg_dump (PostgreSQL) 15.18 (Debian …)`, and `17beta1` as 17.
fn parse_version(line: &str) -> Option<(u32, String)> {
    let version = line.trim().split_once("(PostgreSQL) ")?.1.trim().to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version))
}

fn describe(found: &[Installation], wanted: &[&str]) -> String {
    if found.is_empty() {
        return "none".into();
    }
    let list: Vec<String> = found
        .iter()
        .map(|one| {
            let lacking: Vec<&str> = wanted.iter().copied().filter(|name| !one.has(&[name])).collect();
            let number = one.version.split(' ').next().unwrap_or_default();
            match lacking.is_empty() {
                true => format!("{number} in {}", one.directory.display()),
                false => format!(
                    "{number} in {} (without {})",
                    one.directory.display(),
                    lacking.join(", ")
                ),
            }
        })
        .collect();
    list.join(", ")
}

fn remedy(package: &str, major: u32) -> String {
    format!(
        "install it with `apt-get install {package}-{major}` (where the distribution has no such major, add \
         the PGDG repository first: https://www.postgresql.org/download/), or set `bin_dir`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn installation(root: &Path, major: u32, programs: &[&str]) -> Installation {
        let directory = root.join(major.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        for program in programs {
            let path = directory.join(program);
            std::fs::write(
                &path,
                format!("#!/bin/sh\necho '{program} (PostgreSQL) {major}.3 (Test)'\n"),
            )
            .unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Installation {
            directory,
            major,
            version: format!("{major}.3 (Test)"),
        }
    }

    #[test]
    fn versions_are_read_with_and_without_the_packager() {
        assert_eq!(
            parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-1)\n")
                .unwrap()
                .0,
            15
        );
        assert_eq!(
            parse_version("postgres (PostgreSQL) 18beta2").unwrap(),
            (18, "18beta2".into())
        );
        assert_eq!(parse_version("mysqldump 8"), None);
    }

    #[test]
    fn a_named_directory_is_asked_even_with_one_program_only() {
        let root = tempfile::tempdir().unwrap();
        let expected = installation(&root.path().canonicalize().unwrap(), 16, &["pg_dump"]);
        assert_eq!(Programs::find(Some(&expected.directory)), vec![expected]);
    }

    #[test]
    fn the_lowest_client_that_is_new_enough_and_complete_is_chosen() {
        let root = tempfile::tempdir().unwrap();
        let found = [
            installation(root.path(), 14, &["pg_dump", "pg_restore"]),
            installation(root.path(), 15, &["pg_dump"]),
            installation(root.path(), 17, &["pg_dump", "pg_restore"]),
            installation(root.path(), 18, &["pg_dump", "pg_restore"]),
        ];
        assert_eq!(choose_client(&found, 15).unwrap().major, 17);
        let message = choose_client(&found[..2], 15).unwrap_err().to_string();
        assert!(message.contains("without pg_restore"), "{message}");
        assert!(
            message.contains("apt-get install postgresql-client-15"),
            "{message}"
        );
    }

    #[test]
    fn the_server_is_the_same_major_or_the_next_and_never_older() {
        let root = tempfile::tempdir().unwrap();
        let found = [
            installation(root.path(), 14, &["initdb", "postgres"]),
            installation(root.path(), 16, &["initdb", "postgres"]),
        ];
        assert_eq!(choose_server(&found, 15).unwrap().major, 16);
        assert_eq!(choose_server(&found, 14).unwrap().major, 14);
        let message = choose_server(&found, 17).unwrap_err().to_string();
        assert!(message.contains("apt-get install postgresql-17"), "{message}");
    }
}
