//! Commands in a container of a pod, over WebSocket. Tells how they ended as far as it was told; promises nothing of their output.
//!
//! An output that ends without an error need not be whole: a connection that is closed early looks the same. Whoever reads
//! it must find the proof in what it reads.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Client, Error, Right};
use crate::edge::live_directory::{Ended, Running, Shell};

/// Between the connection and who reads.
const OUTPUT_BUFFER_BYTES: usize = 1 << 20;

/// Of what a command complains of.
const STDERR_BYTES_MAX: usize = 2 << 10;

/// Between the lines that tell a command, and every proxy on the way, that its reader lives.
const LINES_EACH: Duration = Duration::from_secs(10);

/// For the rest of it, after the command has ended.
const STDERR_LIMIT: Duration = Duration::from_secs(1);

/// What a command in a pod needs. A WebSocket begins with a GET; from Kubernetes 1.35 on the right to create is asked
/// for, too.
pub fn rights(namespace: &str) -> [Right; 2] {
    ["get", "create"].map(|verb| Right::new(verb, "pods/exec").in_namespace(namespace))
}

/// One container, by its names.
#[derive(Clone, Debug)]
pub struct ContainerShell {
    client: Client,
    namespace: String,
    pod: String,
    container: String,
}

impl ContainerShell {
    pub fn new(client: &Client, namespace: &str, pod: &str, container: &str) -> Self {
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
        }
    }
}

impl fmt::Display for ContainerShell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} of pod {}/{}", self.container, self.namespace, self.pod)
    }
}

#[async_trait]
impl Shell for ContainerShell {
    async fn run(
        &self,
        script: &str,
        arguments: &[String],
    ) -> Result<Running, Box<dyn std::error::Error + Send + Sync>> {
        let attempt = format!("run a command in {self}");
        let [right, _] = rights(&self.namespace);
        let pods: Api<Pod> = Api::namespaced(self.client.kube(), &self.namespace);
        let parameters = AttachParams::default()
            .container(self.container.clone())
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(OUTPUT_BUFFER_BYTES);
        let head = ["sh", "-c", script, "sh"].into_iter();
        let command: Vec<&str> = head.chain(arguments.iter().map(String::as_str)).collect();
        let begin = pods.exec(&self.pod, command, &parameters);
        let mut process = self.client.ask(&attempt, &right, begin).await?;
        let missing = || Error::Protocol { attempt: attempt.clone(), source: "no output".into() };
        let input = process.stdin().ok_or_else(missing)?;
        let output = process.stdout().ok_or_else(missing)?;
        let errors = process.stderr().ok_or_else(missing)?;
        let status = process.take_status().ok_or_else(missing)?;
        let status: Told = status.boxed().shared();
        let mut living = JoinSet::new();
        living.spawn(say_that_we_live(input));
        // Were it not read all the time, the output would stand still with it.
        let mut stderr = JoinSet::new();
        stderr.spawn(first_of(errors));
        let told = status.clone();
        let ended = async move {
            let fault = told.await.filter(|status| status.status.as_deref() != Some("Success"));
            let fault = fault.map(|status| status.message.unwrap_or_default());
            // It has no end where the connection was lost.
            let stderr = timeout(STDERR_LIMIT, stderr.join_next()).await.ok().flatten();
            Ended { fault, stderr: stderr.and_then(Result::ok).unwrap_or_default() }
        };
        let read = Box::new(output);
        let output = Output { read, status, is_lost: None, _living: living, _process: process };
        let output = Box::new(output);
        Ok(Running { output, ended: Box::pin(ended) })
    }
}

/// How the command ended; none once the connection is lost.
type Told = Shared<BoxFuture<'static, Option<Status>>>;

/// Ends its command when it is dropped.
struct Output {
    read: Box<dyn AsyncRead + Send + Sync + Unpin>,
    status: Told,
    /// Known once `status` has told, which it does once.
    is_lost: Option<bool>,
    _living: JoinSet<()>,
    _process: AttachedProcess,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.read).poll_read(context, buffer) {
            return ready;
        }
        let is_lost = match self.is_lost {
            Some(is_lost) => is_lost,
            None => match Pin::new(&mut self.status).poll(context) {
                Poll::Ready(status) => *self.is_lost.insert(status.is_none()),
                Poll::Pending => false,
            },
        };
        if !is_lost {
            return Poll::Pending;
        }
        // The client library leaves the stream of a lost connection open for ever.
        match Pin::new(&mut self.read).poll_read(context, buffer) {
            Poll::Pending => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

/// Until nobody hears it. The end of its input is what tells a command that its reader is gone.
async fn say_that_we_live(mut input: impl AsyncWrite + Unpin) {
    while input.write_all(b"\n").await.is_ok() {
        sleep(LINES_EACH).await;
    }
    // Whoever runs the command may close its input early.
    std::future::pending::<()>().await;
}

/// Reads to the end, and keeps only the beginning.
async fn first_of(mut stream: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = STDERR_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
