//! A line between a client and a plain HTTP server that breaks, stalls or answers by itself, as told.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Never reaches the server; this status is the answer.
    Answer(u16),
    /// The server acts; its answer is thrown away and the connection is closed.
    LoseReply,
    /// The connection is closed after so many bytes towards the server.
    CutRequest(usize),
    /// The connection is closed after so many bytes of the answer.
    CutReply(usize),
    /// The answer stands still after so many bytes.
    StallReply(usize),
    /// Both ways are slow.
    Slow,
}

#[derive(Debug)]
struct Rule {
    /// Requests whose first line does not hold this text are left alone and not counted.
    line_part: &'static str,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    heads: Vec<String>,
}

/// Gone, with all its connections, when dropped.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    port: u16,
    state: Arc<Mutex<State>>,
    listening: JoinHandle<()>,
}

impl TcpProxy {
    pub(crate) async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let server = SocketAddr::from(([127, 0, 0, 1], server_port));
        let shared = Arc::clone(&state);
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move { serve(client, server, &state).await.ok() });
            }
        });
        Self { port, state, listening }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next so many requests whose first line holds the text meet this fault.
    pub(crate) fn add(&self, line_part: &'static str, times: usize, fault: Fault) {
        self.state.lock().unwrap().rules.push(Rule { line_part, times, fault });
    }

    /// Forget all rules.
    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// Lines and headers of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state.lock().unwrap().heads.clone()
    }

    /// How many requests had this text in their first line.
    pub(crate) fn count(&self, line_part: &str) -> usize {
        let heads = self.heads();
        heads.iter().filter(|head| head.lines().next().unwrap().contains(line_part)).count()
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// One request per connection: the server is asked to close it after its answer.
async fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head[..head.len() - 2]).into_owned();
    let fault = next_fault(state, &text);
    if let Some(Fault::Answer(status)) = fault {
        return answer(client, &text, status).await;
    }
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(format!("{text}Connection: close\r\n\r\n").as_bytes()).await?;
    let (client_read, client_write) = client.into_split();
    let (upstream_read, upstream_write) = upstream.into_split();
    let slow = matches!(fault, Some(Fault::Slow));
    let request_max = match fault {
        Some(Fault::CutRequest(length)) => length,
        _ => usize::MAX,
    };
    let reply_max = match fault {
        Some(Fault::CutReply(length) | Fault::StallReply(length)) => length,
        _ => usize::MAX,
    };
    let stalls = matches!(fault, Some(Fault::StallReply(_)));
    let request = async {
        if pass(client_read, upstream_write, request_max, slow).await {
            return;
        }
        // The client has no more to send; the answer is still to come.
        std::future::pending::<()>().await;
    };
    let reply = async {
        let was_cut = if matches!(fault, Some(Fault::LoseReply)) {
            pass(upstream_read, tokio::io::sink(), usize::MAX, false).await
        } else {
            pass(upstream_read, client_write, reply_max, slow).await
        };
        if was_cut && stalls {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = request => {}
        () = reply => {}
    }
    Ok(())
}

fn next_fault(state: &Mutex<State>, head: &str) -> Option<Fault> {
    let mut state = state.lock().unwrap();
    state.heads.push(head.to_owned());
    let line = head.lines().next().unwrap();
    let rule =
        state.rules.iter_mut().find(|rule| rule.times > 0 && line.contains(rule.line_part))?;
    rule.times -= 1;
    Some(rule.fault)
}

async fn answer(mut client: TcpStream, head: &str, status: u16) -> std::io::Result<()> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().unwrap())
    });
    if head.to_ascii_lowercase().contains("100-continue") {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut body = (&mut client).take(length.unwrap_or(0));
    tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
    let reply = format!("HTTP/1.1 {status} Odd\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    client.write_all(reply.as_bytes()).await
}

/// Returns whether the limit ended it; a limit of zero ends it before the first byte.
async fn pass(
    mut source: impl AsyncRead + Unpin,
    mut target: impl AsyncWrite + Unpin,
    length_max: usize,
    slow: bool,
) -> bool {
    let mut rest = length_max;
    let mut buffer = vec![0; 64 << 10];
    while rest > 0 {
        if slow {
            sleep(Duration::from_millis(5)).await;
        }
        let wanted = rest.min(buffer.len());
        match source.read(&mut buffer[..wanted]).await {
            Ok(0) | Err(_) => return false,
            Ok(length) => {
                if target.write_all(&buffer[..length]).await.is_err() {
                    return false;
                }
                rest -= length;
            }
        }
    }
    true
}
