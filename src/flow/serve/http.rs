//! Health, readiness and metrics over HTTP. Only reads what is shown; knows no other route.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::{board::Board, metrics};

/// More questions at once wait their turn.
const CONNECTIONS_MAX: usize = 32;

/// A question and its answer take no longer, or the connection is closed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Head of a request; a body is never read.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// After a connection that could not be accepted, for want of descriptors say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Clone)]
struct Shared {
    board: Arc<Board>,
    clock: Clock,
}

/// Answers until it is dropped.
pub(super) async fn answer(listener: TcpListener, board: Arc<Board>, clock: Clock) {
    let router = router(board, clock);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // Who asks too slowly or in a wrong way has the loss.
                    let _ = timeout(ANSWER_WITHIN, connection(stream, router)).await;
                    drop(place);
                });
            }
            Err(error) => refused(&error).await,
        }
    }
}

fn router(board: Arc<Board>, clock: Clock) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(tell_metrics))
        .with_state(Shared { board, clock })
}

async fn connection(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ANSWER_WITHIN)
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

async fn refused(error: &io::Error) {
    tracing::debug!("a connection was not accepted: {error}");
    sleep(ACCEPT_AGAIN).await;
}

async fn health(State(shared): State<Shared>) -> Response {
    match shared.board.shown().is_stuck(Instant::now()) {
        None => plain(StatusCode::OK, "alive\n".to_owned()),
        Some(finding) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{finding}\n")),
    }
}

async fn readiness(State(shared): State<Shared>) -> Response {
    let findings = shared.board.shown().is_not_ready();
    if findings.is_empty() {
        return plain(StatusCode::OK, "ready\n".to_owned());
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", findings.join("\n")))
}

async fn tell_metrics(State(Shared { board, clock }): State<Shared>) -> Response {
    match metrics::render(&board.shown(), clock()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
