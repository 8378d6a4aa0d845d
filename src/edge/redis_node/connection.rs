//! A connection to one node: reached, encrypted, authenticated. Never retries; the caller knows what may be repeated.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, ProtocolVersion, RedisConnectionInfo, RedisError,
    aio::MultiplexedConnection,
};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Error, Tls,
    dial::{Dial, Dialed, Stream},
    link::{Bounded, Link},
};
use crate::domain::{secret::Secret, source::NodeAddress};

/// Without a password nothing is asked of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// None is the default user.
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// How nodes are talked to. Sentinels may have another.
#[derive(Clone, Debug)]
pub struct Access {
    pub credentials: Credentials,
    pub tls: Option<Tls>,
    pub connect_timeout: Duration,
    /// A server that forks or runs a slow command answers nobody for a while.
    pub response_timeout: Duration,
    /// None connects to the address itself.
    pub dial: Option<Arc<dyn Dial>>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            tls: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            dial: None,
        }
    }
}

/// A node that answers commands.
#[derive(Debug)]
pub struct Connection {
    address: NodeAddress,
    limit: Duration,
    commands: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn open(address: &NodeAddress, access: &Access) -> Result<Self, Error> {
        let attempt = "connect";
        let link = open(attempt, address, access).await?;
        // RESP2 without CLIENT SETINFO: a minimal user may send neither HELLO nor that.
        let info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(access.response_timeout));
        let (commands, driver) =
            MultiplexedConnection::new_with_config(&info, Bounded::new(link.stream), config)
                .await
                .map_err(|error| of_redis(attempt, address, "", access.response_timeout, &error))?;
        Ok(Self {
            address: address.clone(),
            limit: access.response_timeout,
            commands,
            driver: tokio::spawn(driver),
        })
    }

    pub fn address(&self) -> &NodeAddress {
        &self.address
    }

    /// Ask a command, such as `["CLUSTER", "NODES"]`, whose first `named` words name it.
    pub async fn ask<T: FromRedisValue>(
        &mut self,
        attempt: &'static str,
        words: &[&str],
        named: usize,
    ) -> Result<T, Error> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        let name = words[..named.min(words.len())].join(" ");
        command
            .query_async(&mut self.commands)
            .await
            .map_err(|error| of_redis(attempt, &self.address, &name, self.limit, &error))
    }
}

/// The first IP address of a node's host, the IPv4 one if it has several; none where it is not found in time.
pub async fn resolve(node: &NodeAddress, limit: Duration) -> Option<IpAddr> {
    let found = timeout(limit, lookup_host((node.host(), node.port()))).await.ok()?.ok()?;
    found.map(|address| address.ip()).min()
}

/// Reach, encrypt, authenticate, and have one PING answered: a refusal of any kind shows here,
/// also that of a client certificate, which TLS 1.3 tells only with the first bytes read.
pub(super) async fn open(
    attempt: &'static str,
    address: &NodeAddress,
    access: &Access,
) -> Result<Link, Error> {
    let stream = reach(attempt, address, access).await?;
    let mut link = Link::new(attempt, address, stream, access.response_timeout);
    greet(&mut link, &access.credentials).await?;
    if link.ahead.is_empty() {
        Ok(link)
    } else {
        Err(link.protocol("the server sent more than was asked for".to_owned()))
    }
}

async fn reach(
    attempt: &'static str,
    address: &NodeAddress,
    access: &Access,
) -> Result<Stream, Error> {
    let unreachable = |source| Error::Unreachable { attempt, address: address.clone(), source };
    let limit = access.connect_timeout;
    let late = || {
        let text = format!("no answer within {} s (`timeouts.connect`)", limit.as_secs_f64());
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    let dialed = timeout(limit, dial(address, access)).await;
    let Dialed { stream, server_names } =
        dialed.unwrap_or_else(|_| Err(late())).map_err(unreachable)?;
    let Some(tls) = &access.tls else {
        return Ok(stream);
    };
    // A server without TLS takes the greeting for the beginning of a command and waits for the rest.
    let handshake = timeout(limit, tls.connect(address.host(), &server_names, stream)).await;
    let stream = handshake.unwrap_or_else(|_| Err(late())).map_err(|source| Error::Tls {
        attempt,
        address: address.clone(),
        advice: super::tls::advice(&source)
            .unwrap_or_else(|| "the server does not answer it: is this its TLS port?".to_owned()),
        source,
    })?;
    Ok(Box::new(stream))
}

async fn dial(address: &NodeAddress, access: &Access) -> io::Result<Dialed> {
    if let Some(dial) = &access.dial {
        return dial.dial(address).await;
    }
    let stream = TcpStream::connect((address.host(), address.port())).await?;
    stream.set_nodelay(true)?;
    Ok(Dialed { stream: Box::new(stream), server_names: Vec::new() })
}

async fn greet(link: &mut Link, credentials: &Credentials) -> Result<(), Error> {
    if let Some(password) = &credentials.password {
        let words = match &credentials.username {
            Some(username) => vec!["AUTH", username, password.expose()],
            None => vec!["AUTH", password.expose()],
        };
        if let Err(reply) = link.ask(&words).await? {
            return Err(link.refused("AUTH", &reply));
        }
    }
    match link.ask(&["PING"]).await? {
        Ok(_) => Ok(()),
        Err(reply) => {
            let code = reply.split_ascii_whitespace().next().unwrap_or_default();
            // Whoever is loading, cut off from its primary or unable to save still answers INFO.
            if matches!(code, "LOADING" | "MASTERDOWN" | "MISCONF" | "NOPERM") {
                Ok(())
            } else {
                Err(link.refused("PING", &reply))
            }
        }
    }
}

fn of_redis(
    attempt: &'static str,
    address: &NodeAddress,
    command: &str,
    limit: Duration,
    error: &RedisError,
) -> Error {
    if error.is_timeout() {
        return Error::Timeout { attempt, address: address.clone(), limit };
    }
    if error.is_io_error() || error.is_connection_dropped() {
        return Error::of_cut(
            attempt,
            address,
            format!("before the reply to {command}"),
            io::Error::other(error.to_string()),
        );
    }
    match error.code() {
        Some(code) => {
            let reply = format!("{code} {}", error.detail().unwrap_or_default());
            Error::of_reply(attempt, address, command, &reply)
        }
        None => Error::Protocol {
            attempt,
            address: address.clone(),
            finding: format!("the reply to {command} cannot be read: {error}"),
        },
    }
}
