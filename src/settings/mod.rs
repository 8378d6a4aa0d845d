//! File, environment and flags become settings that are valid or do not exist. Connects to nothing.

mod config;
mod encryption;
mod error;
mod kubernetes;
mod place;
mod schedule;
mod secret;
mod source;
mod store_text;
mod timeouts;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use jiff::SignedDuration;

use self::place::Places;
pub use self::{
    config::{
        CaptureKind, Checksums, Compression, Config, Directory, ObjectLock, Retention, S3,
        SecretFrom, ServerSideEncryption, Timeouts,
    },
    error::Error,
    kubernetes::{Cluster, Kubernetes, Location, Via, Workers},
};
use crate::{
    cli::{AdHocSource, Global, Place},
    domain::{
        agenda::Entry,
        archive::{Codec, Recipients},
        capture::{Forms, MethodChoice, PrimaryUse},
        identity::{ScheduleName, SourceName, StoreName},
        record::Level,
        retention::{self, Keep, Policy},
        schedule::Timetable,
        secret::Secret,
        shrink_guard,
        source::NodeAddress,
    },
    edge::spool,
};

/// Read in the working folder when neither flag nor environment names another.
pub const CONFIG_FILE: &str = "redis-backup.yaml";

/// S3 knows no longer retention.
const LOCK_DAYS_MAX: u32 = 36_500;

/// Each source forks by itself; more at once only share the network of this machine.
const BACKUPS_AT_ONCE: usize = 2;

/// Below it, a unit was forgotten.
const UPLOAD_MAX_PER_SECOND_MIN: u64 = 64 << 10;

/// Stores that one capture is sent to: each needs a part of the memory for what is under way.
pub const STORES_MAX: usize = 3;

/// The environment as the process got it; a test passes its own.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Everything that a config file says, checked as a whole.
#[derive(Debug, Default)]
pub struct Settings {
    config: Config,
    schedules: BTreeMap<ScheduleName, Schedule>,
    serve: Serve,
    /// None without a config file.
    file: Option<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    places: Places,
}

/// How one source is reached and captured.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: SourceName,
    pub location: Location,
    pub access: Access,
    /// For sentinels; the same as `access` unless the config says otherwise.
    pub sentinel_access: Access,
    pub primary: PrimaryUse,
    /// Data directories that are at hand, by the addresses of their nodes.
    pub data_dirs: BTreeMap<NodeAddress, PathBuf>,
    pub method: MethodChoice,
    pub server_binary: Option<PathBuf>,
    pub spool: Spool,
    pub timeouts: Timeouts,
    pub codec: Codec,
    pub level: i32,
    pub captures_at_once: usize,
    pub skew_seconds_max: Option<u32>,
    pub shrink_guard: shrink_guard::Limit,
    /// Who can open the archives; nobody means that they are in clear.
    pub recipients: Recipients,
}

#[derive(Clone, Debug)]
pub enum Spool {
    /// As configured: refused when the folder does not fit.
    Configured(spool::Limits),
    /// The first of the usual folders that lies on a disk, and as much as half of what is free there.
    Default { folders: Vec<PathBuf>, bytes_max: u64 },
}

/// Who we are to a server, and how the connection is protected.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// None means plain TCP.
    pub tls: Option<Tls>,
}

pub use config::Tls;

#[derive(Clone, Debug)]
pub struct Store {
    /// The config's name, or the text that named it.
    pub name: String,
    pub kind: StoreKind,
    /// Bytes that may be sent to it.
    pub upload_max_per_second: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Directory(PathBuf),
    S3(S3),
}

impl Store {
    fn new(name: &str, kind: StoreKind, upload_max_per_second: Option<ByteSize>) -> Self {
        let limit = match &kind {
            StoreKind::Directory(_) => upload_max_per_second,
            StoreKind::S3(s3) => s3.upload_max_per_second,
        };
        let upload_max_per_second = limit.map(|limit| limit.as_u64());
        Self { name: name.to_owned(), kind, upload_max_per_second }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub name: ScheduleName,
    pub source: SourceName,
    pub timetable: Timetable,
    pub forms: Forms,
    pub stores: Vec<ScheduleStore>,
    pub jitter: SignedDuration,
    pub start_deadline: Option<SignedDuration>,
    /// How far the service proves each backup.
    pub verify: Option<Level>,
}

/// The service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    pub listen: SocketAddr,
    pub backups_at_once: usize,
}

/// Nothing of it is meant for others, but it tells names: who wants them elsewhere says so.
impl Default for Serve {
    fn default() -> Self {
        Self { listen: ([127, 0, 0, 1], 8080).into(), backups_at_once: BACKUPS_AT_ONCE }
    }
}

/// Where a schedule's backups go, and which of them stay there.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleStore {
    pub store: StoreName,
    /// None keeps all of them.
    pub keep: Option<Keep>,
}

impl Schedule {
    /// When it is due.
    pub fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
            timetable: self.timetable.clone(),
            jitter: self.jitter,
            start_deadline: self.start_deadline,
        }
    }

    pub fn store_names(&self) -> Vec<String> {
        self.stores.iter().map(|entry| entry.store.to_string()).collect()
    }
}

