//! Command line arguments. Types only: no default that depends on the world, no logic.
#![expect(clippy::doc_markdown, reason = "help shows URLs as a person types them")]

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::domain::{
    identity::{BackupId, ScheduleName, SourceName},
    rdb::SlotRange,
};

/// Backup, restore and proof of both, for Redis and Valkey.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, infer_long_args = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Config file [default: redis-backup.yaml if it exists].
    #[arg(
        long,
        global = true,
        help_heading = "Options of every verb",
        env = "REDIS_BACKUP_CONFIG",
        value_name = "FILE"
    )]
    pub config: Option<PathBuf>,

    /// Form of what is reported on standard output.
    #[arg(long, global = true, help_heading = "Options of every verb", value_enum, value_name = "FORM", default_value_t = OutputForm::Text)]
    pub output: OutputForm,

    /// Say more on standard error; twice says everything.
    #[arg(long, short, global = true, help_heading = "Options of every verb", action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Form of the log on standard error.
    #[arg(long, global = true, help_heading = "Options of every verb", value_enum, value_name = "FORM", default_value_t = LogForm::Text)]
    pub log: LogForm,

    /// How far the processor is left to others, 0 to 19 as by nice(1)
    /// [default: 10, but 0 for restore and fetch, which somebody waits for].
    #[arg(
        long,
        global = true,
        help_heading = "Options of every verb",
        env = "REDIS_BACKUP_NICENESS",
        value_name = "0…19",
        value_parser = clap::value_parser!(u8).range(..20)
    )]
    pub niceness: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    Text,
    /// One JSON document, versioned: fields are added, never renamed.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    Text,
    /// One JSON object a line.
    Json,
    /// One OTLP request a line, as the receivers of an OpenTelemetry collector read it.
    OtlpJson,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Capture every shard of a source, prove it while it streams, and commit one backup.
    Backup(Backup),
    /// List the backups that exist.
    List(List),
    /// Show one backup: shards, keys per database, archives, proofs.
    Show(Show),
    /// Copy backups to another store, every byte checked on its way.
    Copy(Copy),
    /// Prove a backup: by the store's checksums, by reading it back, or by loading it.
    Verify(Verify),
    /// Write a dataset that a Redis starts from.
    Restore(Restore),
    /// Write the plain files of a backup, for any other tool.
    Fetch(Fetch),
    /// Delete what no rule of the config keeps; print each backup with its reasons.
    Prune(Prune),
    /// Keep a backup whatever the rules say.
    Pin(Pin),
    /// Leave a pinned backup to the rules again.
    Unpin(Pin),
    /// Take a suspect backup for the new normal.
    Accept(Accept),
    /// Scan an RDB or append-only files and print their facts, or where they are broken.
    Inspect(Inspect),
    /// Find the Redis installations of a Kubernetes namespace and print them as config ready to paste.
    Discover(Discover),
    /// Try the whole path of a backup and name the fix for each finding.
    Check(Check),
    /// Take the backups of the config's schedules until it is told to end; tell health and metrics by HTTP.
    Serve(Serve),
    /// Copy this program to a path, for a container of another image.
    Install(Install),
    /// Capture one shard, as a backup with `workers: jobs` orders it.
    #[command(hide = true)]
    Worker,
    /// Print the JSON Schema of the config file.
    Schema,
    /// Print the completions of a shell.
    Completions(Completions),
    /// Print the manual page.
    Man,
}

/// One source that no config file names.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Source")]
pub struct AdHocSource {
    /// redis://host:6379, rediss://host:6379 (TLS), sentinel://host:26379/name; of a Cluster any node.
    #[arg(long, value_name = "URL", requires = "source_name")]
    pub source_url: Vec<String>,

    /// The server's data directory, as it is mounted here: for BGSAVE and append-only files.
    #[arg(long, value_name = "DIR", requires = "source_url")]
    pub data_dir: Option<PathBuf>,

    /// Where the password is: env:NAME or file:PATH. Never the password itself.
    #[arg(long, value_name = "env:NAME|file:PATH", requires = "source_url")]
    pub password_from: Option<String>,

