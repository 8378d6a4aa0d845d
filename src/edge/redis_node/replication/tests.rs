//! The framing by byte scripts: any split, any cut, any refusal. Real servers are in `tests/it`.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use proptest::prelude::*;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Builder,
};

use super::*;

/// No end of it is also its beginning, or a body that ends like it begins would seem to end early.
const MARK: &str = "0123456789abcdef123456789abcdef123456789";
const ID: &str = "8de1787ba490483314a4d30f1c628bc5025eb761";

/// Answers each read with the next chunk, whatever is written; closes at the end.
struct Script(VecDeque<Vec<u8>>);

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut chunk) = self.0.pop_front() {
            let rest = chunk.split_off(chunk.len().min(buffer.remaining()));
            buffer.put_slice(&chunk);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn link(bytes: &[u8], cuts: &[usize]) -> Link {
    let mut chunks = VecDeque::new();
    let mut rest = bytes;
    for cut in cuts {
        let (chunk, behind) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
        if !chunk.is_empty() {
            chunks.push_back(chunk.to_vec());
        }
        rest = behind;
    }
    if !rest.is_empty() {
        chunks.push_back(rest.to_vec());
    }
    let address = NodeAddress::new("script", 1);
    Link::new(ATTEMPT, &address, Box::new(Script(chunks)), Duration::from_secs(5))
}

fn server(flavour: Flavour, version: &str) -> Server {
    Server { flavour, version: version.to_owned() }
}

/// All of a transfer, read with a buffer that is emptied at each `capacity` bytes.
fn transfer(bytes: &[u8], cuts: &[usize]) -> Result<Vec<u8>, Error> {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut snapshot = Snapshot::synchronise(link(bytes, cuts), Timestamp::UNIX_EPOCH).await?;
        assert_eq!((snapshot.replication_id(), snapshot.offset()), (ID, 77));
        let mut all = Vec::new();
        let mut buffer = BytesMut::with_capacity(SPARE_BYTES_MIN);
        loop {
            buffer.clear();
            let count = snapshot.read(&mut buffer).await?;
            assert_eq!(count, buffer.len());
            if count == 0 {
                assert_eq!(snapshot.read(&mut buffer).await?, 0, "an end stays an end");
                return Ok(all);
            }
            all.extend_from_slice(&buffer);
        }
    })
}

fn sized(body: &[u8]) -> Vec<u8> {
    let head = format!("\n\n+FULLRESYNC {ID} 77\r\n\n\n${}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn marked(body: &[u8]) -> Vec<u8> {
    let head = format!("\n+FULLRESYNC {ID} 77\r\n\n$EOF:{MARK}\r\n");
    [head.as_bytes(), body, MARK.as_bytes()].concat()
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let near_mark = (0..MARK_BYTES).prop_map(|count| MARK.as_bytes()[..count].to_vec());
    let chunk = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..300),
        near_mark,
        Just(b"\n\r\n$5\r\n".to_vec()),
        Just(vec![7; 70_000]),
    ];
    proptest::collection::vec(chunk, 1..6).prop_map(|chunks| chunks.concat()).prop_filter(
        "a transfer holds something, and the mark of its end nowhere",
        |body| {
            !body.is_empty() && !body.windows(MARK_BYTES).any(|window| window == MARK.as_bytes())
        },
    )
}

proptest! {
    #[test]
    fn a_transfer_never_depends_on_how_it_is_cut_into_reads(
        body in body(),
        cuts in proptest::collection::vec(1_usize..200, 0..60),
    ) {
        prop_assert_eq!(&transfer(&sized(&body), &cuts).unwrap(), &body);
        prop_assert_eq!(&transfer(&marked(&body), &cuts).unwrap(), &body);
    }

    #[test]
    fn a_transfer_cut_short_is_an_error(body in body(), lost in 1_usize..10_000) {
        for bytes in [sized(&body), marked(&body)] {
            let kept = bytes.len() - lost.min(bytes.len());
            let error = transfer(&bytes[..kept], &[]).unwrap_err();
            prop_assert!(matches!(error, Error::Cut { .. }), "{error}");
        }
    }
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    let body = MARK.as_bytes()[..39].repeat(3);
    let cuts = vec![1; 1000];
    assert_eq!(transfer(&sized(&body), &cuts).unwrap(), body);
    assert_eq!(transfer(&marked(&body), &cuts).unwrap(), body);
}

#[test]
fn an_error_reply_at_any_place_is_named() {
    for (bytes, expected) in [
        ("-NOMASTERLINK Can't SYNC while not connected\r\n", "no link to its primary"),
        ("-LOADING Redis is loading\r\n", "is loading"),
        ("-NOPERM no permissions to run psync\r\n", "ACL SETUSER <user> +psync"),
        ("-ERR whatever\r\n", "whatever"),
        ("+CONTINUE\r\n", "is no answer of a Redis"),
        ("+FULLRESYNC short 7\r\n", "is no answer of a Redis"),
        ("HTTP/1.1 400 Bad Request\r\n", "is no answer of a Redis"),
    ] {
        let error = transfer(bytes.as_bytes(), &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (behind, expected) in [
        ("-BGSAVE failed, replication can't continue\r\n", "BGSAVE failed"),
        ("$-1\r\n", "is no answer"),
        ("$0\r\n", "is no answer"),
        ("$+5\r\n", "is no answer"),
        ("$EOF:short\r\n", "is no answer"),
    ] {
        let bytes = format!("+FULLRESYNC {ID} 77\r\n{behind}");
        let error = transfer(bytes.as_bytes(), &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn silence_ends_a_transfer_and_keep_alives_do_not() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let address = NodeAddress::new("silent", 1);
    let link = Link::new(ATTEMPT, &address, Box::new(ours), Duration::from_secs(1));
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            theirs.write_all(b"\n").await.unwrap();
        }
        theirs.write_all(sized(b"0123456789").split_at(75).0).await.unwrap();
        tokio::time::sleep(Duration::from_mins(10)).await;
    });
    let mut snapshot = Snapshot::synchronise(link, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(snapshot.length_hint(), Some(10));
    let error = loop {
        if let Err(error) = snapshot.read(&mut BytesMut::new()).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    server.abort();
}

#[tokio::test]
async fn a_server_that_knows_no_rdb_only_is_captured_all_the_same() {
    let mut old = link(b"+OK\r\n+OK\r\n-ERR Unrecognized REPLCONF option: rdb-only\r\n", &[]);
    configure(&mut old, &server(Flavour::Redis, "6.0.16")).await.unwrap();
    let mut denied = link(b"-NOPERM this user has no permissions\r\n", &[]);
    let error = configure(&mut denied, &server(Flavour::Redis, "7.0.0")).await.unwrap_err();
    assert!(error.to_string().contains("+replconf"), "{error}");
}

#[test]
fn only_valkey_9_and_later_is_told_a_version() {
    assert!(speaks_valkey(&server(Flavour::Valkey, "9.1.2")));
    assert!(speaks_valkey(&server(Flavour::Valkey, "10.0.0")));
    assert!(!speaks_valkey(&server(Flavour::Valkey, "8.1.1")));
    assert!(!speaks_valkey(&server(Flavour::Redis, "9.0.0")));
}
