//! Versions, retention and legal hold of a bucket. Never bypasses a lock.

use std::cmp::Reverse;

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    operation::RequestId,
    primitives::DateTime,
    types::{
        BucketVersioningStatus, ObjectLockEnabled, ObjectLockLegalHold, ObjectLockLegalHoldStatus,
        ObjectLockMode, ObjectLockRetentionMode,
    },
};
use jiff::Timestamp;

use super::{
    Bucket,
    client::ServerClock,
    error::{Action, SdkError, code, failed},
    length,
};
use crate::{
    domain::{
        catalog::Key,
        lock::{Lock, LockMode, Protection},
    },
    edge::store::{Error, LISTED_MAX, NO_LOCKS, NO_VERSIONS, Safeguards, Version, Versioning},
};

/// How long and how firmly each object that is written shall be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockOnPut {
    pub mode: LockMode,
    pub retain_until: Timestamp,
}

/// What S3 calls an object that was written when the bucket kept no versions.
const NULL_VERSION: &str = "null";

impl LockOnPut {
    pub(super) fn mode(self) -> ObjectLockMode {
        match self.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        }
    }

    /// To the second, rounded up: never shorter than asked for.
    pub(super) fn until(self) -> DateTime {
        let has_rest = self.retain_until.subsec_nanosecond() > 0;
        DateTime::from_secs(self.retain_until.as_second() + i64::from(has_rest))
    }
}

impl From<&ObjectLockMode> for LockMode {
    fn from(mode: &ObjectLockMode) -> Self {
        // A mode that this program does not know is taken for the firmest.
        if *mode == ObjectLockMode::Governance { Self::Governance } else { Self::Compliance }
    }
}

impl From<&ObjectLockRetentionMode> for LockMode {
    fn from(mode: &ObjectLockRetentionMode) -> Self {
        if *mode == ObjectLockRetentionMode::Governance {
            Self::Governance
        } else {
            Self::Compliance
        }
    }
}

