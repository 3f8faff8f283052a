//! How bytes become a stored object: compressed with zstd, then encrypted with age where there are recipients. And back.

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use bytes::Bytes;

use crate::encryption::{DecryptError, EncryptingWriter, Identities, Recipients};

/// The level that costs least per byte on COPY text, and is hardly larger than the next ones.
const COMPRESSION_LEVEL: i32 = 1;
/// What is decrypted is handed to the decompressor in pieces of this size.
const DECRYPTED_BYTES: usize = 128 << 10;

const COMPRESSED: &str = ".zst";
const ENCRYPTED: &str = ".age";

/// The name under which an object is stored: `contents.json` as `contents.json.zst` or `contents.json.zst.age`.
pub(super) fn stored_name(name: &str, recipients: Option<&Recipients>) -> String {
    let encrypted = if recipients.is_some() { ENCRYPTED } else { "" };
    format!("{name}{COMPRESSED}{encrypted}")
}

/// Packs a whole small object.
pub(super) fn pack(bytes: &[u8], recipients: Option<&Recipients>) -> io::Result<Bytes> {
    let mut packer = Packer::new(recipients)?;
    packer.write(bytes)?;
    packer.finish()
}

/// Packs an object as it comes.
pub(super) struct Packer {
    encoder: zstd::Encoder<'static, Output>,
}

impl Packer {
    pub(super) fn new(recipients: Option<&Recipients>) -> io::Result<Self> {
        let output = match recipients {
            Some(recipients) => Output::Encrypted(Box::new(recipients.writer()?)),
            None => Output::Clear(Vec::new()),
        };
        let mut encoder = zstd::Encoder::new(output, COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self { encoder })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.encoder.write_all(bytes)
    }

    /// How large the object is by now, as it will be stored.
    pub(super) fn stored_bytes(&self) -> usize {
        match self.encoder.get_ref() {
            Output::Clear(bytes) => bytes.len(),
            Output::Encrypted(writer) => writer.stored_bytes(),
        }
    }

    pub(super) fn finish(self) -> io::Result<Bytes> {
        match self.encoder.finish()? {
            Output::Clear(bytes) => Ok(bytes.into()),
            Output::Encrypted(writer) => writer.finish().map(Bytes::from),
        }
    }
}

/// Where compressed bytes go.
enum Output {
    Clear(Vec<u8>),
    Encrypted(Box<EncryptingWriter>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stored) => stored.write(bytes),
            Self::Encrypted(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(_) => Ok(()),
            Self::Encrypted(writer) => writer.flush(),
        }
    }
}

/// Gives an object's text piece by piece. What it reads may turn out to be damaged at any time.
pub(super) struct Unpacker(zstd::Decoder<'static, Box<dyn BufRead + Send>>);

impl Unpacker {
    /// Begins to read an object. `name` tells whether it is encrypted; `identities` are then needed.
    ///
    /// # Errors
    /// When it is not what its name says, or nothing that is there decrypts it.
    pub(super) fn new(name: &str, object: Bytes, identities: Option<&Identities>) -> io::Result<Self> {
        let object = Cursor::new(object);
        let compressed: Box<dyn BufRead + Send> = match (name.ends_with(ENCRYPTED), identities) {
            (false, _) => Box::new(object),
            (true, Some(identities)) => {
                let decrypted = identities.reader(object).map_err(io::Error::other)?;
                Box::new(BufReader::with_capacity(DECRYPTED_BYTES, decrypted))
            }
            (true, None) => {
                let why = "it is encrypted, and the manifest says that the backup is not";
                return Err(io::Error::other(DecryptError::Damaged(why.to_owned())));
            }
        };
        Ok(Self(zstd::Decoder::with_buffer(compressed)?))
    }

    /// Everything that is left.
    pub(super) fn read_all(mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        Ok(text)
    }
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::generate_key_file;

    fn key() -> (Identities, Recipients) {
        let (secret, public) = generate_key_file("today");
        let recipients = Recipients::parse(&[public]).unwrap().unwrap();
        (Identities::parse(&secret).unwrap(), recipients)
    }

    #[test]
    fn an_object_comes_back_as_it_was_and_only_with_its_key_where_it_is_encrypted() {
        let (identities, recipients) = key();
        let text = b"the text ".repeat(100_000);
        for recipients in [None, Some(&recipients)] {
            let name = stored_name("x.sql", recipients);
            let object = pack(&text, recipients).unwrap();
            let unpack = |identities| Unpacker::new(&name, object.clone(), identities)?.read_all();
            assert_eq!(unpack(Some(&identities)).unwrap(), text);
            assert_eq!(unpack(None).is_ok(), recipients.is_none());
            assert_eq!(unpack(Some(&key().0)).is_ok(), recipients.is_none());
        }
        assert_eq!(stored_name("x.sql", None), "x.sql.zst");
        assert_eq!(stored_name("x.sql", Some(&recipients)), "x.sql.zst.age");
    }

    #[test]
    fn a_cut_encrypted_object_is_an_error_wherever_it_was_cut() {
        let (identities, recipients) = key();
        let text: Vec<u8> = (0..400_000_u32)
            .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let object = pack(&text, Some(&recipients)).unwrap();
        for cut in [1, 16, 17, 5000, 64 << 10, object.len() - 10] {
            let object = object.slice(..object.len() - cut);
            let unpacked = Unpacker::new("x.age", object, Some(&identities)).and_then(Unpacker::read_all);
            assert!(unpacked.is_err(), "cut by {cut} bytes");
        }
    }
}
