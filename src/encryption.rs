//! Encryption with age: who can read what is stored (recipients), and the keys that read it (identities).
//!
//! Only X25519 keys, as age-keygen makes them. A secret key is never shown: no error quotes the text that it is about.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use age::secrecy::ExposeSecret;
use age::stream::{StreamReader, StreamWriter};
use age::x25519;

use crate::model::secret::Secret;

const PUBLIC_PREFIX: &str = "age1";
const SECRET_PREFIX: &str = "AGE-SECRET-KEY-1";
/// Begin a key file that is itself protected by a passphrase.
const ENCRYPTED_FILES: [&str; 2] = ["age-encryption.org/", "-----BEGIN AGE ENCRYPTED FILE-----"];

/// Why a text is not a recipient. None quotes the text: somebody may have pasted a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    #[error(
        "this is a secret key: put it in a file for `identity`, and its public key (\"age1…\") here, which `age-keygen -y FILE` prints"
    )]
    SecretKey,
    #[error("this is an SSH key, and only keys of age-keygen are supported: each begins with \"age1\"")]
    SshKey,
    #[error(
        "this begins like an age recipient, and is damaged or of another kind (a plugin's, or post-quantum): copy it again from age-keygen's \"public key\""
    )]
    Damaged,
    #[error("not an age recipient: each begins with \"age1\"")]
    Unknown,
}

/// Public keys that objects are encrypted to; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads public keys (`age1…`); one that is named twice counts once. `None` where there are none.
    ///
    /// # Errors
    /// The place of every text that is no recipient, from 0 on, and why it is none.
    pub fn parse(texts: &[String]) -> Result<Option<Self>, Vec<(usize, RecipientError)>> {
        let mut recipients: Vec<x25519::Recipient> = Vec::new();
        let mut wrong = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            match recipient(text.trim()) {
                Ok(recipient) if recipients.contains(&recipient) => {}
                Ok(recipient) => recipients.push(recipient),
                Err(error) => wrong.push((place, error)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok((!recipients.is_empty()).then_some(Self(recipients)))
    }

    /// The public keys as text, in the order in which they were given.
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(x25519::Recipient::to_string).collect()
    }

    /// Begins an encrypted object.
    ///
    /// # Errors
    /// Only what a library must be able to report: nothing is written anywhere but into memory.
    pub(crate) fn writer(&self) -> io::Result<EncryptingWriter> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let length = Arc::new(AtomicUsize::new(0));
        let stored = Counted {
            bytes: Vec::new(),
            length: Arc::clone(&length),
        };
        Ok(EncryptingWriter {
            stream: encryptor.wrap_output(stored)?,
            length,
        })
    }
}

fn recipient(text: &str) -> Result<x25519::Recipient, RecipientError> {
    text.parse().map_err(|_| {
        if is_secret_key(text) {
            RecipientError::SecretKey
        } else if text.starts_with("ssh-") {
            RecipientError::SshKey
        } else if starts_with_ignoring_case(text, PUBLIC_PREFIX) {
            RecipientError::Damaged
        } else {
            RecipientError::Unknown
        }
    })
}

/// Whether a text is, or was meant to be, an age secret key.
pub fn is_secret_key(text: &str) -> bool {
    starts_with_ignoring_case(text.trim(), SECRET_PREFIX.trim_end_matches("-1"))
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    let head = text.as_bytes().get(..prefix.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Encrypts what is written to it, into memory and in pieces of 64 KiB: the clear text is never held as a whole.
pub(crate) struct EncryptingWriter {
    stream: StreamWriter<Counted>,
    length: Arc<AtomicUsize>,
}

impl EncryptingWriter {
    /// How many bytes the object has so far, as it will be stored.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Ends the object; without this it is a truncated one.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        Ok(self.stream.finish()?.bytes)
    }
}

impl Write for EncryptingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What was encrypted. age lets nobody look at it before the end, so the length is told aside.
struct Counted {
    bytes: Vec<u8>,
    length: Arc<AtomicUsize>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.length.store(self.bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a text holds no identities. `line` counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("it holds no secret key: a key file has a line that begins with \"AGE-SECRET-KEY-1\"")]
    Empty,
    #[error(
        "it is protected by a passphrase, which nobody is there to type: give the file as `age --decrypt` shows it"
    )]
    Passphrase,
    #[error("line {line} is a public key: the secret key that belongs to it is needed")]
    PublicKey { line: usize },
    #[error("line {line} is of an SSH key: only keys of age-keygen are supported")]
    SshKey { line: usize },
    #[error("line {line} begins like an age secret key, and is damaged: copy it again")]
    Damaged { line: usize },
    #[error("line {line} is not an age secret key: each begins with \"AGE-SECRET-KEY-1\"")]
    Unknown { line: usize },
}