    /// PEM of the only authority to trust.
    #[arg(long, value_name = "FILE", requires = "source_url")]
    pub tls_ca: Option<PathBuf>,

    /// PEM of the client certificate.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// PEM of the client certificate's key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The name to expect in the server's certificate.
    #[arg(long, value_name = "NAME", requires = "source_url")]
    pub tls_server_name: Option<String>,

    /// Encrypt to this public key, age1… or a line of an SSH .pub file; several may open the backup.
    #[arg(long, value_name = "RECIPIENT", requires = "source_url")]
    pub recipient: Vec<String>,

    /// A file with a recipient in each line.
    #[arg(long, value_name = "FILE", requires = "source_url")]
    pub recipients_file: Option<PathBuf>,
}

/// What opens an encrypted backup. No other verb asks for it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Encryption")]
pub struct IdentityFrom {
    /// Where the identity is that opens an encrypted backup, env:NAME or file:PATH: an age identity
    /// file or an SSH private key. Never the identity itself.
    #[arg(long, value_name = "env:NAME|file:PATH")]
    pub identity_from: Vec<String>,
}

/// Which store, and which source's part of it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct Place {
    /// A directory such as ./backups, a bucket as s3://bucket/prefix, or a store of the config file.
    ///
    /// A bucket may be followed by ?region=NAME, and by endpoint=URL, pathStyle=true, caFile=FILE,
    /// storageClass=NAME, objectLock=governance:DAYS, joined by &.
    #[arg(long, value_name = "NAME|DIR|s3://…")]
    pub store: Option<String>,

    /// The source's name, where the store or the config holds several.
    #[arg(long, value_name = "NAME")]
    pub source_name: Option<SourceName>,
}

/// The store as it was.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct Past {
    /// Look at the store as it was at this moment, behind all that was deleted and overwritten since.
    ///
    /// For buckets that keep versions.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<Timestamp>,
}

#[derive(Debug, Default, Args)]
pub struct Backup {
    /// Sources of the config file; all of them when none is named.
    #[arg(value_name = "SOURCE", conflicts_with_all = ["schedule", "source_url"])]
    pub sources: Vec<SourceName>,

    /// Back up as this schedule does.
    #[arg(long, value_name = "NAME", conflicts_with = "source_url")]
    pub schedule: Option<ScheduleName>,

    /// The moment the schedule meant [default: its last one].
    #[arg(long, value_name = "TIME", requires = "schedule", env = "REDIS_BACKUP_SCHEDULED_FOR")]
    pub scheduled_for: Option<Timestamp>,

    /// How an RDB is taken [default: as the config says, else auto].
    #[arg(long, value_enum, value_name = "METHOD")]
    pub method: Option<CaptureMethod>,

    /// What is captured [default: as the schedule says, else rdb].
    #[arg(long, value_enum, value_name = "FORMS", value_delimiter = ',')]
    pub capture: Vec<CaptureForm>,

    /// Take over a store prefix that another installation began.
    #[arg(long)]
    pub adopt: bool,

    /// Print what would be captured from where, and why; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub source: AdHocSource,

    /// A directory such as ./backups, a bucket as s3://bucket/prefix, or a store of the config file;
    /// again for another one [default: those of the schedule, or else of the config file].
    ///
    /// A bucket may be followed by ?region=NAME, and by endpoint=URL, pathStyle=true, caFile=FILE,
    /// storageClass=NAME, joined by &.
    #[arg(long = "store", value_name = "NAME|DIR|s3://…", help_heading = "Store")]
    pub stores: Vec<String>,

