//! The PostgreSQL programs of this machine, and what the copy needs besides them: extensions and locales.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::model::contents::DatabaseFacts;
use crate::ops::restore::lacks::package;
use crate::ops::target::Target;
use crate::postgres::programs::{Installation, Programs, ProgramsError};

use super::source::Found;
use super::{Lines, Surroundings};

/// Checks what can be checked without starting a server.
pub(super) fn check(surroundings: &Surroundings, target: &Target, found: Option<&Found>, lines: &mut Lines) {
    // Without the source nothing says which major is wanted; its own line says why.
    let Some(found) = found else { return };
    let bin_dir = surroundings.bin_dir.as_deref();
    match Programs::client_for(bin_dir, found.major()) {
        Ok(client) => lines.ok("client programs", described(&client)),
        Err(error) => missing("client programs", &error, lines),
    }
    // On a server that was named, its own programs, extensions and locales count.
    if target.scratch_server.is_some() {
        return;
    }
    match Programs::server_for(bin_dir, found.major()) {
        Ok(server) => {
            if server.major == found.major() {
                lines.ok("server programs", described(&server));
            } else {
                lines.warning(
                    "server programs",
                    format!(
                        "{}: newer than the source, so definitions cannot be compared exactly",
                        described(&server)
                    ),
                    format!("apt-get install postgresql-{}", found.major()),
                );
            }
            extensions(&server, found, lines);
        }
        Err(error) => missing("server programs", &error, lines),
    }
    locale(&found.database, lines);
}

fn described(installation: &Installation) -> String {
    format!(
        "PostgreSQL {} in {}",
        installation.version,
        installation.directory.display()
    )
}

fn missing(subject: &str, error: &ProgramsError, lines: &mut Lines) {
    let (message, remedy) = match error {
        ProgramsError::NoClient { major, found, remedy } => (
            format!("no pg_dump and pg_restore of PostgreSQL {major} or newer: found {found}"),
            remedy,
        ),
        ProgramsError::NoServer {
            major,
            next,
            found,
            remedy,
        } => (
            format!("no initdb and postgres of PostgreSQL {major} or {next}: found {found}"),
            remedy,
        ),
    };
    lines.failed(subject, message, remedy.clone());
}

fn extensions(server: &Installation, found: &Found, lines: &mut Lines) {
    let Some(share) = share_directory(server) else {
        lines.warning(
            "extensions",
            format!(
                "cannot tell where {} keeps extensions",
                server.directory.display()
            ),
            "a restore test will tell: ernstfall restore-test",
        );
        return;
    };
    let major = i32::try_from(server.major).unwrap_or(0);
    let lacking: Vec<&str> = found
        .extensions
        .iter()
        .map(|extension| extension.name.as_str())
        .filter(|name| !share.join(format!("extension/{name}.control")).is_file())
        .collect();
    if lacking.is_empty() {
        lines.ok(
            "extensions",
            format!("all {} of the source are installed here", found.extensions.len()),
        );
        return;
    }
    let packages: Vec<String> = lacking.iter().map(|name| package(name, major)).collect();
    lines.failed(
        "extensions",
        format!("not installed here: {}", lacking.join(", ")),
        format!("apt-get install {}", packages.join(" ")),
    );
}

/// Where the control files of extensions are, below `extension/`.
fn share_directory(server: &Installation) -> Option<PathBuf> {
    let asked = Command::new(server.program("pg_config"))
        .arg("--sharedir")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let asked = asked.ok().filter(|output| output.status.success());
    let asked = asked.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let above = server.directory.join("..");
    let candidates = [
        PathBuf::from(format!("/usr/share/postgresql/{}", server.major)),
        above.join("share/postgresql"),
        above.join("share"),
    ];
    // Every server has this one; without it the directory is another's.
    let is_it = |directory: &PathBuf| directory.join("extension/plpgsql.control").is_file();
    asked.into_iter().chain(candidates).find(is_it)
}

/// A database is made with its locale, and a machine that lacks it cannot make the copy.
fn locale(database: &DatabaseFacts, lines: &mut Lines) {
    let wanted = [database.collate.as_str(), database.ctype.as_str()];
    if wanted.iter().all(|name| is_built_in(name)) {
        lines.ok("locale", format!("{}, which every machine has", database.ctype));
        return;
    }
    let Some(installed) = installed_locales() else {
        lines.warning(
            "locale",
            format!(
                "cannot tell whether {} is installed: there is no program `locale`",
                database.collate
            ),
            "apt-get install libc-bin",
        );
        return;
    };
    let lacking: Vec<&str> = wanted
        .into_iter()
        .filter(|name| !is_built_in(name) && !installed.contains(&plain(name)))
        .collect();
    match lacking.first() {
        None => lines.ok("locale", format!("{} is installed", database.collate)),
        Some(name) => lines.failed(
            "locale",
            format!("the locale {name} of the source is not installed here"),
            "apt-get install locales-all",
        ),
    }
}

fn is_built_in(name: &str) -> bool {
    matches!(name, "C" | "POSIX")
}

fn installed_locales() -> Option<Vec<String>> {
    let output = Command::new("locale")
        .arg("-a")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(plain)
            .collect(),
    )
}

/// `en_US.UTF-8` and `en_US.utf8` are the same to the C library.
fn plain(name: &str) -> String {
    match name.split_once('.') {
        Some((language, encoding)) => {
            let encoding: String = encoding.chars().filter(|letter| *letter != '-').collect();
            format!("{language}.{}", encoding.to_ascii_lowercase())
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_locale_are_the_same() {
        assert_eq!(plain("en_US.UTF-8"), plain("en_US.utf8"));
        assert_eq!(plain("de_DE@euro"), "de_DE@euro");
        assert_ne!(plain("en_US.UTF-8"), plain("en_GB.UTF-8"));
    }
}
