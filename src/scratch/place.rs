//! The place of one scratch on disk: who made it, whether its maker lives, and who may enter it.
//!
//! ```text
//! base/<8 hex>/  owner.json  lock  settings.conf  output.log   written by us, never seen writable inside
//!                root/       where the sandbox builds its root
//!                canary/     what the probe must not reach
//!                run/        the server's own: socket, data/, log/
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::error::ScratchError;
use super::sandbox::spec::Identity;

/// The system's limit for the path of a Unix socket, without the NUL.
const SOCKET_PATH_LIMIT: usize = 107;

const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Marks a directory as made by us: nothing else is ever removed.
pub(super) const MADE_BY: &str = "ernstfall";

/// `owner.json`: enough to find out whether the maker still lives, and to end what it left running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) made_by: String,
    pub(super) format: u32,
    pub(super) run: String,
    pub(super) maker: ProcessId,
    /// The sandbox of the running server.
    pub(super) server: Option<ProcessId>,
    pub(super) kept: bool,
}

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) number: i32,
    pub(super) start_time: Option<u64>,
    pub(super) boot: Option<String>,
}

impl ProcessId {
    pub(super) fn of(number: i32) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            number,
            start_time: start_time(number),
            boot: boot.map(|text| text.trim().to_owned()),
        }
    }

    /// Whether this very process runs now. Unknown is no: nothing is killed on a guess.
    pub(super) fn is_alive(&self) -> bool {
        self.start_time.is_some() && *self == Self::of(self.number)
    }
}

/// In clock ticks since the start of the machine: field 22, counted after the name, which may hold anything.
fn start_time(process: i32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    line.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A scratch directory whose lock is held by this process.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) owner: Owner,
    /// Held while the scratch lives; the kernel lets it go when this process dies, however it dies.
    _lock: File,
}

impl Place {
    /// Makes a new scratch directory below the base, or below the short one when the base will not do.
    pub(super) fn claim(base: &Path, run: &str, identity: Option<&Identity>) -> Result<Self, ScratchError> {
        let base = usable_base(base, identity)?;
        let mut number = [0u8; 4];
        getrandom::fill(&mut number)
            .map_err(|error| ScratchError::directory("name a scratch in", &base)(io::Error::other(error)))?;
        let directory = base.join(format!("{:08x}", u32::from_le_bytes(number)));
        // With an identity the group may pass through, not look: only `run` is the server's.
        let mode = if identity.is_some() { 0o710 } else { 0o700 };
        let made = make_directory(&directory, mode)
            .and_then(|()| give(&directory, None, identity.map(|identity| identity.gid)));
        made.map_err(ScratchError::directory("make the scratch directory", &directory))?;
        let lock =
            lock(&directory).map_err(ScratchError::directory("lock the scratch directory", &directory))?;
        let owner = Owner {
            made_by: MADE_BY.into(),
            format: 1,
            run: run.into(),
            maker: ProcessId::of(std::process::id() as i32),
            server: None,
            kept: false,
        };
        let place = Self {
            directory,
            owner,
            _lock: lock,
        };
        place.write_owner()?;
        place.furnish(identity).map_err(ScratchError::directory(
            "furnish the scratch directory",
            &place.directory,
        ))?;
        Ok(place)
    }

    fn furnish(&self, identity: Option<&Identity>) -> io::Result<()> {
        let (uid, gid) = identity.map(|identity| (identity.uid, identity.gid)).unzip();
        for path in [self.run(), self.canary(), self.new_root()] {
            make_directory(&path, 0o700)?;
            give(&path, uid, gid)?;
        }
        Ok(())
    }

    /// The server's own directory, which also holds the socket.
    pub(super) fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.run().join("data")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.run().join("log")
    }

    pub(super) fn canary(&self) -> PathBuf {
        self.directory.join("canary")
    }

    pub(super) fn new_root(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub(super) fn settings_file(&self) -> PathBuf {
        self.directory.join("settings.conf")
    }

    /// What the programs write to stdout and stderr.
    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("output.log")
    }

    pub(super) fn write_owner(&self) -> Result<(), ScratchError> {
        let path = self.directory.join("owner.json");
        let written = serde_json::to_vec_pretty(&self.owner)
            .map_err(io::Error::other)
            .and_then(|text| replace(&path, &text, 0o600));
        written.map_err(ScratchError::directory("write", &path))
    }

    /// The server reads its settings, and may not change them.
    pub(super) fn write_settings(&self, text: &str, identity: Option<&Identity>) -> Result<(), ScratchError> {
        let path = self.settings_file();
        replace(&path, text.as_bytes(), 0o640)
            .and_then(|()| give(&path, None, identity.map(|identity| identity.gid)))
            .map_err(ScratchError::directory("write", &path))
    }
}

/// Reads the owner file of a directory, if it is one of ours and was written by this user.
pub(super) fn read_owner(directory: &Path) -> Option<Owner> {
    let path = directory.join("owner.json");
    let metadata = path.symlink_metadata().ok()?;
    if !metadata.is_file() || metadata.uid() != Uid::effective().as_raw() {
        return None;
    }
    let owner: Owner = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (owner.made_by == MADE_BY).then_some(owner)
}