impl Settings {
    /// Reads the file that flag or environment names, or the usual one if it exists.
    pub fn load(global: &Global) -> Result<Self, Error> {
        let usual = Path::new(CONFIG_FILE);
        match &global.config {
            Some(path) => Self::read(path),
            None if usual.exists() => Self::read(usual),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// `path` only names the file in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let options = serde_saphyr::options! { with_snippet: false };
        let config: Config = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| error::in_file(path, &error))?;
        let file = File { path: path.to_owned(), places: Places::of(text) };
        match Self::check(config) {
            Ok(settings) => Ok(Self { file: Some(file), ..settings }),
            Err((place, finding)) => Err(Error::Config { place: file.locate(&place), finding }),
        }
    }

    /// What the types alone cannot hold: names that must exist, values that must fit together.
    fn check(config: Config) -> Result<Self, (String, String)> {
        for (name, source) in &config.sources {
            let place = |key: &str| format!("sources.{name}.{key}");
            source::check(source).map_err(|(key, finding)| (place(key), finding))?;
        }
        for (name, store) in &config.stores {
            check_store(store)
                .map_err(|(key, finding)| (format!("stores.{name}.{key}"), finding))?;
        }
        let mut schedules = BTreeMap::new();
        for (name, schedule) in &config.schedules {
            let checked = schedule::check(&config, name, schedule)
                .map_err(|(key, finding)| (format!("schedules.{name}.{key}"), finding))?;
            schedules.insert(name.clone(), checked);
        }
        let serve = schedule::check_serve(&config.serve)
            .map_err(|(key, finding)| (format!("serve.{key}"), finding))?;
        Ok(Self { config, schedules, serve, file: None })
    }

    /// The config file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    pub fn source_names(&self) -> Vec<SourceName> {
        self.config.sources.keys().cloned().collect()
    }

    /// A source of the config file, its secrets read.
    pub fn source(&self, name: &SourceName, environment: Environment<'_>) -> Result<Source, Error> {
        let source = self.config.sources.get(name).ok_or_else(|| Error::UnknownSource {
            name: name.clone(),
            known: self.source_names(),
        })?;
        source::resolve(name, source, environment, self.file.as_ref())
    }

    /// Where a source of the config file is, for who does not ask it and needs no secret.
    pub fn location(&self, name: &SourceName) -> Result<Location, Error> {
        let source = self.config.sources.get(name).ok_or_else(|| Error::UnknownSource {
            name: name.clone(),
            known: self.source_names(),
        })?;
        source::location(name, source)
    }

    /// How the backups of a source are kept in one store.
    pub fn policy(&self, source: &SourceName, store: &str) -> Policy {
        let schedules = self.schedules.values().filter(|schedule| schedule.source == *source);
        let rules = schedules.filter_map(|schedule| {
            let entry = schedule.stores.iter().find(|entry| entry.store.as_str() == store)?;
            let zone = schedule.timetable.timezone().clone();
            Some((schedule.name.clone(), retention::Rule { keep: entry.keep.clone(), zone }))
        });
        Policy { schedules: rules.collect(), keep_manual: self.config.keep_manual }
    }

    pub fn retention(&self) -> Retention {
        self.config.retention
    }

    /// What the config says of a source's server, if it says anything.
    pub fn server_binary(&self, name: &SourceName) -> Option<PathBuf> {
        self.config.sources.get(name)?.server_binary.clone()
    }

    /// The source that flags describe.
    pub fn ad_hoc_source(
        &self,
        flags: &AdHocSource,
        name: &SourceName,
        environment: Environment<'_>,
    ) -> Result<Source, Error> {
        let AdHocSource {
            source_url,
            data_dir,
            password_from,
            tls_ca,
            tls_cert,
            tls_key,
            tls_server_name,
            recipient,
            recipients_file,
        } = flags;
        let password_from = password_from.as_deref().map(secret::parse).transpose()?;
        let recipients = encryption::of_flags(recipient, recipients_file.as_deref())?;
        let tls = config::Tls {
            ca_file: tls_ca.clone(),
            cert_file: tls_cert.clone(),
            key_file: tls_key.clone(),
            server_name: tls_server_name.clone(),
        };
        let source = config::Source {
            nodes: source_url.clone(),
            kubernetes: None,
            auth: Some(config::Auth { username: None, password_from }),
            tls: (tls != config::Tls::default()).then_some(tls),
            sentinel: None,
            primary: PrimaryUse::default(),
            data_dir: data_dir.clone(),
            data_dirs: BTreeMap::new(),
            method: MethodChoice::default(),
            server_binary: None,
            spool: None,
            timeouts: Timeouts::default(),
            compression: Compression::default(),
            captures_at_once: None,
            skew_max_seconds: None,
            shrink_guard: shrink_guard::Limit::default(),
            encryption: None,
        };
        source::check(&source)
            .map_err(|(_, finding)| Error::SourceUrl { name: name.clone(), finding })?;
        Ok(Source { recipients, ..source::resolve(name, &source, environment, None)? })
    }

    pub fn schedule(&self, name: &ScheduleName) -> Result<&Schedule, Error> {
        self.schedules.get(name).ok_or_else(|| Error::UnknownSchedule {
            name: name.clone(),
            known: self.schedules.keys().cloned().collect(),
        })
    }

    /// What the schedules of a source capture; its RDB where it has none.
    pub fn forms_of(&self, source: &SourceName) -> Forms {
        let forms = self.schedules.values().filter(|it| it.source == *source).map(|it| it.forms);
        forms
            .reduce(|a, b| Forms { rdb: a.rdb || b.rdb, aof: a.aof || b.aof })
            .unwrap_or(Forms::RDB)
    }

    pub fn schedules(&self) -> impl Iterator<Item = &Schedule> {
        self.schedules.values()
    }

    pub const fn serve(&self) -> &Serve {
        &self.serve
    }

    /// A store by its name in the config, or by the text itself when it is a path or URL.
    pub fn store(&self, text: &str) -> Result<Store, Error> {
        let named = text.parse::<StoreName>().ok();
        if let Some((name, store)) =
            named.as_ref().and_then(|name| self.config.stores.get_key_value(name))
        {
            return Ok(Self::configured_store(name, store));
        }
        match store_text::parse(text)? {
            Some(kind) => Ok(Store::new(text, kind, None)),
            None => Err(Error::UnknownStore {
                name: text.to_owned(),
                known: self.config.stores.keys().cloned().collect(),
            }),
        }
    }

    /// The stores to look into: the one that the flag names, or every configured one.
    pub fn stores(&self, place: &Place) -> Result<Vec<Store>, Error> {
        if let Some(text) = &place.store {
            return Ok(vec![self.store(text)?]);
        }
        let stores: Vec<Store> = self
            .config
            .stores
            .iter()
            .map(|(name, store)| Self::configured_store(name, store))
            .collect();
        if stores.is_empty() { Err(Error::NoStore) } else { Ok(stores) }
    }

    /// The stores to write to: those that are named, or every configured one.
    pub fn stores_to_write(&self, named: &[String]) -> Result<Vec<Store>, Error> {
        let mut stores: Vec<Store> = Vec::with_capacity(named.len());
        for text in named {
            let store = self.store(text)?;
            if stores.iter().any(|other| other.kind == store.kind) {
                return Err(Error::StoreTwice { name: store.name });
            }
            stores.push(store);
        }
        if named.is_empty() {
            stores = self.stores(&Place::default())?;
        }
        if stores.len() > STORES_MAX {
            let known = stores.into_iter().map(|store| store.name).collect();
            return Err(Error::TooManyStores { known, most: STORES_MAX });
        }
        Ok(stores)
    }

    fn configured_store(name: &StoreName, store: &config::Store) -> Store {
        match store {
            config::Store::Directory(Directory { path, upload_max_per_second }) => {
                let kind = StoreKind::Directory(path.clone());
                Store::new(name.as_str(), kind, *upload_max_per_second)
            }
            config::Store::S3(s3) => Store::new(name.as_str(), StoreKind::S3(s3.clone()), None),
        }
    }
}

