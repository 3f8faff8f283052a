//! The mount layer: a new root in which there is nothing but the server's programs, read-only, a private /tmp
//! and /dev, and the scratch directory. No /proc: PostgreSQL does not need it, and it tells of others.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::raw;
use super::spec::Specification;

/// Directories of programs and libraries. On merged systems most are links into /usr.
const PROGRAM_DIRECTORIES: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"];

/// What programs read outside /usr. Debian keeps the dictionaries of text search under /var/cache.
pub(super) const SYSTEM_FILES: [&str; 9] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/alternatives",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/var/cache/postgresql/dicts",
];

pub(super) const DEVICES: [&str; 4] = ["null", "zero", "random", "urandom"];

/// Where the probe is in the new root.
pub(super) const PROBE: &str = "/run/ernstfall-probe";

/// The directories with programs: the system's, and those of an installation outside them.
pub(super) fn program_directories(specification: &Specification) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = PROGRAM_DIRECTORIES.iter().map(PathBuf::from).collect();
    let bin = specification.program.parent().unwrap_or(Path::new("/"));
    let prefix = bin.parent().unwrap_or(Path::new("/"));
    if !directories.iter().any(|directory| bin.starts_with(directory)) {
        // Not the whole prefix: it may be a home directory.
        directories.push(bin.to_path_buf());
        directories.extend(["lib", "lib64", "share"].map(|name| prefix.join(name)));
    }
    directories
}

/// Builds the new root and moves into it. On an error nothing that this process sees has changed.
pub(super) fn enter(specification: &Specification) -> io::Result<()> {
    let new_root = specification.new_root.as_path();
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(named("make private", Path::new("/")))?;
    tmpfs(new_root, "mode=0755,size=256m")?;
    // Before everything else: what is shown may lie below them.
    for (path, options) in [("tmp", "mode=1777,size=64m"), ("dev/shm", "mode=1777")] {
        std::fs::create_dir_all(new_root.join(path))?;
        tmpfs(&new_root.join(path), options)?;
    }
    let inside = |path: &Path| new_root.join(path.strip_prefix("/").unwrap_or(path));
    for directory in program_directories(specification) {
        show(&directory, &inside(&directory))?;
    }
    for file in SYSTEM_FILES.iter().map(Path::new) {
        // These two would name the users of the machine, and may lack the one that the server runs as.
        if !matches!(
            file.to_str(),
            Some("/etc/passwd" | "/etc/group" | "/etc/nsswitch.conf")
        ) {
            show(file, &inside(file))?;
        }
    }
    for path in &specification.readable {
        show(path, &inside(path))?;
    }
    probe(&specification.own_binary, &inside(Path::new(PROBE)))?;
    accounts(specification, new_root)?;
    devices(new_root)?;
    let writable = inside(&specification.writable);
    std::fs::create_dir_all(&writable)?;
    mount(
        Some(&specification.writable),
        &writable,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(named("show", &specification.writable))?;
    // Only the root itself is closed to writing: not recursively, the scratch directory lies below it.
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, new_root, None::<&str>, flags, None::<&str>)
        .map_err(named("close to writing", new_root))?;
    std::env::set_current_dir(new_root)?;
    nix::unistd::pivot_root(".", ".").map_err(named("move into", new_root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(named("leave", Path::new("/")))?;
    std::env::set_current_dir("/")
}

/// Puts our own binary into the new root.
fn probe(own_binary: &Path, target: &Path) -> io::Result<()> {
    let running = Path::new("/proc/self/exe");
    let same = match (running.metadata(), own_binary.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    if same {
        bind(own_binary, target, Target::File)?;
        return raw::make_read_only(target);
    }
    // Its directory is closed to this user, or a newer version has taken its name. It cannot be bound by the
    // link, which leads into the mount namespace that was left.
    create_parent(target)?;
    std::fs::copy(running, target)?;
    std::fs::set_permissions(target, PermissionsExt::from_mode(0o555))
}

enum Target {
    Directory,
    File,
}

/// Shows a path of the machine read-only at a place in the new root; a link is made again as a link.
fn show(source: &Path, target: &Path) -> io::Result<()> {
    let Ok(metadata) = source.symlink_metadata() else {
        return Ok(());
    };
    if metadata.is_symlink() && !source.starts_with("/etc") {
        create_parent(target)?;
        return std::os::unix::fs::symlink(std::fs::read_link(source)?, target);
    }
    // A link in /etc may point outside of what is shown; what it points at is bound instead.
    let Ok(metadata) = source.metadata() else {
        return Ok(());
    };
    bind(
        source,
        target,
        if metadata.is_dir() {
            Target::Directory
        } else {
            Target::File
        },
    )?;
    raw::make_read_only(target)
}

fn bind(source: &Path, target: &Path, kind: Target) -> io::Result<()> {
    match kind {
        Target::Directory => std::fs::create_dir_all(target)?,
        Target::File => {
            create_parent(target)?;
            std::fs::File::create(target)?;
        }
    }
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(named("show", source))
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

/// Says which step was refused: the number alone would not tell what to allow.
fn named(step: &str, path: &Path) -> impl FnOnce(nix::Error) -> io::Error {
    let context = format!("{step} {}", path.display());
    move |error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{context}: {error}"))
    }
}

fn tmpfs(path: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(named("mount a tmpfs on", path))
}

/// A passwd and a group with one line: initdb asks for the name of the user it runs as.
fn accounts(specification: &Specification, new_root: &Path) -> io::Result<()> {
    let name = specification
        .identity
        .as_ref()
        .map_or("ernstfall", |identity| identity.name.as_str());
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let etc = new_root.join("etc");
    std::fs::create_dir_all(&etc)?;
    for (file, text) in [
        ("passwd", format!("{name}:x:{uid}:{gid}::/tmp:/bin/sh\n")),
        ("group", format!("{name}:x:{gid}:\n")),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
        ),
    ] {
        std::fs::write(etc.join(file), text)?;
        std::fs::set_permissions(etc.join(file), PermissionsExt::from_mode(0o444))?;
    }
    Ok(())
}

fn devices(new_root: &Path) -> io::Result<()> {
    for name in DEVICES {
        bind(
            &Path::new("/dev").join(name),
            &new_root.join("dev").join(name),
            Target::File,
        )?;
    }
    Ok(())
}
