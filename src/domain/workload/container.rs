//! What one container is and how it is reached, by its command, image, variables and ports. Looks at nothing but facts.

use super::{
    DataVolume,
    facts::{Container, Mount, Pod, SecretKey, Value, VolumeContent},
};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where images keep their dataset, the usual one first.
const DATA_PATHS: [&str; 4] =
    ["/data", "/bitnami/redis/data", "/bitnami/valkey/data", "/bitnami/redis"];

/// Variables by which images take the password, the server's own before a client's.
const PASSWORD_VARIABLES: [&str; 5] =
    ["REDIS_PASSWORD", "VALKEY_PASSWORD", "REQUIREPASS", "REDISCLI_AUTH", "VALKEYCLI_AUTH"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Redis,
    Sentinel,
    Other,
}

pub(super) fn role(container: &Container) -> Role {
    let says = |word: &str| container.words.iter().any(|given| given.contains(word));
    let image = image_name(&container.image);
    let name = container.name.as_str();
    if is_exporter(container) {
        return Role::Other;
    }
    let listens = |number| container.ports.iter().any(|port| port.number == number);
    let is_sentinel = name.contains("sentinel")
        || image.contains("sentinel")
        || says("redis-sentinel")
        || says("valkey-sentinel")
        || says("--sentinel")
        || (listens(SENTINEL_PORT) && !listens(REDIS_PORT));
    if is_sentinel {
        return Role::Sentinel;
    }
    let is_redis = says("redis-server")
        || says("valkey-server")
        || image.starts_with("redis")
        || image.starts_with("valkey")
        || listens(REDIS_PORT);
    if is_redis { Role::Redis } else { Role::Other }
}

pub(super) fn is_exporter(container: &Container) -> bool {
    let name = container.name.as_str();
    name.contains("exporter")
        || name.contains("metrics")
        || image_name(&container.image).contains("exporter")
}

/// `redis` of `quay.io/opstree/redis:v7`.
fn image_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split([':', '@']).next().unwrap_or_default()
}

/// Where it listens, and whether that was a guess.
pub(super) fn port(container: &Container, role: Role) -> (u16, bool) {
    let usual = if role == Role::Sentinel { SENTINEL_PORT } else { REDIS_PORT };
    let option = |name| option(container, name)?.parse().ok().filter(|port| *port > 0);
    if let Some(port) = option("--tls-port").or_else(|| option("--port")) {
        return (port, false);
    }
    let by_variable = ["REDIS_PORT_NUMBER", "VALKEY_PORT_NUMBER", "REDIS_PORT"];
    if let (Role::Redis, Some(port)) =
        (role, by_variable.iter().find_map(|name| text(container, name)?.parse().ok()))
    {
        return (port, false);
    }
    let ports = &container.ports;
    if ports.iter().any(|port| port.number == usual) {
        return (usual, false);
    }
    let is_named = |name: &str| ["redis", "valkey", "client", "sentinel"].contains(&name);
    let named = ports.iter().find(|port| port.name.as_deref().is_some_and(is_named));
    match (named, ports.as_slice()) {
        (Some(port), _) | (None, [port]) => (port.number, false),
        (None, _) => (usual, true),
    }
}

pub(super) fn speaks_tls(container: &Container) -> bool {
    let has_option = option(container, "--tls-port").is_some_and(|port| port != "0");
    let is_on = |name| text(container, name).is_some_and(|value| ["yes", "true"].contains(&value));
    has_option || ["REDIS_TLS_ENABLED", "VALKEY_TLS_ENABLED", "TLS_MODE"].into_iter().any(is_on)
}

/// The Secret from which the server has its password; an error says why that is not sure.
pub(super) fn password(pod: &Pod, container: &Container) -> Result<Option<SecretKey>, String> {
    let written = container.words.iter().any(|word| word.contains("requirepass"));
    if let Some(key) = by_option(pod, container) {
        return Ok(Some(key));
    }
    let is_named = |name: &str| PASSWORD_VARIABLES.contains(&name);
    for name in PASSWORD_VARIABLES {
        let variable = container.variables.iter().find(|variable| variable.name == name);
        if let Some(Value::Secret(key)) = variable.map(|variable| &variable.value) {
            return Ok(Some(key.clone()));
        }
        if let Some(key) =
            text(container, &format!("{name}_FILE")).and_then(|path| mounted(pod, container, path))
        {
            return Ok(Some(key));
        }
    }
    let withheld = |value: &Value| matches!(value, Value::Withheld);
    if container.variables.iter().any(|it| is_named(&it.name) && withheld(&it.value)) {
        return Err("its password stands in the pod itself".to_owned());
    }
    if written {
        return Err("it has a password (requirepass), and from where was not found".to_owned());
    }
    Ok(None)
}

