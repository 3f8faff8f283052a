//! Service files: named sets of connection parameters.

use super::ConninfoError;
use super::environment::Environment;
use super::keyword::{self, Parameters};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Reads one service from the first file that has it.
pub(super) fn load(name: &str, environment: &Environment) -> Result<Parameters, ConninfoError> {
    let mut searched = Vec::new();
    for path in files(environment) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(parameters) = section(&text, name, &path)? {
                    return Ok(parameters);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(ConninfoError::ServiceFile { path, source }),
        }
        searched.push(path.display().to_string());
    }
    Err(ConninfoError::UnknownService {
        name: name.to_owned(),
        searched: searched.join(", "),
    })
}

fn files(environment: &Environment) -> Vec<PathBuf> {
    let own = match environment.variable("PGSERVICEFILE") {
        Some(path) => Some(PathBuf::from(path)),
        None => environment.home_file(".pg_service.conf"),
    };
    let system = environment
        .system_directories
        .iter()
        .map(|directory| directory.join("pg_service.conf"));
    own.into_iter().chain(system).collect()
}

fn section(text: &str, name: &str, path: &Path) -> Result<Option<Parameters>, ConninfoError> {
    let mut parameters = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if parameters.is_some() {
                break;
            }
            parameters = (header.strip_suffix(']') == Some(name)).then(Parameters::new);
            continue;
        }
        let Some(parameters) = &mut parameters else {
            continue;
        };
        let fault = |fault| ConninfoError::Malformed {
            fault: format!("line {} of service file {} {fault}", index + 1, path.display()),
        };
        let (key, value) = line.split_once('=').ok_or_else(|| fault("is not `name=value`"))?;
        if key == "service" {
            return Err(fault("names another service, which libpq does not allow"));
        }
        keyword::store(parameters, key, value.to_owned())?;
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[other]\nhost=wrong\n\n[mydb]\n  host=somehost\nport=5433\nuser=admin \n[mydb2]\nport=1\n";

    fn read(text: &str) -> Result<Option<Parameters>, ConninfoError> {
        section(text, "mydb", Path::new("file"))
    }

    #[test]
    fn only_the_named_section_counts() {
        let parameters = read(FILE).unwrap().unwrap();
        let pairs: Vec<_> = parameters
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(pairs, [("host", "somehost"), ("port", "5433"), ("user", "admin")]);
        assert!(read("[x]\nhost=a\n").unwrap().is_none());
    }

    #[test]
    fn faults_in_the_section_are_told_with_their_line() {
        let Err(error) = read("[mydb]\nhost\n") else {
            panic!("accepted")
        };
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(read("[mydb]\nservice=x\n").is_err());
        assert!(read("[mydb]\nnonsense=x\n").is_err());
        assert!(read("[other]\nnonsense\n[mydb]\nhost=a\n").is_ok());
    }
}