impl Bucket {
    pub(super) async fn protection(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Protection, Error> {
        self.protection_by(key, version_id, &ServerClock::default()).await
    }

    /// What forbids deleting it now, by the server's clock.
    pub(super) async fn lock(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Option<Lock>, Error> {
        let clock = ServerClock::default();
        let protection = self.protection_by(key, version_id, &clock).await?;
        Ok(protection.lock(clock.now().unwrap_or(Timestamp::MIN)))
    }

    /// An answer to HEAD leaves out, without a word, what the caller may not know. So what it does not
    /// tell is asked for, and a right that is missing is an error.
    async fn protection_by(
        &self,
        key: &Key,
        version_id: Option<&str>,
        clock: &ServerClock,
    ) -> Result<Protection, Error> {
        if self.lockless.get().is_some() {
            return Ok(Protection::default());
        }
        let head = self.client.head_object().bucket(self.name()).key(self.full(key.as_str()));
        let head = head.set_version_id(version_id.map(str::to_owned)).customize();
        let head = match head.interceptor(clock.clone()).send().await {
            Ok(head) => Some(head),
            Err(error) if code(&error) == "AccessDenied" && self.settings.lock.is_none() => None,
            Err(error) => {
                return Err(failed(Action::HeadObject, &self.place(key.as_str()), &error));
            }
        };
        let told = head.as_ref().and_then(|head| {
            let mode = head.object_lock_mode()?;
            Some((LockMode::from(mode), moment(head.object_lock_retain_until_date()?)))
        });
        let retention = match told {
            Some(told) => Some(told),
            None => self.retention(key, version_id).await?,
        };
        let hold = head.as_ref().and_then(|head| head.object_lock_legal_hold_status());
        let is_held = match hold {
            Some(status) => *status == ObjectLockLegalHoldStatus::On,
            None => self.is_held(key, version_id).await?,
        };
        Ok(Protection {
            mode: retention.map(|(mode, _)| mode),
            retain_until: retention.map(|(_, until)| until),
            legal_hold: is_held,
        })
    }

    async fn retention(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Option<(LockMode, Timestamp)>, Error> {
        let asked = self.client.get_object_retention().bucket(self.name());
        let asked =
            asked.key(self.full(key.as_str())).set_version_id(version_id.map(str::to_owned));
        match asked.send().await {
            Ok(found) => Ok(found.retention.and_then(|retention| {
                let mode = LockMode::from(retention.mode()?);
                Some((mode, moment(retention.retain_until_date()?)))
            })),
            Err(error) => self.unanswered(Action::GetObjectRetention, key, &error).map(|()| None),
        }
    }

    async fn is_held(&self, key: &Key, version_id: Option<&str>) -> Result<bool, Error> {
        if self.lockless.get().is_some() {
            return Ok(false);
        }
        let asked = self.client.get_object_legal_hold().bucket(self.name());
        let asked =
            asked.key(self.full(key.as_str())).set_version_id(version_id.map(str::to_owned));
        match asked.send().await {
            Ok(found) => {
                let status = found.legal_hold.and_then(|hold| hold.status);
                Ok(status == Some(ObjectLockLegalHoldStatus::On))
            }
            Err(error) => self.unanswered(Action::GetObjectLegalHold, key, &error).map(|()| false),
        }
    }

    /// An error that only says that there is no lock is none. One that says so of the whole bucket is
    /// remembered.
    fn unanswered<E>(&self, action: Action, key: &Key, error: &SdkError<E>) -> Result<(), Error>
    where
        E: ProvideErrorMetadata + RequestId + std::error::Error + Send + Sync + 'static,
    {
        let knows_no_locks = match code(error) {
            "NoSuchObjectLockConfiguration" => return Ok(()),
            "ObjectLockConfigurationNotFoundError" | "NotImplemented" => true,
            // S3's answer for a bucket without Object Lock; and credentials that were never meant for
            // locks need no right to ask for them.
            "InvalidRequest" | "AccessDenied" => self.settings.lock.is_none(),
            _ => false,
        };
        if knows_no_locks {
            let _ = self.lockless.set(());
            Ok(())
        } else {
            Err(failed(action, &self.place(key.as_str()), error))
        }
    }

    pub(super) async fn hold(
        &self,
        key: &Key,
        version_id: Option<&str>,
        is_held: bool,
    ) -> Result<(), Error> {
        let status =
            if is_held { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let place = self.place(key.as_str());
        let put = self.client.put_object_legal_hold().bucket(self.name());
        let put = put.key(self.full(key.as_str())).set_version_id(version_id.map(str::to_owned));
        let put = put.legal_hold(ObjectLockLegalHold::builder().status(status).build());
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    code(&error),
                    "InvalidRequest" | "ObjectLockConfigurationNotFoundError" | "NotImplemented"
                ) =>
            {
                let attempt = format!("{:?} {place}", Action::PutObjectLegalHold);
                Err(Error::Unsupported { attempt, finding: NO_LOCKS })
            }
            Err(error) => Err(failed(Action::PutObjectLegalHold, &place, &error)),
        }
    }

    pub(super) async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let (place, mut versions) = (self.place(prefix), Vec::new());
        let attempt = || format!("ListObjectVersions {place}");
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let list = self.client.list_object_versions().bucket(self.name());
            let list = list.prefix(self.full(prefix));
            let list = list.set_key_marker(key_marker).set_version_id_marker(id_marker);
            let found = match list.send().await {
                Err(error) if code(&error) == "NotImplemented" => {
                    return Err(Error::Unsupported { attempt: attempt(), finding: NO_VERSIONS });
                }
                found => {
                    found.map_err(|error| failed(Action::ListObjectVersions, &place, &error))?
                }
            };
            for marker in found.delete_markers() {
                let Some(key) = marker.key().and_then(|key| self.key(key)) else { continue };
                versions.push(Version {
                    key,
                    version_id: marker.version_id().unwrap_or(NULL_VERSION).to_owned(),
                    is_marker: true,
                    bytes: 0,
                    modified: modified(marker.last_modified(), attempt)?,
                });
            }
            for version in found.versions() {
                let Some(key) = version.key().and_then(|key| self.key(key)) else { continue };
                versions.push(Version {
                    key,
                    version_id: version.version_id().unwrap_or(NULL_VERSION).to_owned(),
                    is_marker: false,
                    bytes: length(version.size(), attempt)?,
                    modified: modified(version.last_modified(), attempt)?,
                });
            }
            if versions.len() > LISTED_MAX {
                let source = format!("more than {LISTED_MAX} versions").into();
                return Err(Error::Permanent { attempt: attempt(), source });
            }
            if !found.is_truncated.unwrap_or(false) || found.next_key_marker.is_none() {
                break;
            }
            (key_marker, id_marker) = (found.next_key_marker, found.next_version_id_marker);
        }
        // Stable: of one second, markers come before what they hide, versions as the server has them.
        versions.sort_by(|one, other| {
            (&one.key, Reverse(one.modified)).cmp(&(&other.key, Reverse(other.modified)))
        });
        Ok(versions)
    }