/// Secret keys that read what was encrypted to theirs; never none. `Debug` shows the public keys.
#[derive(Clone)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads the text of an age key file: secret keys, one a line, with comments (`#`) and blank lines.
    pub fn parse(text: &Secret) -> Result<Self, IdentityError> {
        let text = text.expose().trim_start_matches('\u{feff}');
        if ENCRYPTED_FILES
            .iter()
            .any(|head| text.trim_start().starts_with(head))
        {
            return Err(IdentityError::Passphrase);
        }
        let mut identities = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line_text = line.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            identities.push(identity(line_text, number + 1)?);
        }
        if identities.is_empty() {
            return Err(IdentityError::Empty);
        }
        Ok(Self(identities))
    }

    /// The public keys that belong to them, in the order of the file.
    pub fn public_keys(&self) -> Vec<String> {
        let public = |identity: &x25519::Identity| identity.to_public().to_string();
        self.0.iter().map(public).collect()
    }

    /// Whether one of these public keys is ours.
    pub fn fit(&self, recipients: &[String]) -> bool {
        self.public_keys().iter().any(|key| recipients.contains(key))
    }

    /// Begins to decrypt an object. What is read may fail later: then the object is damaged.
    pub(crate) fn reader<R: BufRead>(&self, object: R) -> Result<DecryptingReader<R>, DecryptError> {
        let decryptor = age::Decryptor::new_buffered(object).map_err(damaged)?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        decryptor
            .decrypt(identities)
            .map(DecryptingReader)
            .map_err(damaged)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Identities")
            .field(&self.public_keys())
            .finish()
    }
}

fn identity(text: &str, line: usize) -> Result<x25519::Identity, IdentityError> {
    text.parse().map_err(|_| {
        if is_secret_key(text) {
            IdentityError::Damaged { line }
        } else if starts_with_ignoring_case(text, PUBLIC_PREFIX) {
            IdentityError::PublicKey { line }
        } else if text.contains("OPENSSH") || text.starts_with("ssh-") {
            IdentityError::SshKey { line }
        } else {
            IdentityError::Unknown { line }
        }
    })
}

/// Why an object cannot be decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    #[error("none of the identities decrypts it")]
    NoIdentityFits,
    #[error("{0}")]
    Damaged(String),
}

fn damaged(error: age::DecryptError) -> DecryptError {
    let what = match error {
        age::DecryptError::NoMatchingKeys => return DecryptError::NoIdentityFits,
        age::DecryptError::InvalidMac => "its age header was changed".to_owned(),
        age::DecryptError::InvalidHeader => "its age header is invalid".to_owned(),
        age::DecryptError::UnknownFormat => "it is encrypted in an unknown version of age".to_owned(),
        age::DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "its age header is cut off".to_owned()
        }
        age::DecryptError::Io(error) => error.to_string(),
        _ => "it does not decrypt".to_owned(),
    };
    DecryptError::Damaged(what)
}

/// The clear text of an encrypted object, decrypted piece by piece.
pub(crate) struct DecryptingReader<R>(StreamReader<R>);

