//! Unpacking with a limit on what may come out.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use ruzstd::decoding::FrameDecoder;

use super::{MAX_BYTES, MAX_ENTRIES, MAX_RATIO, RATIO_FREE_BYTES};

/// Largest window of a zstd archive; more would be memory on the sender's word.
const MAX_WINDOW: u64 = 128 << 20;

/// How an archive is packed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    Gzip,
    Zstandard,
}

/// A reader of the unpacked bytes that refuses to grow out of proportion.
pub(crate) fn unpack<R: Read + 'static>(packed: R, packing: Packing) -> io::Result<impl Read> {
    let taken = Rc::new(Cell::new(0));
    let counted = BufReader::new(Counted { inner: packed, taken: Rc::clone(&taken) });
    let inner: Box<dyn Read> = match packing {
        // All members: some packers write one archive as several.
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        Packing::Zstandard => Box::new(Frames { source: counted, decoder: None, any: false }),
    };
    Ok(Bounded { inner, given: 0, taken })
}

struct Counted<R> {
    inner: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.taken.set(self.taken.get() + n as u64);
        Ok(n)
    }
}

/// What the limits say, as an error that the archive reader finds again in its cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TooMuch(pub(crate) String);

struct Bounded {
    inner: Box<dyn Read>,
    given: u64,
    taken: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.given += n as u64;
        // Heads and padding of the archive itself come on top of the files.
        let most = MAX_BYTES + MAX_ENTRIES as u64 * 2048;
        let why = if self.given > most {
            format!("holds more than {} GiB", MAX_BYTES >> 30)
        } else if self.given > RATIO_FREE_BYTES && self.given / MAX_RATIO > self.taken.get() {
            format!("unpacks to more than {MAX_RATIO} times its size")
        } else {
            return Ok(n);
        };
        Err(io::Error::other(TooMuch(why)))
    }
}

/// All frames of a zstd file, one after the other, each with its checksum compared.
struct Frames<R: BufRead> {
    source: R,
    decoder: Option<FrameDecoder>,
    any: bool,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBytes;
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(decoder) = &mut self.decoder else {
                if self.source.fill_buf()?.is_empty() {
                    return if self.any { Ok(0) } else { Err(damaged("it is empty")) };
                }
                self.decoder = self.next_frame()?;
                continue;
            };
            let n = decoder.read(into)?;
            if n > 0 {
                return Ok(n);
            }
            if decoder.is_finished() {
                let stated = decoder.get_checksum_from_data();
                if stated.is_some() && stated != decoder.get_calculated_checksum() {
                    return Err(damaged("its checksum does not fit"));
                }
                self.decoder = None;
            } else {
                decoder.decode_blocks(&mut self.source, UptoBytes(into.len())).map_err(damaged)?;
            }
        }
    }
}

impl<R: BufRead> Frames<R> {
    /// The next frame; none if it was one to be skipped.
    fn next_frame(&mut self) -> io::Result<Option<FrameDecoder>> {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        self.any = true;
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        match decoder.reset(&mut self.source) {
            Ok(()) => Ok(Some(decoder)),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = u64::from(length);
                let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                if skipped < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(None)
            }
            Err(e) => Err(damaged(e)),
        }
    }
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged zstd data: {why}"))
}
