//! How S3 writes things: the SHA-256 of a body in a header, keys in a listing.

use bytes::Bytes;
use sha2::{Digest, Sha256};

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Computed aside: bodies are megabytes, and would hold up everything else on the thread.
pub(super) async fn sha256_base64(bytes: Bytes) -> String {
    let again = bytes.clone();
    let hashed = tokio::task::spawn_blocking(move || base64(&Sha256::digest(&bytes))).await;
    // Only a runtime that is shutting down refuses; then it holds up nothing.
    hashed.unwrap_or_else(|_| base64(&Sha256::digest(&again)))
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

/// A key as a listing with `encoding-type=url` has it; `None` when that is no text.
pub(super) fn decoded_key(listed: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(listed.len());
    let mut rest = listed.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let value = u8::from_str_radix(digits, 16).ok().filter(|_| is_number)?;
                decoded.push(value);
                rest = &after[2..];
            }
            b'+' => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_listings_are_decoded() {
        for (listed, key) in [
            ("a/b", Some("a/b")),
            ("a+b%20c%2Bd", Some("a b c+d")),
            ("%C3%A4%2f", Some("ä/")),
            ("%", None),
            ("%+1", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(decoded_key(listed).as_deref(), key, "{listed}");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[tokio::test]
    async fn the_checksum_is_the_sha_256_of_the_bytes() {
        let checksum = sha256_base64(Bytes::from("abc")).await;
        assert_eq!(checksum, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }
}