/// Takes the lock of a scratch directory, or fails at once when its maker lives.
pub(super) fn lock(directory: &Path) -> io::Result<File> {
    let path = directory.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.try_lock().map_err(io::Error::from)?;
    Ok(file)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(content)?;
    fs::rename(new, path)
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    // Again, since the mask of this process may have taken bits away.
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn give(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    Ok(nix::unistd::chown(
        path,
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
    )?)
}

/// The base itself, or a short directory under /var/tmp where its path is too long for a socket or not
/// passable for the server's user.
fn usable_base(base: &Path, identity: Option<&Identity>) -> Result<PathBuf, ScratchError> {
    DirBuilder::new()
        .recursive(true)
        .mode(if identity.is_some() { 0o711 } else { 0o700 })
        .create(base)
        .map_err(ScratchError::directory("make the scratch base", base))?;
    // A service manager may have made it a link, and the sandbox binds the real path.
    let base = base
        .canonicalize()
        .map_err(ScratchError::directory("look at the scratch base", base))?;
    let usable = |base: &Path| {
        socket_length(base) <= SOCKET_PATH_LIMIT && identity.is_none_or(|identity| passable(base, identity))
    };
    if usable(&base) {
        return Ok(base);
    }
    let short = fallback_base(&base);
    if short.symlink_metadata().is_err() {
        make_directory(&short, if identity.is_some() { 0o711 } else { 0o700 })
            .map_err(ScratchError::directory("make the scratch base", &short))?;
    }
    check_ours(&short)?;
    match usable(&short) {
        true => Ok(short),
        false => Err(ScratchError::SocketPath {
            length: socket_length(&base),
            path: base,
        }),
    }
}

/// Anybody may make names in /var/tmp: another user's directory, or a link, is never entered.
fn check_ours(path: &Path) -> Result<(), ScratchError> {
    let metadata = path
        .symlink_metadata()
        .map_err(ScratchError::directory("look at", path))?;
    let foreign = |why| {
        Err(ScratchError::ForeignDirectory {
            path: path.to_path_buf(),
            why,
        })
    };
    if !metadata.is_dir() {
        return foreign("not a directory, or a link");
    }
    if metadata.uid() != Uid::effective().as_raw() {
        return foreign("it belongs to another user");
    }
    if metadata.mode() & 0o066 != 0 {
        return foreign("others may read or write it");
    }
    Ok(())
}

/// The short directory that stands in for a base. The same base always has the same one, so sweeping finds it.
pub(super) fn fallback_base(base: &Path) -> PathBuf {
    let hash = xxhash_rust::xxh3::xxh3_64(base.as_os_str().as_bytes()) as u32;
    PathBuf::from(format!("/var/tmp/ernstfall-{}-{hash:08x}", Uid::effective()))
}

fn socket_length(base: &Path) -> usize {
    base.join("00000000/run").join(SOCKET_NAME).as_os_str().len()
}

/// Whether the user may pass through a directory and all above it, by their permission bits.
fn passable(base: &Path, identity: &Identity) -> bool {
    base.ancestors().all(|directory| {
        directory.metadata().is_ok_and(|metadata| {
            let needed = if metadata.uid() == identity.uid {
                0o100
            } else if metadata.gid() == identity.gid {
                0o010
            } else {
                0o001
            };
            metadata.mode() & needed != 0
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_too_long_for_a_socket_is_replaced_by_a_short_one() {
        let root = tempfile::tempdir().unwrap();
        let long = root.path().join("x".repeat(100));
        let place = Place::claim(&long, "run", None).unwrap();
        assert!(place.directory.starts_with("/var/tmp"), "{place:?}");
        assert!(place.run().join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_LIMIT);
        let short = place.directory.parent().unwrap().to_path_buf();
        fs::remove_dir_all(short).unwrap();
    }

    #[test]
    fn a_directory_closed_to_the_servers_user_is_not_passable() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let identity = Identity {
            name: "somebody".into(),
            uid: 4242,
            gid: 4242,
        };
        assert!(!passable(&root.path().canonicalize().unwrap(), &identity));
        assert!(passable(Path::new("/usr/lib"), &identity));
    }

    #[test]
    fn a_link_in_place_of_the_short_base_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        assert!(matches!(
            check_ours(&link),
            Err(ScratchError::ForeignDirectory { .. })
        ));
    }

    #[test]
    fn the_lock_of_a_living_scratch_cannot_be_taken() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::claim(root.path(), "run", None).unwrap();
        assert!(lock(&place.directory).is_err());
        assert_eq!(read_owner(&place.directory).unwrap().run, "run");
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = ProcessId::of(std::process::id() as i32);
        assert!(me.is_alive());
        assert!(
            !ProcessId {
                start_time: Some(1),
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !ProcessId {
                boot: Some("another".into()),
                ..me
            }
            .is_alive()
        );
    }
}
