//! The RDB files of a data directory, held open across a save so that the new one is told from the old. Never writes.

use std::{ffi::OsString, fs::File, io, path::Path};

use super::{ENTRIES_MAX, Error, Identity, OpenFile, open, read_at};

const MAGICS: [&[u8]; 2] = [b"REDIS0", b"VALKEY"];

/// An RDB file that is open: what replaces it later does not change what is read from it.
#[derive(Debug)]
pub struct Dump {
    pub file: OpenFile,
    pub name: OsString,
    pub bytes: u64,
}

#[derive(Debug)]
struct Found {
    file: File,
    name: OsString,
    bytes: u64,
    identity: Identity,
}

/// The RDB files that lie there. While this lives, no new file gets the identity of one of them.
#[derive(Debug)]
pub(super) struct Dumps {
    /// As the server calls its RDB; none where it does not tell, and then it may be any.
    name: Option<OsString>,
    found: Vec<Found>,
}

impl Dumps {
    pub(super) fn open(folder: &Path, name: Option<&str>) -> Result<Self, Error> {
        let name = name.map(OsString::from);
        let found = find(folder, name.as_ref())?;
        Ok(Self { name, found })
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.found.iter().map(|dump| dump.bytes).max().unwrap_or(0)
    }

    /// The RDB file that was not there before.
    pub(super) fn fresh(&self, folder: &Path) -> Result<Option<Dump>, Error> {
        let now = find(folder, self.name.as_ref())?;
        let is_new = |dump: &Found| self.found.iter().all(|old| old.identity != dump.identity);
        let fresh = now.into_iter().find(is_new);
        Ok(fresh.map(|Found { file, name, bytes, identity: _ }| {
            let file = OpenFile::Local(file);
            Dump { file, name, bytes }
        }))
    }
}

fn find(folder: &Path, name: Option<&OsString>) -> Result<Vec<Found>, Error> {
    let names = match name {
        Some(name) => vec![name.clone()],
        None => names(folder)?,
    };
    let mut found = Vec::new();
    for name in names {
        match open_dump(folder, name) {
            Ok(dump) => found.extend(dump),
            Err(Error::Look { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Of all that could be an RDB; a file that a child still writes could not.
fn names(folder: &Path) -> Result<Vec<OsString>, Error> {
    let fail = |source| Error::Look { attempt: "list", path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(fail)?.take(ENTRIES_MAX) {
        let entry = entry.map_err(fail)?;
        let is_file = entry.file_type().map_err(fail)?.is_file();
        let name = entry.file_name();
        if is_file && !name.as_encoded_bytes().starts_with(b"temp-") {
            names.push(name);
        }
    }
    Ok(names)
}

/// None for a file of another kind.
fn open_dump(folder: &Path, name: OsString) -> Result<Option<Found>, Error> {
    let path = folder.join(&name);
    let fail = |source| Error::Look { attempt: "read", path: path.clone(), source };
    let file = open(&path)?;
    let mut head = [0; 6];
    let count = read_at(&file, &mut head, 0).map_err(fail)?;
    if !MAGICS.contains(&&head[..count]) {
        return Ok(None);
    }
    let metadata = file.metadata().map_err(fail)?;
    Ok(Some(Found { file, name, bytes: metadata.len(), identity: Identity::of(&metadata) }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_replaced_dump_is_fresh_and_an_old_one_or_a_half_written_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("dump.rdb"), "REDIS0011").unwrap();
        fs::write(path("nodes.conf"), "0123456789").unwrap();
        for name in [Some("dump.rdb"), None] {
            let dumps = Dumps::open(folder.path(), name).unwrap();
            assert_eq!(dumps.bytes_max(), 9);
            fs::write(path("temp-77.rdb"), "REDIS0011new").unwrap();
            assert!(dumps.fresh(folder.path()).unwrap().is_none(), "{name:?}");
            fs::rename(path("temp-77.rdb"), path("dump.rdb")).unwrap();
            assert_eq!(dumps.fresh(folder.path()).unwrap().unwrap().bytes, 12);
            fs::write(path("temp-78.rdb"), "REDIS0011").unwrap();
            fs::rename(path("temp-78.rdb"), path("dump.rdb")).unwrap();
        }
        assert!(Dumps::open(folder.path(), Some("none.rdb")).unwrap().found.is_empty());
    }
}
