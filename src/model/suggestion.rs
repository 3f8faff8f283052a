//! Which known word a misspelt one most likely means.

/// The known word that a misspelt one most likely means, if any is near enough.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    near(word, known).into_iter().next()
}

/// The known words that are near enough to be meant, the nearest first.
pub fn near<'k>(word: &str, known: &[&'k str]) -> Vec<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let by_distance = known.iter().map(|key| (distance(&word, key), *key));
    let mut found: Vec<(usize, &str)> = by_distance.filter(|(distance, _)| *distance <= allowed).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, key)| key).collect()
}

/// Levenshtein's distance, with two swapped neighbours counted as one change.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=right.len()).collect();
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut least = substitution.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised_and_far_ones_are_not() {
        let known = ["backup", "restore_test", "rpo", "rto", "url"];
        assert_eq!(nearest("bakcup", &known), Some("backup"));
        assert_eq!(nearest("restore-test", &known), Some("restore_test"));
        assert_eq!(nearest("ulr", &known), Some("url"));
        assert_eq!(nearest("colour", &known), None);
    }
}
