//! One source of the config: what must fit together, and how it is reached and captured. Connects to nothing.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Access, Compression, Environment, Error, File, Finding, Location, Source, Spool, config,
    encryption, kubernetes, secret,
};
use crate::{
    domain::{
        archive::Recipients,
        capture::MethodChoice,
        identity::SourceName,
        source::{NodeAddress, SourceAddress, SourceUrl},
    },
    edge::spool,
};

/// One shard's fork at a time on a host is the safe number; two hide the latency of a second host.
const CAPTURES_AT_ONCE: usize = 2;

/// What a spool may take of a disk when no config says so.
const SPOOL_BYTES_MAX: u64 = 8 << 30;

pub(super) fn check(source: &config::Source) -> Result<(), Finding> {
    match &source.kubernetes {
        Some(configured) => {
            kubernetes::check(configured)?;
            check_in_kubernetes(source)?;
        }
        None => check_nodes(source)?,
    }
    let Compression { codec, level } = source.compression;
    if let Some(level) = level.filter(|level| !codec.levels().contains(level)) {
        let (first, last) = codec.levels().into_inner();
        return Err((
            "compression.level",
            format!("{codec} has levels {first} to {last}, not {level}"),
        ));
    }
    if source.shrink_guard.percent_min > 100 {
        return Err((
            "shrinkGuard.percentMin",
            "a share is 1 to 100 percent, or 0 to suspect nothing".to_owned(),
        ));
    }
    if let Some(configured) = &source.encryption {
        encryption::check(configured)?;
    }
    if source.captures_at_once == Some(0) {
        return Err(("capturesAtOnce", "0 captures nothing; write 1 or more".to_owned()));
    }
    for (key, tls) in [
        ("tls", &source.tls),
        ("sentinel.tls", &source.sentinel.as_ref().and_then(|sentinel| sentinel.tls.clone())),
    ] {
        if tls.as_ref().is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some()) {
            return Err((key, "certFile and keyFile belong together; one is missing".to_owned()));
        }
    }
    Ok(())
}

pub(super) fn resolve(
    name: &SourceName,
    source: &config::Source,
    environment: Environment<'_>,
    file: Option<&File>,
) -> Result<Source, Error> {
    let location = location(name, source)?;
    let secret_of = |key: &str, auth: Option<&config::Auth>| {
        auth.and_then(|auth| auth.password_from.as_ref())
            .map(|from| secret::read(from, "password", environment))
            .transpose()
            .map_err(|error| match file {
                Some(file) => Error::Secret {
                    place: file.locate(&format!("sources.{name}.{key}.passwordFrom")),
                    source: Box::new(error),
                },
                None => error,
            })
    };
    let username = |auth: Option<&config::Auth>| auth.and_then(|auth| auth.username.clone());
    let url = location.url();
    let tls_of_url = url.filter(|url| url.tls).map(|_| config::Tls::default());
    let access = Access {
        username: username(source.auth.as_ref()).or_else(|| url?.username.clone()),
        password: secret_of("auth", source.auth.as_ref())?,
        tls: source.tls.clone().or(tls_of_url),
    };
    let sentinel_access = match &source.sentinel {
        Some(config::Sentinel { auth, tls }) => Access {
            username: username(auth.as_ref()),
            password: secret_of("sentinel.auth", auth.as_ref())?,
            tls: tls.clone(),
        },
        None => access.clone(),
    };
    let Compression { codec, level } = source.compression;
    let recipients = match &source.encryption {
        Some(configured) => encryption::of_config(configured)?,
        None => Recipients::default(),
    };
    let data_dirs = url.map(|url| data_dirs(source, &url.address)).unwrap_or_default();
    Ok(Source {
        name: name.clone(),
        location,
        access,
        sentinel_access,
        primary: source.primary,
        data_dirs,
        method: source.method,
        server_binary: source.server_binary.clone(),
        spool: resolve_spool(source.spool.as_ref(), environment),
        timeouts: source.timeouts,
        codec,
        level: level.unwrap_or_else(|| codec.default_level()),
        captures_at_once: source
            .captures_at_once
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(CAPTURES_AT_ONCE),
        skew_seconds_max: source.skew_max_seconds,
        shrink_guard: source.shrink_guard,
        recipients,
    })
}

