//! Copies of this program, and of the authorities that its image trusts, for other images. A copy appears whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// What is copied, and so what may be replaced by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Program,
    /// PEM of the authorities of TLS.
    Authorities,
}

/// A file that could be copied to its place, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub bytes: u64,
    /// A copy of another time was there.
    pub replaces: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("install to {}: {finding}", path.display())]
    Unsuitable { path: PathBuf, finding: &'static str },
    #[error("{attempt} {}", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The program that runs, whatever became of its name.
pub const RUNNING: &str = "/proc/self/exe";

/// Where our own image has the authorities, and Debian.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Everybody may read and run it, nobody change it.
const MODE_OF_PROGRAM: u32 = 0o555;
const MODE_OF_AUTHORITIES: u32 = 0o444;

/// Of a file that is there, to see what it is.
const HEAD_BYTES: u64 = 64 << 10;

/// Whether `from` can be copied to `target`. Changes nothing.
pub fn check(from: &Path, target: &Path, content: Content) -> Result<Placed, Error> {
    let fail = |attempt| move |source| Error::File { attempt, path: target.to_owned(), source };
    let unsuitable = |finding| Error::Unsuitable { path: target.to_owned(), finding };
    let copied = open(from)?.metadata().map_err(fail("look at"))?;
    let names_a_file =
        target.file_name().is_some() && !target.as_os_str().to_string_lossy().ends_with('/');
    if !names_a_file || target.is_dir() {
        return Err(unsuitable("it names a folder, not the file to be made in it"));
    }
    if !folder_of(target).is_dir() {
        return Err(unsuitable("its folder is not there"));
    }
    let there = match fs::symlink_metadata(target) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Placed { bytes: copied.len(), replaces: false });
        }
        Err(error) => return Err(fail("look at")(error)),
    };
    if !there.is_file() {
        return Err(unsuitable("it is a link or a special file"));
    }
    if (there.dev(), there.ino()) == (copied.dev(), copied.ino()) {
        return Err(unsuitable("it is the very file that is to be copied"));
    }
    let mut head = Vec::new();
    open(target)?.take(HEAD_BYTES).read_to_end(&mut head).map_err(fail("read"))?;
    if !is_such(&head, content) {
        return Err(unsuitable("another file is there, which is no older copy"));
    }
    Ok(Placed { bytes: copied.len(), replaces: true })
}

/// Copies `from` to `target`, which must not be in use by a writer. Blocks.
pub fn place(from: &Path, target: &Path, content: Content) -> Result<Placed, Error> {
    let placed = check(from, target, content)?;
    let folder = folder_of(target);
    let fail = |attempt| move |source| Error::File { attempt, path: target.to_owned(), source };
    let mut copy = NamedTempFile::new_in(folder).map_err(fail("make a file beside"))?;
    io::copy(&mut open(from)?, &mut copy).map_err(fail("copy to"))?;
    let mode = match content {
        Content::Program => MODE_OF_PROGRAM,
        Content::Authorities => MODE_OF_AUTHORITIES,
    };
    copy.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .map_err(fail("set the mode of"))?;
    copy.as_file().sync_all().map_err(fail("write"))?;
    copy.persist(target).map_err(|error| fail("rename the copy to")(error.error))?;
    Ok(placed)
}

fn open(path: &Path) -> Result<File, Error> {
    let fail = |source| Error::File { attempt: "open", path: path.to_owned(), source };
    File::open(path).map_err(fail)
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// An ELF program, or PEM of certificates.
fn is_such(head: &[u8], content: Content) -> bool {
    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
    match content {
        Content::Program => head.starts_with(b"\x7fELF"),
        Content::Authorities => head.windows(CERTIFICATE.len()).any(|it| it == CERTIFICATE),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_is_copied_whole_and_may_be_run_by_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("program");
        let placed = place(RUNNING.as_ref(), &target, Content::Program).unwrap();
        assert!(!placed.replaces);
        assert_eq!(fs::read(&target).unwrap(), fs::read(RUNNING).unwrap());
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o555);
        // As an init container does that is started again.
        assert!(place(RUNNING.as_ref(), &target, Content::Program).unwrap().replaces);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "something is left beside it");
    }

    #[test]
    fn nothing_but_an_older_copy_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("config.yaml"), "sources: {}").unwrap();
        fs::write(path("program"), "\x7fELF").unwrap();
        symlink(path("program"), path("link")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        for (name, expected) in [
            ("config.yaml", "no older copy"),
            ("link", "a link"),
            ("folder", "names a folder"),
            ("new/", "names a folder"),
            ("..", "names a folder"),
            ("nowhere/program", "its folder is not there"),
        ] {
            let error = place(RUNNING.as_ref(), &path(name), Content::Program).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
        let itself = place(&path("program"), &path("program"), Content::Program).unwrap_err();
        assert!(itself.to_string().contains("the very file"), "{itself}");
        assert_eq!(fs::read(path("config.yaml")).unwrap(), b"sources: {}");
        assert!(path("link").is_symlink());
    }

    #[test]
    fn authorities_replace_authorities_and_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ours"), "# theirs\n-----BEGIN CERTIFICATE-----\n").unwrap();
        fs::write(path("program"), "\x7fELF").unwrap();
        for replaces in [false, true] {
            let placed = place(&path("ours"), &path("copy"), Content::Authorities).unwrap();
            assert_eq!(placed, Placed { bytes: 37, replaces });
        }
        assert!(place(&path("ours"), &path("program"), Content::Authorities).is_err());
        assert!(place(&path("absent"), &path("copy"), Content::Authorities).is_err());
    }
}
