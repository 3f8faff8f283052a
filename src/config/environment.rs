//! What the process was started with: variables, user, directory. Read once at the rim, an argument everywhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Environment {
    pub variables: BTreeMap<String, String>,
    pub is_root: bool,
    /// Where `./ernstfall.toml` is looked for.
    pub current_directory: PathBuf,
}

impl Environment {
    /// That of this process. Variables that are not Unicode are left out: no setting of ours can be one.
    pub fn of_this_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(unicode).collect(),
            is_root: nix::unistd::geteuid().is_root(),
            current_directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Where configurations are looked for when none is named, first one first.
    pub fn config_candidates(&self) -> Vec<PathBuf> {
        let mut candidates = Vec::new();
        candidates.extend(
            self.variable("ERNSTFALL_CONFIG")
                .map(|path| self.current_directory.join(path)),
        );
        candidates.push(self.current_directory.join("ernstfall.toml"));
        let user_directory = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| {
            self.variable("HOME")
                .map(|home| PathBuf::from(home).join(".config"))
        });
        candidates.extend(user_directory.map(|directory| directory.join("ernstfall/ernstfall.toml")));
        candidates.push(PathBuf::from("/etc/ernstfall/ernstfall.toml"));
        candidates
    }

    pub fn default_state_dir(&self) -> PathBuf {
        let system_wide = || PathBuf::from("/var/lib/ernstfall");
        if self.is_root {
            return system_wide();
        }
        self.variable("XDG_STATE_HOME")
            .map(|state| PathBuf::from(state).join("ernstfall"))
            .or_else(|| {
                self.variable("HOME")
                    .map(|home| PathBuf::from(home).join(".local/state/ernstfall"))
            })
            .unwrap_or_else(system_wide)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Environment")
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("is_root", &self.is_root)
            .field("current_directory", &self.current_directory)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)], is_root: bool) -> Environment {
        Environment {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            is_root,
            current_directory: PathBuf::from("/srv"),
        }
    }

    #[test]
    fn the_named_configuration_comes_before_those_that_lie_about() {
        let paths =
            environment(&[("ERNSTFALL_CONFIG", "mine.toml"), ("HOME", "/home/a")], false).config_candidates();
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/srv/mine.toml",
                "/srv/ernstfall.toml",
                "/home/a/.config/ernstfall/ernstfall.toml",
                "/etc/ernstfall/ernstfall.toml"
            ]
        );
    }

    #[test]
    fn state_is_kept_system_wide_by_root_and_at_home_by_others() {
        let home = [("HOME", "/home/a")];
        assert_eq!(
            environment(&home, true).default_state_dir(),
            PathBuf::from("/var/lib/ernstfall")
        );
        assert_eq!(
            environment(&home, false).default_state_dir(),
            PathBuf::from("/home/a/.local/state/ernstfall")
        );
        let state = [("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(
            environment(&state, false).default_state_dir(),
            PathBuf::from("/s/ernstfall")
        );
    }

    #[test]
    fn debug_output_shows_no_values() {
        let shown = format!("{:?}", environment(&[("PGPASSWORD", "hunter2")], false));
        assert!(shown.contains("PGPASSWORD") && !shown.contains("hunter2"));
    }
}