impl File {
    /// Such as `redis-backup.yaml:4:12: sources.sessions.nodes`.
    fn locate(&self, place: &str) -> String {
        let (line, column) = self.places.line_and_column(place);
        format!("{}:{line}:{column}: {place}", self.path.display())
    }
}

type Finding = (&'static str, String);

fn check_store(store: &config::Store) -> Result<(), Finding> {
    match store {
        config::Store::Directory(Directory { path: _, upload_max_per_second }) => {
            check_upload_limit(*upload_max_per_second)
                .map_err(|finding| ("directory.uploadMaxPerSecond", finding.to_owned()))
        }
        config::Store::S3(s3) => {
            check_lock(s3).map_err(|(key, finding)| (key, finding.to_owned()))?;
            check_upload_limit(s3.upload_max_per_second)
                .map_err(|finding| ("s3.uploadMaxPerSecond", finding.to_owned()))
        }
    }
}

fn check_upload_limit(limit: Option<ByteSize>) -> Result<(), &'static str> {
    match limit {
        Some(limit) if limit.as_u64() < UPLOAD_MAX_PER_SECOND_MIN => {
            Err("less than 64KiB a second would never end; write such as `50MiB`, or leave it out")
        }
        Some(_) | None => Ok(()),
    }
}

fn check_lock(s3: &S3) -> Result<(), (&'static str, &'static str)> {
    let Some(ObjectLock { mode: _, days }) = s3.object_lock else { return Ok(()) };
    if !(1..=LOCK_DAYS_MAX).contains(&days) {
        return Err(("s3.objectLock.days", "a lock lasts 1 to 36500 days"));
    }
    match s3.checksums {
        Checksums::WhenSupported => Ok(()),
        Checksums::WhenRequired => Err((
            "s3.objectLock",
            "S3 takes no locked object without a checksum; leave `checksums: when-required` out",
        )),
    }
}

#[cfg(test)]
mod tests;
