//! Which repository was found where: a disk that is not mounted must not be taken for a place where none was made yet.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::journal::{Error, Journal};
use crate::repository::{Repository, sha256_hex};
use crate::store::durable::{make_directories, write_over};

impl Journal {
    /// The file that says which repository was at this place; it need not be there.
    pub fn place_file(&self, location: &str) -> PathBuf {
        let name = sha256_hex(location.as_bytes());
        self.places_folder().join(&name[..16])
    }

    /// The id of the repository that this machine last used at this place.
    pub fn repository_at(&self, location: &str) -> Result<Option<String>, Error> {
        let path = self.place_file(location);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().next().map(str::to_owned)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Notes that this repository is used.
    pub fn note_place(&self, repository: &Repository) -> Result<(), Error> {
        let location = repository.location();
        if self.repository_at(&location)?.as_deref() == Some(repository.id()) {
            return Ok(());
        }
        let path = self.place_file(&location);
        let text = format!("{}\n{location}\n", repository.id());
        let write = || {
            make_directories(&self.places_folder())?;
            write_over(&self.temporary_folder(), &path, text.as_bytes())
        };
        write().map_err(Error::io("write", &path))
    }

    fn places_folder(&self) -> PathBuf {
        self.state_dir.join("repositories")
    }
}
