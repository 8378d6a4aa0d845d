//! Which manifests are of one backup, as several stores hold it. Compares; never reads an archive.

use std::collections::BTreeMap;

use super::{
    archive::Encryption,
    catalog::Key,
    digest::Sha256,
    manifest::{Archive, Manifest},
    shrink_guard::ShrinkGuard,
};

impl Manifest {
    /// The same backup as one store holds it: objects that are not in `versions` have none there.
    #[must_use]
    pub fn with_versions(mut self, versions: &BTreeMap<Key, Option<String>>) -> Self {
        for archive in self.archives_mut() {
            for object in &mut archive.objects {
                object.version_id = versions.get(&object.key).cloned().flatten();
            }
        }
        self
    }

    /// Whether both are of one capture: the same stored bytes, or the same capture encrypted to others.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.backup == other.backup
            && self.source == other.source
            && (self.is_stored_as(other) || self.is_resealed_from(other))
    }

    /// Whether both name the very same bytes under the same keys.
    pub fn is_stored_as(&self, other: &Self) -> bool {
        self.stored() == other.stored()
    }

    /// What is encrypted anew has other bytes under keys of its own; all else that the manifests tell is
    /// the same. Under one key lie the same bytes, or one of the two is not what it says.
    fn is_resealed_from(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.stored(), other.stored());
        (self.is_encrypted() || other.is_encrypted())
            && !ours.keys().any(|key| theirs.contains_key(key))
            && self.facts() == other.facts()
    }

    fn stored(&self) -> BTreeMap<&Key, (u64, Sha256)> {
        let objects = self.archives().flat_map(|archive| &archive.objects);
        objects.map(|object| (&object.key, (object.bytes, object.sha256))).collect()
    }

    /// What does not depend on a store or on a key.
    fn facts(&self) -> Self {
        // The guard compares with what is usual in one store.
        let mut facts = Self { shrink_guard: ShrinkGuard::NotChecked, ..self.clone() };
        for archive in facts.archives_mut() {
            archive.encryption = Encryption::None;
            archive.objects.clear();
        }
        facts
    }

    fn archives_mut(&mut self) -> impl Iterator<Item = &mut Archive> {
        let shards = self.shards.iter_mut().flat_map(|shard| &mut shard.archives);
        shards.chain([&mut self.installation])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest::decode(include_bytes!("../../tests/fixtures/manifest-v1.json")).unwrap()
    }

    fn resealed() -> Manifest {
        let mut manifest = manifest();
        for archive in manifest.archives_mut() {
            archive.encryption = Encryption::Age;
            for object in &mut archive.objects {
                object.key = format!("{}.anew", object.key).parse().unwrap();
                object.bytes += 200;
                object.sha256 = Sha256::of(object.key.as_str().as_bytes());
            }
        }
        manifest
    }

    #[test]
    fn a_backup_that_was_encrypted_to_others_is_the_same_and_not_stored_the_same() {
        let (plain, resealed) = (manifest(), resealed());
        assert!(plain.is_same_as(&plain) && plain.is_stored_as(&plain));
        for (one, other) in [(&plain, &resealed), (&resealed, &plain)] {
            assert!(one.is_same_as(other));
            assert!(!one.is_stored_as(other));
        }
    }

    #[test]
    fn what_tells_of_another_capture_or_of_other_bytes_under_a_key_is_another_backup() {
        let mut later = resealed();
        later.skew_seconds += 1.0;
        assert!(!later.is_same_as(&manifest()));
        let mut shared = resealed();
        shared.installation.objects[0].key = manifest().installation.objects[0].key.clone();
        assert!(!shared.is_same_as(&manifest()));
        let mut changed = manifest();
        changed.installation.objects[0].bytes += 1;
        assert!(!changed.is_same_as(&manifest()));
        let mut clear = resealed();
        let mut sealed = manifest();
        for archive in clear.archives_mut().chain(sealed.archives_mut()) {
            archive.encryption = Encryption::None;
        }
        assert!(!clear.is_same_as(&sealed), "both are in clear");
    }
}