/// Where it is, for who does not ask it and needs no secret.
pub(super) fn location(name: &SourceName, source: &config::Source) -> Result<Location, Error> {
    let failed = |finding| Error::SourceUrl { name: name.clone(), finding };
    match &source.kubernetes {
        Some(configured) => kubernetes::check(configured)
            .map(Location::Kubernetes)
            .map_err(|(_, finding)| failed(finding)),
        None => SourceUrl::parse_all(&source.nodes)
            .map(Location::Nodes)
            .map_err(|error| failed(error.to_string())),
    }
}

fn check_nodes(source: &config::Source) -> Result<(), Finding> {
    if source.nodes.is_empty() {
        let finding = "where the source is found is missing: write `nodes` or `kubernetes`";
        return Err(("nodes", finding.to_owned()));
    }
    let url = SourceUrl::parse_all(&source.nodes).map_err(|error| ("nodes", error.to_string()))?;
    if url.password.is_some() {
        return Err((
            "nodes",
            "a URL must not hold a password: others can read it there; say where it is by \
             `auth: {passwordFrom: {file: PATH}}` or `--password-from env:NAME|file:PATH`"
                .to_owned(),
        ));
    }
    check_data_dirs(source, &url.address)
}

/// What belongs to configured nodes has no meaning for pods that are discovered.
fn check_in_kubernetes(source: &config::Source) -> Result<(), Finding> {
    if !source.nodes.is_empty() {
        return Err(("nodes", "write `nodes` or `kubernetes`, not both".to_owned()));
    }
    for (key, is_there) in
        [("dataDir", source.data_dir.is_some()), ("dataDirs", !source.data_dirs.is_empty())]
    {
        if is_there {
            return Err((
                key,
                "the data directories of pods are discovered; leave it out".to_owned(),
            ));
        }
    }
    Ok(())
}

/// A data directory belongs to one node, and which one must be sure.
fn check_data_dirs(source: &config::Source, address: &SourceAddress) -> Result<(), Finding> {
    let has_one = matches!(address, SourceAddress::Nodes(nodes) if nodes.len() == 1);
    if source.data_dir.is_some() && !has_one {
        return Err((
            "dataDir",
            "it belongs to one node, and `nodes` names several or sentinels; write \
             `dataDirs: {\"host:port\": PATH}` with the address that `backup --dry-run` shows"
                .to_owned(),
        ));
    }
    if source.data_dir.is_some() && !source.data_dirs.is_empty() {
        return Err(("dataDirs", "write `dataDir` or `dataDirs`, not both".to_owned()));
    }
    if source.method == MethodChoice::Bgsave
        && source.data_dir.is_none()
        && source.data_dirs.is_empty()
    {
        return Err(("method", "`bgsave` needs `dataDir`: the RDB is read from there".to_owned()));
    }
    Ok(())
}

fn data_dirs(source: &config::Source, address: &SourceAddress) -> BTreeMap<NodeAddress, PathBuf> {
    match (&source.data_dir, address) {
        (Some(path), SourceAddress::Nodes(nodes)) => {
            nodes.iter().map(|node| (node.clone(), path.clone())).collect()
        }
        (Some(_) | None, _) => source.data_dirs.clone(),
    }
}

fn resolve_spool(spool: Option<&config::Spool>, environment: Environment<'_>) -> Spool {
    match spool {
        Some(config::Spool { path, bytes_max }) => {
            Spool::Configured(spool::Limits { folder: path.clone(), bytes_max: bytes_max.as_u64() })
        }
        None => Spool::Default {
            folders: environment("TMPDIR")
                .map(PathBuf::from)
                .into_iter()
                .chain(["/var/tmp".into(), "/tmp".into(), ".".into()])
                .collect(),
            bytes_max: SPOOL_BYTES_MAX,
        },
    }
}