impl<R: Read> Read for DecryptingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// A new secret key as the text of a key file, and its public key. `created_at`: to be shown in the file.
pub fn generate_key_file(created_at: &str) -> (Secret, String) {
    let identity = x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let secret = identity.to_string();
    let text = format!(
        "# created: {created_at}\n# public key: {public}\n{}\n",
        secret.expose_secret()
    );
    (Secret::new(text), public)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn key() -> (Secret, Recipients) {
        let (secret, public) = generate_key_file("today");
        (secret, Recipients::parse(&[public]).unwrap().unwrap())
    }

    fn encrypt(recipients: &Recipients, text: &[u8]) -> Vec<u8> {
        let mut writer = recipients.writer().unwrap();
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn decrypt(identities: &Identities, object: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let mut reader = identities.reader(Cursor::new(object))?;
        let mut text = Vec::new();
        let read = reader.read_to_end(&mut text);
        read.map_err(|error| DecryptError::Damaged(error.to_string()))?;
        Ok(text)
    }

    proptest! {
        #[test]
        fn each_recipient_reads_what_was_written_and_the_size_is_told(length in 0usize..300_000) {
            let (one, recipients) = key();
            let (other, more) = key();
            let both = [recipients.to_texts(), more.to_texts()].concat();
            let both = Recipients::parse(&both).unwrap().unwrap();
            let text: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            let mut writer = both.writer().unwrap();
            writer.write_all(&text).unwrap();
            let told = writer.stored_bytes();
            let object = writer.finish().unwrap();
            // What is not told yet is the last piece.
            prop_assert!(told <= object.len() && object.len() - told <= (64 << 10) + 32);
            for key in [one, other] {
                prop_assert_eq!(decrypt(&Identities::parse(&key).unwrap(), &object).unwrap(), text.clone());
            }
        }
    }

    #[test]
    fn a_wrong_key_is_told_from_damage() {
        let ((secret, recipients), (stranger, _)) = (key(), key());
        let own = Identities::parse(&secret).unwrap();
        let object = encrypt(&recipients, &[7; 100_000]);
        let wrong = decrypt(&Identities::parse(&stranger).unwrap(), &object);
        assert_eq!(wrong, Err(DecryptError::NoIdentityFits));
        // Cut off between two pieces as well.
        let header = object.len() - (100_000 + 2 * 16);
        for length in [0, 10, header, header + (64 << 10) + 16, object.len() - 1] {
            let found = decrypt(&own, &object[..length]);
            assert!(
                matches!(found, Err(DecryptError::Damaged(_))),
                "{length}: {found:?}"
            );
        }
        for place in [0, 30, header - 20, header + 5, object.len() - 1] {
            let mut flipped = object.clone();
            flipped[place] ^= 1;
            // A changed stanza fits nobody; the rest is damage.
            assert!(decrypt(&own, &flipped).is_err(), "{place}");
        }
        assert!(decrypt(&own, b"plain text, and no age at all").is_err());
    }

    #[test]
    fn every_kind_of_wrong_recipient_has_its_own_words_and_none_is_quoted() {
        let secret = generate_key_file("today").0;
        let secret = secret.expose().lines().last().unwrap().to_owned();
        let good = key().1.to_texts().remove(0);
        let mistyped = format!("{}q", &good[..good.len() - 1]);
        let cases = [
            (secret.clone(), RecipientError::SecretKey),
            (secret.to_lowercase(), RecipientError::SecretKey),
            (secret[..30].to_owned(), RecipientError::SecretKey),
            (
                "ssh-ed25519 AAAAC3NzaC1 me@here".to_owned(),
                RecipientError::SshKey,
            ),
            (good[..40].to_owned(), RecipientError::Damaged),
            (format!("{mistyped}q"), RecipientError::Damaged),
            ("age1pq1qqqqqq".to_owned(), RecipientError::Damaged),
            (String::new(), RecipientError::Unknown),
            ("hunter2".to_owned(), RecipientError::Unknown),
        ];
        for (text, expected) in cases {
            let found = Recipients::parse(&[good.clone(), text.clone()]).unwrap_err();
            assert_eq!(found, [(1, expected)], "{text}");
            assert!(text.is_empty() || !expected.to_string().contains(&text));
        }
        assert_eq!(Recipients::parse(&[]), Ok(None));
        let twice = Recipients::parse(&[good.clone(), format!(" {good}\n")])
            .unwrap()
            .unwrap();
        assert_eq!(twice.to_texts(), [good]);
    }

    #[test]
    fn a_key_file_has_comments_blank_lines_and_several_keys() {
        let ((one, public_one), (other, public_other)) = (key(), key());
        let text = format!(
            "\u{feff}# mine\r\n\n{}\r\n   \n# old\n{}",
            one.expose(),
            other.expose()
        );
        let identities = Identities::parse(&Secret::new(text)).unwrap();
        let public = [public_one.to_texts(), public_other.to_texts()].concat();
        assert_eq!(identities.public_keys(), public);
        assert!(identities.fit(&public_other.to_texts()) && !identities.fit(&key().1.to_texts()));
        assert!(!format!("{identities:?}").contains("SECRET"));
    }

    #[test]
    fn every_kind_of_wrong_key_file_has_its_own_words() {
        let (secret, recipients) = key();
        let whole = secret.expose().lines().last().unwrap();
        for (text, expected) in [
            ("# nothing\n\n".to_owned(), IdentityError::Empty),
            (
                "age-encryption.org/v1\n-> scrypt x 18".to_owned(),
                IdentityError::Passphrase,
            ),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl".to_owned(),
                IdentityError::Passphrase,
            ),
            (
                format!("\n{}", recipients.to_texts()[0]),
                IdentityError::PublicKey { line: 2 },
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
                IdentityError::SshKey { line: 1 },
            ),
            (format!("#\n{}", &whole[..40]), IdentityError::Damaged { line: 2 }),
            ("hunter2".to_owned(), IdentityError::Unknown { line: 1 }),
        ] {
            let found = Identities::parse(&Secret::new(text.clone())).unwrap_err();
            assert_eq!(found, expected, "{text}");
            assert!(!found.to_string().contains("hunter2") && !found.to_string().contains(&whole[..40]));
        }
    }
}