    /// The source's name, where the store or the config holds several.
    #[arg(long, value_name = "NAME", help_heading = "Store")]
    pub source_name: Option<SourceName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureMethod {
    /// BGSAVE where the node's data directory is at hand and has room, else replication.
    Auto,
    /// BGSAVE or nothing.
    Bgsave,
    /// Replication or nothing.
    Replication,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureForm {
    Rdb,
    /// The append-only files, from the data directory.
    Aof,
}

#[derive(Debug, Args)]
pub struct List {
    /// Only this source.
    #[arg(value_name = "SOURCE", conflicts_with = "source_name")]
    pub source: Option<SourceName>,
    /// Read each manifest too: keys, bytes, server, duration.
    #[arg(long, short)]
    pub long: bool,
    /// At most so many of the newest.
    #[arg(long, value_name = "COUNT")]
    pub last: Option<usize>,
    /// Runs instead of backups: what was tried, how it ended, and why it failed.
    #[arg(long, conflicts_with = "long")]
    pub runs: bool,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub past: Past,
}

#[derive(Debug, Args)]
pub struct Prune {
    /// Sources of the config file; all of them when none is named.
    #[arg(value_name = "SOURCE", conflicts_with = "source_name")]
    pub sources: Vec<SourceName>,
    /// Print what would expire and why; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the bucket keeps versions, delete these too: for good, and not only hide what expires.
    #[arg(long)]
    pub purge_versions: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Pin {
    #[command(flatten)]
    pub which: Which,
    /// Print what would be noted; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Accept {
    #[command(flatten)]
    pub which: Which,
    /// Print what would be noted; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub place: Place,
}

/// Which backup.
#[derive(Clone, Debug, Args)]
#[group(id = "which", multiple = false)]
pub struct Which {
    /// Id of the backup, as `list` prints it.
    #[arg(value_name = "BACKUP")]
    pub backup: Option<BackupId>,
    /// The newest backup.
    #[arg(long)]
    pub latest: bool,
    /// The newest backup that began before this moment.
    #[arg(long, value_name = "TIME")]
    pub before: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub past: Past,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
pub struct Copy {
    #[command(flatten)]
    pub which: Which,
    /// Every backup that the other store lacks.
    #[arg(long, group = "which")]
    pub all: bool,
    /// Every backup that the other store lacks although a schedule meant it for there.
    #[arg(long, group = "which")]
    pub missing: bool,

    /// The store to copy to: a directory, s3://bucket/prefix, or a store of the config file.
    #[arg(long, value_name = "NAME|DIR|s3://…")]
    pub to: String,
    /// The store to copy from [default: any of the config file that holds the backup].
    #[arg(long, value_name = "NAME|DIR|s3://…")]
    pub from: Option<String>,
    /// The source's name, where the stores hold several.
    #[arg(long, value_name = "NAME")]
    pub source_name: Option<SourceName>,

    /// Take over a store prefix that another installation began.
    #[arg(long)]
    pub adopt: bool,
    /// Print what would be copied; change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Encrypt the copies to this public key, whatever they are encrypted to now; several may open them.
    #[arg(long, value_name = "RECIPIENT", help_heading = "Encryption")]
    pub recipient: Vec<String>,

    /// A file with a recipient in each line.
    #[arg(long, value_name = "FILE", help_heading = "Encryption")]
    pub recipients_file: Option<PathBuf>,
    #[command(flatten)]
    pub identity: IdentityFrom,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub which: Which,
    /// Every backup.
    #[arg(long, group = "which")]
    pub all: bool,

    /// How far to go.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = VerifyLevel::Content)]
    pub level: VerifyLevel,

    /// redis-server or valkey-server for `--level load` [default: the one in PATH that fits].
    #[arg(long, value_name = "FILE")]
    pub server_binary: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub identity: IdentityFrom,
    #[command(flatten)]
    pub past: Past,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyLevel {
    /// Sizes and checksums as the store tells them; reads no archive.
    Stored,
    /// Every byte read back, digested, unpacked and scanned.
    Content,
    /// Content, and a throw-away server loads it and counts.
    Load,
}

#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    pub which: Which,

    /// The folder in which the server starts.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Take the RDB or the append-only files [default: what reaches further].
    #[arg(long, value_name = "FORM")]
    pub from: Option<RestoreFrom>,

    /// Shard of a Cluster.
    #[arg(long, value_name = "NUMBER")]
    pub shard: Option<u32>,

    /// Version of the server that will start there, such as 7.0.15 or valkey-8.1.1
    /// [default: asked from the server binary].
    #[arg(long, value_name = "VERSION")]
    pub server_version: Option<String>,

    /// The server that will start there; asked for its version [default: the one in PATH].
    #[arg(long, value_name = "FILE", conflicts_with = "server_version")]
    pub server_binary: Option<PathBuf>,

    /// Put back what the last restore into this folder set aside.
    #[arg(long, conflicts_with_all = ["finish", "dry_run"])]
    pub undo: bool,

    /// Delete what the last restore into this folder set aside.
    #[arg(long, conflicts_with = "dry_run")]
    pub finish: bool,

    /// Print what would be done; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub past: Past,
    #[command(flatten)]
    pub names: DatasetNames,
    #[command(flatten)]
    pub identity: IdentityFrom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestoreFrom {
    Rdb,
    Aof,
}

/// Under which names the server looks for its dataset when it starts.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Names of the dataset, as the server has them at its start")]
pub struct DatasetNames {
    /// The server's config file.
    #[arg(long, value_name = "FILE")]
    pub redis_conf: Option<PathBuf>,
    /// The server has Redis's own defaults, but for what other flags say.
    #[arg(long)]
    pub redis_defaults: bool,
    /// Name of its RDB file.
    #[arg(long, value_name = "NAME")]
    pub dbfilename: Option<String>,
    /// Whether it starts with the append-only file on, and so reads nothing else.
    #[arg(long, value_enum, value_name = "yes|no")]
    pub appendonly: Option<YesNo>,
    /// Name, or first part of the names, of its append-only files.
    #[arg(long, value_name = "NAME")]
    pub appendfilename: Option<String>,
    /// Folder of its append-only files, from Redis 7 on.
    #[arg(long, value_name = "NAME")]
    pub appenddirname: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    Yes,
    No,
}

#[derive(Debug, Args)]
pub struct Fetch {
    #[command(flatten)]
    pub which: Which,
    /// Folder for the files; created if need be. Nothing in it is replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub into: PathBuf,
    /// Only this shard.
    #[arg(long, value_name = "NUMBER")]
    pub shard: Option<u32>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub identity: IdentityFrom,
    #[command(flatten)]
    pub past: Past,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// An RDB, an append-only file, the .manifest or folder of a set, or `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Count the keys outside these slots, such as 0-5460,10923-16383.
    #[arg(long, value_name = "RANGES", value_delimiter = ',', value_parser = parse_slot_range)]
    pub slots: Vec<SlotRange>,
    /// Name so many of the biggest keys.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub biggest_keys: usize,
}

#[derive(Debug, Args)]
pub struct Discover {
    /// The namespace to look into [default: that of the context, or of this pod].
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Only these sources.
    #[arg(value_name = "SOURCE", conflicts_with = "source_url")]
    pub sources: Vec<SourceName>,
    #[command(flatten)]
    pub source: AdHocSource,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port of health and metrics, such as 0.0.0.0:8080 [default: `serve.listen`, else 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub struct Install {
    /// The file to be made, in a folder that is there. Only an older copy is replaced.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Copy what $SSL_CERT_FILE names, or else /etc/ssl/certs/ca-certificates.crt, to this file:
    /// other images may trust no authority.
    #[arg(long, value_name = "FILE")]
    pub authorities: Option<PathBuf>,
    /// Print what would be installed; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that will read them.
    pub shell: clap_complete::Shell,
}

fn parse_slot_range(text: &str) -> Result<SlotRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let slot = |text: &str| text.trim().parse::<u16>().ok().filter(|slot| *slot < 16384);
    match (slot(first), slot(last)) {
        (Some(first), Some(last)) if first <= last => Ok(SlotRange { first, last }),
        _ => Err(format!("{text:?} is no range of slots from 0 to 16383")),
    }
}
