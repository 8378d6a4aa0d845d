//! Another way to a node than a TCP connection to its address. Says what it must do; does nothing.

use std::{fmt, io};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::domain::source::NodeAddress;

/// A TCP or TLS stream, or a forwarded port.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub type Stream = Box<dyn Duplex>;

/// How nodes are reached that have addresses of their own network.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// A stream to who listens at the address. The caller limits the time.
    async fn dial(&self, address: &NodeAddress) -> io::Result<Dialed>;

    /// The machine that the node runs on: nodes of one machine share its memory.
    fn machine(&self, address: &NodeAddress) -> Option<String>;
}

/// A connection, and whom to expect at its other end.
pub struct Dialed {
    pub stream: Stream,
    /// Names of the node besides the host of its address: its certificate may have any of them.
    pub server_names: Vec<String>,
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("server_names", &self.server_names).finish_non_exhaustive()
    }
}
