//! Where a source is found, parsed from URLs. Never connects, never prints a password.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize, Serializer, de};

use super::secret::Secret;

/// More seeds than anyone needs; each unreachable one costs a connect timeout.
pub const ADDRESSES_MAX: usize = 1024;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A host name or IP address and a port, written `host:port` or `[::1]:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

/// Where to begin looking. What is found there tells the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// A standalone server, a primary with replicas, or any nodes of one Cluster.
    Nodes(Vec<NodeAddress>),
    Sentinel {
        sentinels: Vec<NodeAddress>,
        /// The name under which the sentinels watch the primary.
        primary_name: String,
    },
}

impl SourceAddress {
    /// What can be compared with the origin of a prefix without asking the source.
    pub fn identities(&self) -> Vec<String> {
        match self {
            Self::Nodes(nodes) => nodes.iter().map(ToString::to_string).collect(),
            Self::Sentinel { sentinels: _, primary_name } => {
                vec![format!("sentinel:{primary_name}")]
            }
        }
    }
}

/// What the URLs of one source say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUrl {
    pub address: SourceAddress,
    /// `rediss://`. A sentinel URL never tells; config does.
    pub tls: bool,
    pub username: Option<String>,
    /// Recorded so that settings can refuse it: a URL on argv or in a file is no place for it.
    pub password: Option<Secret>,
}

/// No variant holds the URL itself, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no URL is given")]
    Empty,
    #[error("{0} addresses are given, at most {ADDRESSES_MAX} are read")]
    TooMany(usize),
    #[error("no scheme: expected redis://host:6379, rediss:// (TLS) or sentinel://host:26379/name")]
    NoScheme,
    #[error(
        "scheme {found:?} is not known: expected redis://host:6379, rediss:// (TLS) or sentinel://host:26379/name"
    )]
    Scheme { found: String },
    #[error("address {text:?} is not host:port, such as redis-0.redis:6379 or [::1]:6379")]
    Address { text: String },
    #[error("a broken percent-encoding in the user information")]
    UserInformation,
    #[error("a backup holds every database: leave out {text:?} behind the address")]
    Path { text: String },
    #[error("a query or fragment means nothing here: leave out what begins with `?` or `#`")]
    Query,
    #[error("the name of the watched primary is missing: sentinel://host:26379/name")]
    PrimaryName,
    #[error("the URLs of one source differ in {what}")]
    Differ { what: &'static str },
}

impl NodeAddress {
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    fn parse(text: &str, default_port: u16) -> Result<Self, Error> {
        let error = || Error::Address { text: printable(text) };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, behind) = rest.split_once(']').ok_or_else(error)?;
            host.parse::<Ipv6Addr>().map_err(|_| error())?;
            match behind {
                "" => (host, None),
                _ => (host, Some(behind.strip_prefix(':').ok_or_else(error)?)),
            }
        } else {
            match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(error)?,
            None => default_port,
        };
        let is_host_name =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_host = !host.is_empty()
            && (text.starts_with('[') || host.bytes().all(is_host_name))
            && host.len() <= 253;
        if is_host { Ok(Self::new(host, port)) } else { Err(error()) }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for NodeAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text, REDIS_PORT)
    }
}

impl Serialize for NodeAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeAddress {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl SourceAddress {
    /// Every configured address, of nodes or of sentinels.
    pub fn addresses(&self) -> &[NodeAddress] {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Sentinel { sentinels, .. } => sentinels,
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |addresses: &[NodeAddress]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Nodes(nodes) => f.write_str(&joined(nodes)),
            Self::Sentinel { sentinels, primary_name } => {
                write!(f, "sentinel://{}/{primary_name}", joined(sentinels))
            }
        }
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            SourceAddress::Nodes(_) if self.tls => write!(f, "rediss://{}", self.address),
            SourceAddress::Nodes(_) => write!(f, "redis://{}", self.address),
            SourceAddress::Sentinel { .. } => write!(f, "{}", self.address),
        }
    }
}

impl FromStr for SourceUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(Error::NoScheme)?;
        if !matches!(scheme, "redis" | "rediss" | "sentinel") {
            return Err(Error::Scheme { found: scheme.to_owned() });
        }
        let (user_information, rest) = match rest.rsplit_once('@') {
            Some((user_information, rest)) => (Some(user_information), rest),
            None => (None, rest),
        };
        if rest.contains(['?', '#']) {
            return Err(Error::Query);
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = if scheme == "sentinel" {
            sentinel_address(hosts, path)?
        } else if matches!(path, "" | "0") {
            SourceAddress::Nodes(addresses(hosts, REDIS_PORT)?)
        } else {
            return Err(Error::Path { text: format!("/{path}") });
        };
        let (username, password) = match user_information {
            Some(text) => credentials(text)?,
            None => (None, None),
        };
        Ok(Self { address, tls: scheme == "rediss", username, password })
    }
}

impl SourceUrl {
    /// The URLs of one source as one: they may differ in nothing but the addresses.
    pub fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<Self, Error> {
        let mut urls = texts.iter().map(|text| text.as_ref().parse::<Self>());
        let mut all = urls.next().ok_or(Error::Empty)??;
        for url in urls {
            all.join(url?)?;
        }
        match all.address.addresses().len() {
            found if found > ADDRESSES_MAX => Err(Error::TooMany(found)),
            _ => Ok(all),
        }
    }

