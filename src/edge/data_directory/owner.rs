//! Whose files a dataset consists of and who may read them: as the old ones. Never widens a mode.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use super::{Acts, DataDirectory, Error, acts};
use crate::domain::dataset::Names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    user: u32,
    group: u32,
    file_mode: u32,
    folder_mode: u32,
    /// An old file told it; otherwise it is a guess from the directory.
    known: bool,
}

impl Owner {
    pub(super) fn of(directory: &DataDirectory, names: &Names) -> Result<Self, Error> {
        let dir = &directory.dir;
        let folder = dir.join(&names.appenddirname);
        let mut files = vec![dir.join(&names.dbfilename), dir.join(&names.appendfilename)];
        let inside = acts::names(&folder)?.unwrap_or_default();
        files.extend(inside.iter().map(|name| folder.join(name)));
        let of_dir = metadata(dir)?.ok_or_else(|| Error::NotADirectory { dir: dir.clone() })?;
        let folder_mode = metadata(&folder)?.unwrap_or_else(|| of_dir.clone()).mode() & 0o7777;
        for file in files {
            if let Some(old) = metadata(&file)?.filter(Metadata::is_file) {
                return Ok(Self {
                    user: old.uid(),
                    group: old.gid(),
                    file_mode: old.mode() & 0o777,
                    folder_mode,
                    known: true,
                });
            }
        }
        // A volume that Kubernetes gives to a group belongs to root; its server writes as the group.
        let user = if is_root() { of_dir.uid() } else { rustix::process::geteuid().as_raw() };
        let group = of_dir.gid();
        Ok(Self { user, group, file_mode: 0o660, folder_mode, known: false })
    }

    pub(super) fn give_file(&self, acts: &Acts, path: &Path) -> Result<Option<String>, Error> {
        self.give(acts, path, self.file_mode)
    }

    pub(super) fn give_folder(&self, acts: &Acts, path: &Path) -> Result<Option<String>, Error> {
        self.give(acts, path, self.folder_mode)
    }

    /// What a person should know, if no old file told the owner.
    pub(super) fn remark(&self) -> Option<String> {
        (!self.known && self.user == 0).then(|| {
            "no old file tells who owns the dataset, so it belongs to root like the directory; the server must be able to read and write it".to_owned()
        })
    }

    /// A remark where the owner could not be given.
    fn give(&self, acts: &Acts, path: &Path, mode: u32) -> Result<Option<String>, Error> {
        let &Self { user, group, .. } = self;
        acts.act(format!("set owner and mode of {}", path.display()), || {
            let is = fs::metadata(path)?;
            let mut remark = None;
            if (is.uid(), is.gid()) != (user, group)
                && let Err(error) = std::os::unix::fs::chown(path, Some(user), Some(group))
            {
                if error.kind() != io::ErrorKind::PermissionDenied {
                    return Err(error);
                }
                remark = Some(format!(
                    "the new files belong to {}:{}, the old ones to {user}:{group}, and we may not change that",
                    is.uid(),
                    is.gid(),
                ));
            }
            fs::set_permissions(path, Permissions::from_mode(mode))?;
            fs::File::open(path)?.sync_all()?;
            Ok(remark)
        })
    }
}

pub(super) fn metadata(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Act { attempt: format!("look at {}", path.display()), source }),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
