//! Frames cut, split and flipped at will: exactly the bytes that were sent, or an error, never others.

use proptest::prelude::*;

use super::*;

fn state(inode: u64, bytes: u64) -> FileState {
    FileState { device: 1, inode, bytes, modified_seconds: 1_700_000_000 }
}

fn line(state: &FileState) -> String {
    let FileState { device, inode, bytes, modified_seconds } = state;
    format!("{device} {inode} {bytes} {modified_seconds}")
}

/// As the script sends them, in chunks of that size.
fn sent(tool: Tool, files: &[Vec<u8>], chunk: usize) -> Vec<u8> {
    let mut out = format!("frames 1 {}\n", tool.name()).into_bytes();
    let states: Vec<String> =
        (10..).zip(files).map(|(inode, it)| line(&state(inode, it.len() as u64))).collect();
    for (number, state) in states.iter().enumerate() {
        out.extend(format!("file {number} {state}\n").bytes());
    }
    let mut chunks = 0;
    for (number, file) in files.iter().enumerate() {
        for (index, bytes) in file.chunks(chunk).enumerate() {
            let Sum(sum) = tool.sum(bytes);
            let offset = index * chunk;
            out.extend(format!("chunk {number} {offset} {} {sum}\n", bytes.len()).bytes());
            out.extend(bytes);
            chunks += 1;
        }
    }
    for (number, state) in states.iter().enumerate() {
        out.extend(format!("last {number} {state}\n").bytes());
    }
    out.extend(format!("end {chunks}\n").bytes());
    out
}

/// What comes out of it, and whether the end was seen.
fn read(stream: &[u8], count: usize, piece: usize) -> Result<(Vec<Vec<u8>>, bool), Error> {
    let wanted = vec![Wanted { end: None, grows: false }; count];
    let mut parser = Parser::new(wanted, 0, false);
    let mut found = vec![Vec::new(); count];
    for mut input in stream.chunks(piece) {
        while let Some(frame) = parser.feed(&mut input)? {
            if let Frame::Chunk(Chunk { file, offset, bytes }) = frame {
                assert_eq!(offset, found[file].len() as u64);
                found[file].extend(bytes);
            }
        }
    }
    Ok((found, parser.is_ended()))
}

fn files() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4)
}

fn tool() -> impl Strategy<Value = Tool> {
    prop_oneof![Just(Tool::Sha256sum), Just(Tool::Cksum)]
}

proptest! {
    #[test]
    fn what_was_sent_comes_out_however_it_is_cut_into_pieces(
        files in files(), tool in tool(), chunk in 1_usize..100, piece in 1_usize..300,
    ) {
        let found = read(&sent(tool, &files, chunk), files.len(), piece);
        prop_assert_eq!(found, Ok((files, true)));
    }

    #[test]
    fn an_early_end_is_never_the_end_and_what_came_before_is_a_true_beginning(
        files in files(), chunk in 1_usize..100, place in any::<prop::sample::Index>(),
    ) {
        let mut stream = sent(Tool::Sha256sum, &files, chunk);
        stream.truncate(place.index(stream.len()));
        let (found, is_ended) = read(&stream, files.len(), 64).unwrap();
        prop_assert!(!is_ended);
        prop_assert!(found.iter().zip(&files).all(|(found, sent)| sent.starts_with(found)));
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_changes_no_byte(
        files in files(), tool in tool(), place in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let mut stream = sent(tool, &files, 50);
        let place = place.index(stream.len());
        stream[place] ^= 1 << bit;
        if let Ok((found, is_ended)) = read(&stream, files.len(), 64) {
            prop_assert!(!is_ended || found == files);
        }
    }
}

#[test]
fn sums_are_those_of_the_tools() {
    assert_eq!(Tool::Cksum.sum(b"abc"), Sum("1219131554".to_owned()));
    assert_eq!(Tool::Cksum.sum(b""), Sum("4294967295".to_owned()));
    let Sum(sum) = Tool::Sha256sum.sum(b"abc");
    assert!(sum.starts_with("ba7816bf8f01cfea"));
}

#[test]
fn a_file_that_was_changed_or_cut_off_is_refused_and_one_that_grew_is_not() {
    let (before, grown) = (state(7, 3), state(7, 5));
    assert!(grown.continues(&before, true) && !grown.continues(&before, false));
    assert!(!before.continues(&grown, true) && !state(8, 3).continues(&before, true));
    let mut parser = Parser::new(vec![Wanted { end: Some(4), grows: true }], 0, false);
    let cut_off = format!("frames 1 cksum\nfile 0 {}\n", line(&before));
    assert_eq!(parser.feed(&mut cut_off.as_bytes()), Err(Error::Changed));
    let mut parser = Parser::new(vec![Wanted { end: None, grows: false }], 3, false);
    let replaced =
        format!("frames 1 cksum\nfile 0 {}\nlast 0 {}\n", line(&before), line(&state(8, 3)));
    let mut input = replaced.as_bytes();
    assert!(matches!(parser.feed(&mut input), Ok(Some(Frame::Opened(_)))));
    assert_eq!(parser.feed(&mut input), Err(Error::Changed));
}

#[test]
fn what_the_sender_refuses_is_told_in_its_words() {
    let mut parser = Parser::new(vec![Wanted { end: None, grows: false }], 0, true);
    let refused = parser.feed(&mut &b"refused /data/x is a link\n"[..]);
    assert_eq!(refused.unwrap_err().to_string(), "/data/x is a link");
    let mut parser = Parser::new(Vec::new(), 0, false);
    assert_eq!(parser.feed(&mut &b"gone /data/x\n"[..]), Err(Error::Gone("/data/x".to_owned())));
}
