//! The append-only files of a container's data directory, all opened by one command. Never reads past what was there then.

use std::path::PathBuf;

use super::{Container, Streamed};
use crate::{
    domain::{
        aof::list::{self, EXTENSION, FileList, Role},
        capture::FileNames,
    },
    edge::live_directory::{AofFile, AofSet, Error, OpenFile, aof::SINGLE},
};

/// Each of them is held open by a process of its own.
const FILES_MAX: usize = 64;

impl Container {
    /// Every file that the server's own list names. None when the list changed meanwhile or a file was
    /// gone.
    pub(super) async fn open_set(&self, names: &FileNames) -> Result<Option<AofSet>, Error> {
        let list_path = self.list_path(names).await?;
        let Some(before) = self.read(&list_path).await? else { return Ok(None) };
        let path = || PathBuf::from(&list_path);
        let list =
            FileList::parse(&before).map_err(|source| Error::List { path: path(), source })?;
        let listed: Vec<list::File> = list.load_order().cloned().collect();
        if listed.len() > FILES_MAX {
            let finding = "names more files than are opened in a container";
            return Err(Error::Unsuitable { path: path(), finding });
        }
        let folder = list_path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let count = listed.len();
        // The list holds plain names only, so this never leaves the folder.
        let of = |(number, file): (usize, &list::File)| {
            (format!("{folder}/{}", file.name), number + 1 == count)
        };
        let files: Vec<(String, bool)> = listed.iter().enumerate().map(of).collect();
        let Some((stream, opened)) = self.open(&files, Some(&list_path)).await? else {
            return Ok(None);
        };
        if opened.list != Some((before.len() as u64, self.tool.sum(&before))) {
            return Ok(None);
        }
        let sent = Streamed::all(stream, count).into_iter().map(OpenFile::Streamed);
        let files = sent.zip(listed).zip(opened.files);
        let files =
            files.map(|((file, listed), state)| AofFile { file, listed, bytes: state.bytes });
        Ok(Some(AofSet { files: files.collect() }))
    }

    /// The one file of servers before 7.0.
    pub(super) async fn open_single(&self, names: &FileNames) -> Result<Option<AofSet>, Error> {
        let name = names.appendfilename.as_deref().unwrap_or(SINGLE);
        let path = format!("{}/{name}", self.directory);
        let Some((stream, opened)) = self.open(&[(path, true)], None).await? else {
            return Ok(None);
        };
        let listed = list::File { name: name.to_owned(), sequence: 1, role: Role::Base };
        let sent = Streamed::all(stream, 1).into_iter().zip(opened.files);
        let files = sent.map(|(file, state)| AofFile {
            file: OpenFile::Streamed(file),
            listed: listed.clone(),
            bytes: state.bytes,
        });
        Ok(Some(AofSet { files: files.collect() }))
    }

    /// As the server calls it, or else the only list in a folder of the data directory.
    async fn list_path(&self, names: &FileNames) -> Result<String, Error> {
        if let (Some(folder), Some(file)) = (&names.appenddirname, &names.appendfilename) {
            return Ok(format!("{}/{folder}/{file}{EXTENSION}", self.directory));
        }
        let mut found = self.look(None).await?.lists.into_iter();
        match (found.next(), found.next()) {
            (Some(path), None) => Ok(format!("{}/{path}", self.directory)),
            (None, _) => Err(Error::Unsuitable {
                path: PathBuf::from(&self.directory),
                finding: "holds no list of append-only files (`*.manifest` in a folder of it)",
            }),
            (Some(_), Some(_)) => Err(Error::Unsuitable {
                path: PathBuf::from(&self.directory),
                finding: "holds several lists of append-only files; let the user CONFIG GET appendfilename",
            }),
        }
    }

    /// A small file. None when it is gone.
    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((mut stream, _)) = self.open(&[(path.to_owned(), false)], None).await? else {
            return Ok(None);
        };
        let mut read = Vec::new();
        while let Some((_, bytes)) = stream.next(0).await? {
            read.extend(bytes);
            // One byte more than a list may have tells that it is none.
            if read.len() > list::BYTES_MAX {
                break;
            }
        }
        Ok(Some(read))
    }
}
