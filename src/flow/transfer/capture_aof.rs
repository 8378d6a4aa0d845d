//! One append-only file on its way: read, scanned, digested, encoded, stored. Never stores half a command or transaction.

use super::{
    Pipeline,
    capture::{CHUNK_BYTES, Error, Origin, StoredEverywhere, begin, served, work},
    sealing::{Pace, Sealing},
};
use crate::{
    domain::{
        aof::{Scanned, Scanner},
        digest::Digests,
        rdb::Expectations,
    },
    edge::live_directory::{AofFile, Reader},
    failure::Failure,
    report::Bar,
};

/// A captured, scanned and stored append-only file.
#[derive(Debug)]
pub(crate) struct CapturedAof {
    /// Of what is stored.
    pub(crate) scanned: Scanned,
    pub(crate) plain: Digests,
    pub(crate) stored: StoredEverywhere,
}

/// Runs the pipeline over what the file held when it was opened. The last file of a set grows and is
/// cut to its last whole command outside MULTI; another must be whole.
pub(crate) async fn capture_aof(
    origin: &Origin,
    file: AofFile,
    is_last: bool,
    expectations: &Expectations,
    pipeline: Pipeline<'_>,
    bar: &Bar,
    ended: impl Future<Output = Failure>,
) -> Result<CapturedAof, Failure> {
    let (mut sealing, upload) = begin(pipeline, Pace::OfTheStore)?;
    let mut scanner = Scanner::new(expectations);
    let bar = bar.clone();
    let AofFile { file, listed, bytes } = file;
    let (mut file, serving) = file.begin();
    let encode = work(origin, move || {
        let (mut chunk, mut place, mut sealed) = (vec![0; CHUNK_BYTES], 0, 0);
        while place < bytes {
            let wanted = usize::try_from(bytes - place).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let count = file.read_at(&mut chunk[..wanted], place).map_err(Error::Read)?;
            if count == 0 {
                return Err(Error::Read(std::io::ErrorKind::UnexpectedEof.into()));
            }
            scanner.feed(&chunk[..count]).map_err(Error::Aof)?;
            let end = place + count as u64;
            let sure = if is_last { scanner.whole_bytes().min(end) } else { end };
            if sure > sealed {
                // What an earlier chunk began and this one ended was held back in the file, not in memory.
                reread(&mut file, sealed, sure.min(place), &mut sealing)?;
                let from = offset(sealed.max(place), place);
                sealing.feed(&chunk[from..offset(sure, place).max(from)])?;
                sealed = sure;
            }
            place = end;
            bar.add(count as u64);
        }
        let mut found = scanner.finish().map_err(Error::Aof)?;
        let whole_bytes = found.facts.whole_bytes;
        if !is_last && whole_bytes != bytes {
            return Err(Error::NotWhole { name: listed.name, bytes, whole_bytes });
        }
        reread(&mut file, sealed, whole_bytes, &mut sealing)?;
        found.facts.bytes = whole_bytes;
        Ok((found, sealing.finish()?))
    });
    let encode = served(origin, serving, encode);
    let ((found, plain), stored) = upload.beside(encode, ended).await?;
    Ok(CapturedAof { scanned: found, plain, stored })
}

/// Where a place of the file lies in the chunk that begins at `begin`.
fn offset(place: u64, begin: u64) -> usize {
    usize::try_from(place.saturating_sub(begin)).unwrap_or(usize::MAX)
}

/// Seals the bytes from `first` up to `end`, which were scanned before.
fn reread(file: &mut Reader, first: u64, end: u64, sealing: &mut Sealing) -> Result<(), Error> {
    let (mut piece, mut place) = (Vec::new(), first);
    while place < end {
        piece.resize(offset(end, place).min(CHUNK_BYTES), 0);
        let count = file.read_at(&mut piece, place).map_err(Error::Read)?;
        if count == 0 {
            return Err(Error::Read(std::io::ErrorKind::UnexpectedEof.into()));
        }
        sealing.feed(&piece[..count])?;
        place += count as u64;
    }
    Ok(())
}
