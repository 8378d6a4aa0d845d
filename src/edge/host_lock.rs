//! One run of a kind at a time on this host, by `flock`. The lock is gone with the process.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

/// Held until dropped.
#[derive(Debug)]
pub struct HostLock {
    /// None where no folder could hold the file.
    file: Option<File>,
}

/// Somebody else holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock is held by another process")]
pub struct Held;

impl HostLock {
    /// Takes the lock `name` in the first of `folders` where that is possible.
    pub fn take(folders: &[PathBuf], name: &str) -> Result<Self, Held> {
        for folder in folders {
            let path = folder.join(format!("redis-backup-{name}.lock"));
            let opened = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path);
            let Ok(file) = opened else { continue };
            match file.try_lock() {
                Ok(()) => return Ok(Self { file: Some(file) }),
                Err(TryLockError::WouldBlock) => return Err(Held),
                Err(TryLockError::Error(_)) => {}
            }
        }
        Ok(Self { file: None })
    }

    /// Whether anything is locked at all.
    pub const fn is_effective(&self) -> bool {
        self.file.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["/nonexistent".into(), folder.path().to_owned()];
        let first = HostLock::take(&folders, "a").unwrap();
        assert!(first.is_effective());
        assert_eq!(HostLock::take(&folders, "a").unwrap_err(), Held);
        assert!(HostLock::take(&folders, "b").is_ok());
        drop(first);
        assert!(HostLock::take(&folders, "a").is_ok());
        assert!(!HostLock::take(&folders[..1], "a").unwrap().is_effective());
    }
}
