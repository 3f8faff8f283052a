//! How S3 writes things: the SHA-256 of a body in a header, keys in a listing.

use base64::Engine;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Computed aside: bodies are megabytes, and would hold up everything else on the thread.
pub(super) async fn sha256_base64(bytes: Bytes) -> String {
    let again = bytes.clone();
    let hashed = tokio::task::spawn_blocking(move || base64(&Sha256::digest(&bytes))).await;
    // Only a runtime that is shutting down refuses; then it holds up nothing.
    hashed.unwrap_or_else(|_| base64(&Sha256::digest(&again)))
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A key as a listing with `encoding-type=url` has it; `None` when that is no text.
pub(super) fn decoded_key(listed: &str) -> Option<String> {
    let spaced = listed.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    decoded.ok().map(|key| key.into_owned())
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
            ("%", Some("%")),
            ("%ff", None),
        ] {
            assert_eq!(decoded_key(listed).as_deref(), key, "{listed}");
        }
    }

    #[tokio::test]
    async fn the_checksum_is_the_sha_256_of_the_bytes() {
        let checksum = sha256_base64(Bytes::from("abc")).await;
        assert_eq!(checksum, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }
}
