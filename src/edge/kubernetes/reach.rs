//! The way to the pods of a source: their IPs, or ports forwarded through the API server. Reaches pods of the source and no other.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Portforwarder};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

use super::{Client, Error, Right};
use crate::{
    domain::{
        source::NodeAddress,
        workload::{Member, Workload},
    },
    edge::redis_node::{Dial, Dialed},
};

/// How a pod is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Its IP, from within the cluster's network.
    Direct,
    /// A stream through the API server and the pod's kubelet.
    PortForward,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Reach {
    client: Client,
    way: Way,
    /// As it was found last.
    workload: Arc<RwLock<Workload>>,
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("way", &self.way).finish_non_exhaustive()
    }
}

impl Reach {
    pub fn new(client: Client, way: Way, workload: Workload) -> Self {
        Self { client, way, workload: Arc::new(RwLock::new(workload)) }
    }

    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Pods come and go: what was found now counts from here on.
    pub fn update(&self, workload: Workload) {
        *self.workload.write().unwrap_or_else(PoisonError::into_inner) = workload;
    }

    pub fn workload(&self) -> Workload {
        self.workload.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pod of a node of the source.
    pub fn member(&self, address: &NodeAddress) -> Option<Member> {
        let workload = self.workload.read().unwrap_or_else(PoisonError::into_inner);
        workload.at(address).cloned()
    }

    async fn forward(&self, pod: &str, port: u16) -> Result<Forwarded, Error> {
        let namespace = self.workload().namespace;
        // A WebSocket begins with a GET; from Kubernetes 1.35 on the right to create is asked for, too.
        let right = Right::new("get", "pods/portforward").in_namespace(&namespace);
        let attempt = format!("forward port {port} of pod {namespace}/{pod}");
        let api: Api<Pod> = Api::namespaced(self.client.kube(), &namespace);
        let ports = [port];
        let mut forwarder = self.client.ask(&attempt, &right, api.portforward(pod, &ports)).await?;
        let lost = || Error::Protocol { attempt: attempt.clone(), source: "no stream".into() };
        let stream = forwarder.take_stream(port).ok_or_else(lost)?;
        let error = forwarder.take_error(port).ok_or_else(lost)?;
        Ok(Forwarded { stream, error: Some(Box::pin(error)), forwarder })
    }
}

#[async_trait]
impl Dial for Reach {
    async fn dial(&self, address: &NodeAddress) -> io::Result<Dialed> {
        let member = self.member(address).ok_or_else(|| {
            let wanted = self.workload().wanted;
            let text = format!("no running pod of {wanted} has this address");
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        let server_names = member.server_names;
        match self.way {
            Way::Direct => {
                let stream = TcpStream::connect((member.address.host(), address.port())).await?;
                stream.set_nodelay(true)?;
                Ok(Dialed { stream: Box::new(stream), server_names })
            }
            Way::PortForward => {
                let forwarded = self.forward(&member.pod, address.port()).await;
                let stream = Box::new(forwarded.map_err(io::Error::other)?);
                Ok(Dialed { stream, server_names })
            }
        }
    }

    fn machine(&self, address: &NodeAddress) -> Option<String> {
        self.member(address)?.machine
    }
}

/// One pod by its IP, for who asks no API server.
#[derive(Clone, Debug)]
pub struct OnePod {
    pub host: String,
    /// DNS names that its certificate may have.
    pub server_names: Vec<String>,
}

#[async_trait]
impl Dial for OnePod {
    async fn dial(&self, address: &NodeAddress) -> io::Result<Dialed> {
        let stream = TcpStream::connect((self.host.as_str(), address.port())).await?;
        stream.set_nodelay(true)?;
        Ok(Dialed { stream: Box::new(stream), server_names: self.server_names.clone() })
    }

    /// There is no other.
    fn machine(&self, _: &NodeAddress) -> Option<String> {
        None
    }
}

/// One forwarded connection. Ends with the error that the pod's kubelet tells, if it tells one.
struct Forwarded {
    stream: DuplexStream,
    error: Option<Pin<Box<dyn Future<Output = Option<String>> + Send + Sync>>>,
    forwarder: Portforwarder,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The end: a refused connection looks the same, but for the words on the other channel.
        let Some(error) = &mut self.error else { return Poll::Ready(Ok(())) };
        let told = ready!(error.as_mut().poll(context));
        self.error = None;
        match told {
            Some(told) => Poll::Ready(Err(io::Error::other(told.trim().to_owned()))),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