    /// All versions and markers of one key, newest first.
    async fn versions_of(&self, key: &Key) -> Result<Vec<Version>, Error> {
        let mut versions = self.versions(key.as_str()).await?;
        versions.retain(|version| version.key == *key);
        Ok(versions)
    }

    /// The version that was written when the key was new. None where that cannot be told.
    pub(super) async fn first_version(&self, key: &Key) -> Result<Option<String>, Error> {
        match self.versions_of(key).await {
            Ok(versions) => {
                let first = versions.into_iter().rfind(|version| !version.is_marker);
                Ok(first.map(|version| version.version_id))
            }
            Err(Error::Denied { .. } | Error::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hides the object, unless it is locked.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), Error> {
        match self.lock(key, None).await {
            Ok(None) => self.delete_version(key, None).await,
            Ok(Some(lock)) => {
                let attempt = format!("{:?} {}", Action::DeleteObject, self.place(key.as_str()));
                Err(Error::Locked { attempt, lock })
            }
            // Another marker would be of no use.
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn purge(&self, key: &Key) -> Result<(), Error> {
        for version in self.versions_of(key).await?.iter().filter(|version| !version.is_marker) {
            if let Some(lock) = self.lock(key, Some(&version.version_id)).await? {
                let attempt = format!("{:?} {}", Action::DeleteObject, self.place(key.as_str()));
                return Err(Error::Locked { attempt, lock });
            }
        }
        // Hidden first, so that no earlier version appears when a later one goes.
        self.delete(key).await?;
        let (markers, versions): (Vec<Version>, Vec<Version>) =
            self.versions_of(key).await?.into_iter().partition(|version| version.is_marker);
        for version in versions.iter().chain(&markers) {
            self.delete_version(key, Some(&version.version_id)).await?;
        }
        Ok(())
    }

    async fn delete_version(&self, key: &Key, version_id: Option<&str>) -> Result<(), Error> {
        let delete = self.client.delete_object().bucket(self.name());
        let delete = delete.key(self.full(key.as_str()));
        match delete.set_version_id(version_id.map(str::to_owned)).send().await {
            Err(error) if matches!(code(&error), "NoSuchKey" | "NoSuchVersion") => Ok(()),
            deleted => deleted
                .map(drop)
                .map_err(|error| failed(Action::DeleteObject, &self.place(key.as_str()), &error)),
        }
    }

    pub(super) async fn safeguards(&self) -> Result<Safeguards, Error> {
        let place = self.place("");
        let asked = self.client.get_bucket_versioning().bucket(self.name()).send().await;
        let versions = match asked {
            Ok(found) => match found.status {
                Some(BucketVersioningStatus::Enabled) => Versioning::Enabled,
                Some(_) => Versioning::Suspended,
                None => Versioning::Never,
            },
            Err(error) if matches!(code(&error), "NotImplemented" | "VersioningNotConfigured") => {
                Versioning::Never
            }
            Err(error) => return Err(failed(Action::GetBucketVersioning, &place, &error)),
        };
        let asked = self.client.get_object_lock_configuration().bucket(self.name()).send().await;
        let object_lock = match asked {
            Ok(found) => {
                let enabled = found.object_lock_configuration.and_then(|it| it.object_lock_enabled);
                enabled == Some(ObjectLockEnabled::Enabled)
            }
            Err(error)
                if matches!(
                    code(&error),
                    "ObjectLockConfigurationNotFoundError" | "NotImplemented" | "InvalidRequest"
                ) =>
            {
                false
            }
            Err(error) => return Err(failed(Action::GetObjectLockConfiguration, &place, &error)),
        };
        Ok(Safeguards { versions, object_lock })
    }
}

fn moment(found: &DateTime) -> Timestamp {
    let nanoseconds = i32::try_from(found.subsec_nanos()).unwrap_or(0);
    Timestamp::new(found.secs(), nanoseconds).unwrap_or(Timestamp::MAX)
}

fn modified(found: Option<&DateTime>, attempt: impl Fn() -> String) -> Result<Timestamp, Error> {
    found.map(moment).ok_or_else(|| Error::Permanent {
        attempt: attempt(),
        source: "the answer has no time".into(),
    })
}
