//! What a table held: how many rows, and an order-independent hash of them.
//!
//! It guards against error, not against forgery: sums of xxh3 can be forged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// Sum of the row hashes, wrapping: neither order nor splitting of the rows matters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowsHash(u128);

/// The content of a set of rows in COPY text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Number of rows.
    pub rows: u64,
    /// Bytes of COPY text, line feeds included.
    pub bytes: u64,
    /// Wrapping sum of the xxh3-128 of every row's COPY text without its line feed.
    pub hash: RowsHash,
}

impl Fingerprint {
    /// Adds one row, given without its line feed.
    pub fn add_row(&mut self, row: &[u8]) {
        self.rows += 1;
        self.bytes += row.len() as u64 + 1;
        self.hash.0 = self.hash.0.wrapping_add(xxh3_128(row));
    }

    /// Adds the rows of another part of the same table.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.hash.0 = self.hash.0.wrapping_add(other.hash.0);
    }
}

impl fmt::Display for RowsHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for RowsHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for RowsHash {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl TryFrom<String> for RowsHash {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RowsHash> for String {
    fn from(hash: RowsHash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &[Vec<u8>]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        rows.iter().for_each(|row| fingerprint.add_row(row));
        fingerprint
    }

    proptest! {
        #[test]
        fn order_and_splitting_do_not_matter(
            mut rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..30),
            cut in 0usize..30,
        ) {
            let whole = of(&rows);
            rows.reverse();
            let cut = cut.min(rows.len());
            let mut parts = of(&rows[..cut]);
            parts.merge(of(&rows[cut..]));
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn one_changed_byte_changes_the_hash(
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..30),
            at in any::<prop::sample::Index>(),
        ) {
            let mut changed = rows.clone();
            let row = at.index(rows.len());
            changed[row][0] ^= 1;
            prop_assert_ne!(of(&rows).hash, of(&changed).hash);
        }
    }

    #[test]
    fn a_row_twice_is_not_the_same_as_no_row() {
        assert_ne!(of(&[b"a".to_vec(), b"a".to_vec()]), of(&[]));
        assert_ne!(of(&[vec![]]).rows, 0);
    }

    #[test]
    fn the_hash_reads_back_from_its_text() {
        let hash = of(&[b"1\tx".to_vec()]).hash;
        assert_eq!(hash.to_string().parse::<RowsHash>().unwrap(), hash);
    }
}