    fn join(&mut self, other: Self) -> Result<(), Error> {
        let Self { address, tls, username, password } = other;
        if self.tls != tls {
            return Err(Error::Differ { what: "TLS" });
        }
        if self.username != username || self.password != password {
            return Err(Error::Differ { what: "the credentials" });
        }
        match (&mut self.address, address) {
            (SourceAddress::Nodes(all), SourceAddress::Nodes(more)) => all.extend(more),
            (
                SourceAddress::Sentinel { sentinels: all, primary_name },
                SourceAddress::Sentinel { sentinels: more, primary_name: other },
            ) => {
                if *primary_name != other {
                    return Err(Error::Differ { what: "the name of the watched primary" });
                }
                all.extend(more);
            }
            (SourceAddress::Nodes(_), SourceAddress::Sentinel { .. })
            | (SourceAddress::Sentinel { .. }, SourceAddress::Nodes(_)) => {
                return Err(Error::Differ { what: "the scheme" });
            }
        }
        Ok(())
    }
}

fn sentinel_address(hosts: &str, path: &str) -> Result<SourceAddress, Error> {
    // Redis takes letters, digits and ".-_" as the name of a watched primary (sentinel.c).
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if path.is_empty() || !path.bytes().all(is_name) {
        return Err(Error::PrimaryName);
    }
    Ok(SourceAddress::Sentinel {
        sentinels: addresses(hosts, SENTINEL_PORT)?,
        primary_name: path.to_owned(),
    })
}

fn addresses(hosts: &str, default_port: u16) -> Result<Vec<NodeAddress>, Error> {
    hosts.split(',').map(|host| NodeAddress::parse(host, default_port)).collect()
}

/// What should be a port may be a password whose host was forgotten.
fn printable(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_err() => format!("{host}:…"),
        _ => text.to_owned(),
    }
}

fn credentials(text: &str) -> Result<(Option<String>, Option<Secret>), Error> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (text, None),
    };
    let password = password.map(percent_decoded).transpose()?.and_then(some);
    Ok((some(percent_decoded(username)?), password.map(Secret::new)))
}

/// RFC 3986, section 2.1.
fn percent_decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        if *first == b'%' {
            let digits = behind.get(..2).ok_or(Error::UserInformation)?;
            bytes.extend(hex::decode(digits).map_err(|_| Error::UserInformation)?);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::UserInformation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SourceUrl, Error> {
        text.parse()
    }

    #[test]
    fn each_kind_of_source_is_parsed_and_printed_back() {
        for (text, printed) in [
            ("redis://10.0.0.5:6379", "redis://10.0.0.5:6379"),
            ("redis://cache", "redis://cache:6379"),
            ("redis://cache/", "redis://cache:6379"),
            ("redis://cache/0", "redis://cache:6379"),
            ("redis://a:1,b:2", "redis://a:1,b:2"),
            ("rediss://[::1]:6380", "rediss://[::1]:6380"),
            ("rediss://[fe80::1]", "rediss://[fe80::1]:6379"),
            ("sentinel://s1,s2:26380/my.master-1", "sentinel://s1:26379,s2:26380/my.master-1"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn credentials_are_recorded_and_never_printed() {
        let url = parse("rediss://back%40up:p%3A%2Fss@10.0.0.5").unwrap();
        assert_eq!(url.username.as_deref(), Some("back@up"));
        assert_eq!(url.password.as_ref().unwrap().expose(), "p:/ss");
        assert!(url.tls);
        assert!(!format!("{url} {url:?}").contains("p:/ss"));

        let url = parse("redis://:secret@cache").unwrap();
        assert_eq!((url.username, url.password), (None, Some(Secret::new("secret"))));
        let url = parse("redis://backup@cache").unwrap();
        assert_eq!((url.username.as_deref(), url.password), (Some("backup"), None));
    }

    #[test]
    fn no_error_repeats_a_password() {
        for text in [
            "redis://u:hunter2@",
            "redis://u:hunter2",
            "redis://u:hunter2@a:b:c",
            "redis://u:hunter2@a/7",
            "http://u:hunter2@a",
            "redis://u:hunter2%zz@a",
            "redis://u:hunter2/x@a?b",
            "u:hunter2@a",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in [
            "",
            "cache:6379",
            "http://cache",
            "unix:///run/redis.sock",
            "redis://",
            "redis://a,",
            "redis://a:0",
            "redis://a:70000",
            "redis://a:port",
            "redis://::1",
            "redis://[::1",
            "redis://[cache]:1",
            "redis://[::1]6379",
            "redis://a b",
            "redis://a/3",
            "redis://a?db=1",
            "sentinel://a:26379",
            "sentinel://a:26379/",
            "sentinel://a:26379/x/y",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn several_urls_of_one_source_become_one() {
        let url = SourceUrl::parse_all(&["redis://a", "redis://b:2,c"]).unwrap();
        assert_eq!(url.to_string(), "redis://a:6379,b:2,c:6379");
        for texts in [
            ["redis://a", "rediss://b"],
            ["redis://x@a", "redis://b"],
            ["redis://a", "sentinel://b/m"],
            ["sentinel://a/m", "sentinel://b/n"],
        ] {
            let error = SourceUrl::parse_all(&texts).unwrap_err();
            assert!(matches!(error, Error::Differ { .. }), "{texts:?}: {error}");
        }
        assert_eq!(SourceUrl::parse_all::<&str>(&[]), Err(Error::Empty));
    }
}