/// `--requirepass $(NAME)`, `"$NAME"` in a shell's words, or a file of a mounted Secret.
fn by_option(pod: &Pod, container: &Container) -> Option<SecretKey> {
    let words = &container.words;
    let at = words.iter().position(|word| word.contains("requirepass"))?;
    let behind = words[at].split_once("requirepass").map(|(_, behind)| behind.to_owned());
    let given = [behind.unwrap_or_default(), words.get(at + 1).cloned().unwrap_or_default()];
    let given = given.join(" ");
    let variables = container.variables.iter().filter_map(|variable| match &variable.value {
        Value::Secret(key) => Some((variable.name.as_str(), key)),
        Value::Text(_) | Value::Withheld | Value::Other => None,
    });
    let is_used = |name: &str| {
        [format!("$({name})"), format!("${{{name}}}"), format!("${name}")]
            .iter()
            .any(|form| given.contains(form.as_str()))
    };
    if let Some((_, key)) = variables.into_iter().find(|(name, _)| is_used(name)) {
        return Some(key.clone());
    }
    let is_path = |word: &&str| word.starts_with('/');
    let mut paths = given.split(|sign: char| " )\"'`;<".contains(sign)).filter(is_path);
    paths.find_map(|path| mounted(pod, container, path))
}

/// The entry of a Secret that lies at a path of the container.
fn mounted(pod: &Pod, container: &Container, path: &str) -> Option<SecretKey> {
    container.mounts.iter().find_map(|Mount { volume, path: folder, sub_path }| {
        let below = path.strip_prefix(folder.trim_end_matches('/'))?.trim_start_matches('/');
        let file = match (sub_path, below) {
            (Some(sub_path), "") => sub_path.as_str(),
            (_, below) => below,
        };
        let volume = pod.volumes.iter().find(|it| it.name == *volume)?;
        let VolumeContent::Secret { secret, files } = &volume.content else { return None };
        let renamed = files.iter().find(|(_, name)| *name == file).map(|(key, _)| key.as_str());
        let key = renamed.unwrap_or(file);
        (!key.is_empty()).then(|| SecretKey { secret: secret.clone(), key: key.to_owned() })
    })
}

/// Where the dataset lies.
pub(super) fn data(pod: &Pod, container: &Container) -> Option<DataVolume> {
    let folder = option(container, "--dir");
    let holds = |mount: &&Mount, folder: &str| {
        let path = mount.path.trim_end_matches('/');
        folder == path || folder.starts_with(&format!("{path}/"))
    };
    let is_claim = |mount: &&Mount| {
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
        volume.is_some_and(|volume| matches!(volume.content, VolumeContent::Claim(_)))
    };
    let mounts = || container.mounts.iter();
    let by_folder = folder.and_then(|folder| mounts().find(|mount| holds(mount, folder)));
    let usual = || DATA_PATHS.iter().find_map(|path| mounts().find(|mount| mount.path == *path));
    let mount = by_folder.or_else(usual).or_else(|| mounts().find(is_claim))?;
    let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume)?;
    let claim = match &volume.content {
        VolumeContent::Claim(claim) => Some(claim.clone()),
        VolumeContent::Secret { .. } | VolumeContent::Other => None,
    };
    let suffix = format!("-{}", pod.name);
    Some(DataVolume {
        template: claim.as_ref().and_then(|it| it.strip_suffix(&suffix)).map(str::to_owned),
        claim,
        volume: mount.volume.clone(),
        path: mount.path.clone(),
        sub_path: mount.sub_path.clone(),
    })
}

/// The word behind an option, also where a shell is given all in one word.
fn option<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let mut words = container.words.iter().flat_map(|word| word.split_whitespace());
    words.find(|word| *word == name)?;
    words.next().map(|word| word.trim_matches(['"', '\'']))
}

fn text<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    container.variables.iter().find(|variable| variable.name == name).and_then(|variable| {
        match &variable.value {
            Value::Text(text) => Some(text.as_str()),
            Value::Withheld | Value::Secret(_) | Value::Other => None,
        }
    })
}
