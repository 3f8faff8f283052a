//! How a big table is read by several connections at once.

use crate::postgres::relations::Relation;
#[cfg(test)]
use crate::postgres::relations::RelationKind;

/// A table is split only where a piece is still worth a connection's while.
const SMALLEST_PIECE_BYTES: u64 = 64 << 20;
/// Pieces a worker gets of the whole: enough that all end at about the same time.
const PIECES_PER_JOB: u64 = 4;
/// Ranges of ctid are read by a Tid Range Scan from here on; before, each would read the whole table.
const TID_RANGE_SCAN: i32 = 140_000;

/// The ranges of pages to read a table in, by `jobs` connections that share `total_bytes` of tables; one without bounds
/// where it is not split.
pub(super) fn ranges(
    relation: &Relation,
    total_bytes: u64,
    jobs: usize,
    server_version_num: i32,
) -> Vec<Option<(u32, Option<u32>)>> {
    let jobs = jobs.max(1) as u64;
    let splittable = jobs > 1
        && relation.heap
        && relation.configuration_condition.is_none()
        && server_version_num >= TID_RANGE_SCAN
        && relation.size_bytes > total_bytes / jobs
        && relation.size_bytes >= 2 * SMALLEST_PIECE_BYTES;
    if !splittable {
        return vec![None];
    }
    let piece_bytes = (total_bytes / (jobs * PIECES_PER_JOB)).max(SMALLEST_PIECE_BYTES);
    let pieces = relation.size_bytes.div_ceil(piece_bytes).max(1);
    let length = u64::from(relation.pages).div_ceil(pieces).max(1);
    let pieces = u64::from(relation.pages).div_ceil(length).max(1);
    let page = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let range = |piece: u64| {
        let end = (piece + 1 < pieces).then(|| page((piece + 1) * length));
        Some((page(piece * length), end))
    };
    (0..pieces).map(range).collect()
}

/// A table of that size, for unit tests.
#[cfg(test)]
pub(super) fn sample_relation(size_bytes: u64) -> Relation {
    Relation {
        oid: 1,
        schema: "public".into(),
        name: "t".into(),
        kind: RelationKind::Table,
        unlogged: false,
        filenode_in_snapshot: 1,
        filenode_now: 1,
        heap: true,
        populated: true,
        partition_of: Vec::new(),
        remote: false,
        size_bytes,
        pages: u32::try_from(size_bytes / 8192).unwrap_or(u32::MAX),
        readable: true,
        schema_usable: true,
        hides_rows: false,
        extension: None,
        configuration_condition: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_page_is_in_exactly_one_range(
            pages in 0u32..5_000_000,
            toast in 0u64..(1 << 40),
            others in 0u64..(1 << 40),
            jobs in 0usize..65,
        ) {
            let mut relation = sample_relation(u64::from(pages) * 8192 + toast);
            relation.pages = pages;
            let ranges = ranges(&relation, relation.size_bytes + others, jobs, 150_000);
            let mut next = Some(0);
            for range in ranges {
                let (from, to) = range.unwrap_or((0, None));
                prop_assert_eq!(Some(from), next, "where the one before ended");
                prop_assert!(to.is_none_or(|to| to > from));
                next = to;
            }
            prop_assert_eq!(next, None, "pages may be added at any time");
        }
    }

    #[test]
    fn ranges_join_without_a_gap_and_the_last_has_no_end() {
        let size = 1_300 << 20;
        let ranges = ranges(&sample_relation(size), size, 2, 150_000);
        assert!(ranges.len() > 1);
        let mut next = 0;
        for (index, range) in ranges.iter().enumerate() {
            let (from, to) = range.unwrap();
            assert_eq!(from, next);
            assert_eq!(to.is_none(), index + 1 == ranges.len());
            next = to.unwrap_or(0);
        }
    }

    #[test]
    fn a_table_is_not_split_where_it_would_not_outlast_the_rest_or_the_server_would_read_it_whole() {
        let size = 1_300 << 20;
        assert_eq!(ranges(&sample_relation(size), size, 2, 130_000), vec![None]);
        assert_eq!(ranges(&sample_relation(size), size * 10, 2, 150_000), vec![None]);
        let mut columnar = sample_relation(size);
        columnar.heap = false;
        assert_eq!(ranges(&columnar, size, 2, 150_000), vec![None]);
    }
}
