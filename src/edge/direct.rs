//! Bytes between memory and disk without the page cache, where the file system knows how. Decides nothing about their order.
//!
//! A backup is read or written once, so caching it only costs a copy of every byte and the memory of
//! the node that it runs on. The kernel wants memory, place and length aligned (`O_DIRECT`, open(2));
//! whatever is not, and every file system that refuses, goes through the page cache as usual.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
};

use bytes::Bytes;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

/// Whole pages: no block of a disk is larger.
pub const ALIGNMENT: usize = 4096;

/// Ask for a file to be read and written past the page cache from here on. Advice: where it cannot
/// be, nothing changes.
pub fn prefer(file: &File) {
    let _ = fcntl_getfl(file).and_then(|flags| fcntl_setfl(file, flags | OFlags::DIRECT));
}

/// Writes at the file's place. What is not aligned, such as a file's end, and all behind it goes
/// through the page cache.
pub fn write_all(file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let is_aligned = bytes.as_ptr().align_offset(ALIGNMENT) == 0;
        let aligned = if is_aligned { bytes.len() / ALIGNMENT * ALIGNMENT } else { 0 };
        if aligned == 0 {
            give_up(file)?;
            return (&*file).write_all(bytes);
        }
        match (&*file).write(&bytes[..aligned]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_unaligned(&error) => {
                give_up(file)?;
                return (&*file).write_all(bytes);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn give_up(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    if flags.contains(OFlags::DIRECT) {
        fcntl_setfl(file, flags.difference(OFlags::DIRECT))?;
    }
    Ok(())
}

/// Some file systems want more than pages, or find out only now that they cannot.
fn is_unaligned(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::INVAL)
}

/// Memory of a fixed size that begins with a page.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    begin: usize,
    capacity: usize,
}

impl Buffer {
    pub fn new(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + ALIGNMENT);
        let begin = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(begin, 0);
        Self { bytes, begin, capacity }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.begin
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn room(&self) -> usize {
        self.capacity - self.len()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    pub fn clear(&mut self) {
        self.bytes.truncate(self.begin);
    }

    /// Appends as much as there is room for and returns the rest.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(self.room().min(bytes.len()));
        self.bytes.extend_from_slice(taken);
        rest
    }

    /// Replaces the content by the next bytes of the file, up to the capacity; none at its end.
    pub fn read(&mut self, file: &File) -> io::Result<usize> {
        self.bytes.resize(self.begin + self.capacity, 0);
        let mut filled = 0;
        while filled < self.capacity {
            match (&*file).read(&mut self.bytes[self.begin + filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Behind the end of a file that does not fill its last page, or as in `write_all`.
                Err(error) if is_unaligned(&error) && is_direct(file)? => give_up(file)?,
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(self.begin + filled);
        Ok(filled)
    }
}

fn is_direct(file: &File) -> io::Result<bool> {
    Ok(fcntl_getfl(file)?.contains(OFlags::DIRECT))
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        let begin = buffer.begin;
        Self::from(buffer.bytes).slice(begin..)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|index| u8::try_from(index % 251).unwrap()).collect()
    }

    /// On a disk and in memory, whose file systems differ in what they can.
    fn folders() -> [tempfile::TempDir; 2] {
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        [disk, tempfile::tempdir_in("/dev/shm").unwrap()]
    }

    #[test]
    fn what_is_written_in_odd_pieces_is_read_back() {
        for folder in folders() {
            let path = folder.path().join("file");
            let expected = bytes(5 * ALIGNMENT + 17);
            for sizes in [vec![4 * ALIGNMENT], vec![1, 4095, 4096], vec![ALIGNMENT, 5000]] {
                let file = File::create(&path).unwrap();
                prefer(&file);
                let (mut rest, mut sizes) = (&expected[..], sizes.into_iter().cycle());
                while !rest.is_empty() {
                    let mut buffer = Buffer::new(sizes.next().unwrap());
                    rest = buffer.take(rest);
                    write_all(&file, buffer.as_slice()).unwrap();
                }
                assert!(fs::read(&path).unwrap() == expected);

                let file = File::open(&path).unwrap();
                prefer(&file);
                let (mut found, mut buffer) = (Vec::new(), Buffer::new(2 * ALIGNMENT));
                while buffer.read(&file).unwrap() > 0 {
                    found.extend_from_slice(buffer.as_slice());
                }
                assert!(found == expected);
            }
        }
    }

    #[test]
    fn bytes_that_are_not_aligned_are_written_too() {
        for folder in folders() {
            let path = folder.path().join("file");
            let file = File::create(&path).unwrap();
            prefer(&file);
            let mut buffer = Buffer::new(3 * ALIGNMENT);
            buffer.take(&bytes(3 * ALIGNMENT));
            write_all(&file, &buffer.as_slice()[1..]).unwrap();
            write_all(&file, buffer.as_slice()).unwrap();
            let found = fs::read(&path).unwrap();
            assert!(found[..3 * ALIGNMENT - 1] == buffer.as_slice()[1..]);
            assert!(found[3 * ALIGNMENT - 1..] == *buffer.as_slice());
        }
    }

    #[test]
    fn a_buffer_becomes_the_bytes_that_it_holds() {
        let mut buffer = Buffer::new(2 * ALIGNMENT);
        assert_eq!(buffer.take(&bytes(3 * ALIGNMENT)).len(), ALIGNMENT);
        assert_eq!((buffer.len(), buffer.room()), (2 * ALIGNMENT, 0));
        let whole = Bytes::from(buffer);
        assert_eq!(whole, bytes(2 * ALIGNMENT));
        assert_eq!(whole.as_ptr().align_offset(ALIGNMENT), 0);
    }
}
