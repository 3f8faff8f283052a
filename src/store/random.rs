//! Random names, from the operating system.

use std::fmt::Write as _;
use std::io;

/// So many random bytes, as hexadecimal digits.
pub(crate) fn random_hexadecimal<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
