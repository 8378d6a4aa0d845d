//! The queue keeps order and bytes under every limit, and says when it cannot.

use proptest::prelude::*;

use super::*;

fn limits(bytes_max: u64) -> (tempfile::TempDir, Limits) {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { folder: folder.path().to_owned(), bytes_max };
    (folder, limits)
}

fn open_one(limits: Limits) -> (Writer, Reader) {
    let (writer, mut readers) = open(limits, 1);
    (writer, readers.remove(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Pushes and reads in any order, each reader at its own pace: to each the bytes come out as
    /// they went in, memory or file.
    #[test]
    fn bytes_keep_their_order(
        steps in proptest::collection::vec((1_usize..1_500_000, 0_usize..8), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_folder, limits) = limits(70 << 20);
        let (mut writer, mut readers) = open(limits, 3);
        let (mut pushed, mut read) = (Vec::new(), vec![Vec::new(); 3]);
        runtime.block_on(async {
            for (index, (length, then_read)) in steps.into_iter().enumerate() {
                let bytes = u32::try_from(index).unwrap().to_le_bytes().repeat(length.div_ceil(4));
                pushed.extend_from_slice(&bytes);
                writer.push(bytes.into()).unwrap();
                for (number, reader) in readers.iter_mut().enumerate() {
                    if then_read >> number & 1 == 1 && read[number].len() < pushed.len() {
                        read[number].extend_from_slice(&reader.next().await.unwrap().unwrap());
                    }
                }
            }
            writer.finish();
            for (reader, read) in readers.iter_mut().zip(&mut read) {
                while let Some(bytes) = reader.next().await.unwrap() {
                    read.extend_from_slice(&bytes);
                }
            }
        });
        prop_assert!(read.iter().all(|read| *read == pushed));
    }
}

#[tokio::test]
async fn the_ring_wraps_and_a_full_ring_says_so() {
    let (_folder, limits) = limits(3 << 20);
    let (mut writer, mut reader) = open_one(limits);
    let piece = |fill: u8| Bytes::from(vec![fill; 1 << 20]);
    // Two go to memory, three fill the file.
    (0..5).for_each(|fill| writer.push(piece(fill)).unwrap());
    assert!(matches!(writer.push(piece(9)), Err(Error::Full { .. })));
    let mut read = Vec::new();
    while read.len() < 4 << 20 {
        read.extend_from_slice(&reader.next().await.unwrap().unwrap());
    }
    (5..7).for_each(|fill| writer.push(piece(fill)).unwrap());
    writer.finish();
    while let Some(bytes) = reader.next().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    let expected: Vec<u8> = (0..7).flat_map(|fill| vec![fill; 1 << 20]).collect();
    assert!(read == expected);
}

#[tokio::test]
async fn a_full_spool_gives_up_its_slowest_reader_and_serves_the_others() {
    let (_folder, limits) = limits(3 << 20);
    let (mut writer, mut readers) = open(limits, 2);
    let mut slow = readers.remove(1);
    let mut fast = readers.remove(0);
    let piece = |fill: u8| Bytes::from(vec![fill; 1 << 20]);
    let (mut read, mut pushed) = (Vec::new(), Vec::new());
    let given_up = slow.given_up();
    for fill in 0..20 {
        writer.push(piece(fill)).unwrap();
        pushed.extend_from_slice(&piece(fill));
        while read.len() < pushed.len() {
            read.extend_from_slice(&fast.next().await.unwrap().unwrap());
        }
    }
    assert!(read == pushed);
    assert!(matches!(given_up.await, Error::Full { .. }));
    assert!(matches!(slow.next().await, Err(Error::Full { .. })));
    // The last one is not given up: without it there is no capture.
    let full = (0..9).find_map(|fill| writer.push(piece(fill)).err());
    assert!(matches!(full, Some(Error::Full { .. })));
    drop(fast);
    assert!(matches!(writer.push(piece(0)), Err(Error::Broken)));
}

#[tokio::test]
async fn a_reader_that_is_gone_holds_nothing_up() {
    let (_folder, limits) = limits(1 << 20);
    let (mut writer, mut readers) = open(limits, 2);
    drop(readers.remove(0));
    let mut reader = readers.remove(0);
    for fill in 0..20_u8 {
        writer.push(Bytes::from(vec![fill; 900_000])).unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap()[0], fill);
    }
}

#[tokio::test]
async fn a_patient_writer_waits_for_its_reader_and_needs_no_file() {
    let (_folder, limits) = limits(1);
    let (mut writer, mut readers) = open(limits, 1);
    let mut reader = readers.remove(0);
    let pushing = tokio::task::spawn_blocking(move || {
        for fill in 0..10 {
            writer.push_when_taken(vec![fill; 1 << 20].into()).unwrap();
        }
        writer.finish();
    });
    let mut read = 0;
    while let Some(bytes) = reader.next().await.unwrap() {
        read += bytes.len();
    }
    pushing.await.unwrap();
    assert_eq!((read, reader.shared.state().spooled_bytes), (10 << 20, 0));

    let (_folder, limits) = self::limits(1);
    let (mut writer, readers) = open(limits, 1);
    let pushing = tokio::task::spawn_blocking(move || {
        (0..3).try_for_each(|_| writer.push_when_taken(vec![0; 1 << 20].into()))
    });
    drop(readers);
    assert!(matches!(pushing.await.unwrap(), Err(Error::Broken)));
}

#[tokio::test]
async fn a_writer_that_dies_breaks_the_spool() {
    let (_folder, limits) = limits(1 << 20);
    let (mut writer, mut reader) = open_one(limits);
    writer.push(Bytes::from_static(b"half")).unwrap();
    drop(writer);
    assert_eq!(reader.next().await.unwrap().unwrap(), "half");
    assert!(matches!(reader.next().await, Err(Error::Broken)));
}

#[tokio::test]
async fn a_reader_that_dies_stops_the_writer() {
    let (_folder, limits) = limits(1 << 20);
    let (mut writer, reader) = open_one(limits);
    drop(reader);
    assert!(matches!(writer.push(Bytes::from_static(b"x")), Err(Error::Broken)));
}

#[test]
fn a_folder_in_memory_is_refused() {
    let limits = Limits { folder: "/dev/shm".into(), bytes_max: 1 };
    assert!(matches!(preflight(&limits), Err(Error::InMemory { .. })));
    let (_folder, limits) = limits_of_everything();
    assert!(matches!(preflight(&limits), Err(Error::TooSmall { .. })));
}

fn limits_of_everything() -> (tempfile::TempDir, Limits) {
    // A folder in the checkout, for the system's temporary folder may lie in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let limits = Limits { folder: folder.path().to_owned(), bytes_max: u64::MAX };
    (folder, limits)
}
