//! The word that somebody probably meant.

/// The candidate nearest to `word`, if one is near enough to be meant: a slip or
/// two, more in a long word.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<u8> = word.bytes().take(64).map(|b| b.to_ascii_lowercase()).collect();
    let near = 1 + word.len() / 4;
    let distances = candidates.into_iter().map(|c| (distance(&word, c.as_bytes()), c));
    let (slips, candidate) = distances.min_by_key(|(slips, _)| *slips)?;
    (slips <= near && slips < word.len()).then_some(candidate)
}

/// Slips between two words: letters missing, added, wrong, or two swapped.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let wrong = last[j] + usize::from(a[i] != b[j]);
            let mut best = wrong.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let words = ["log", "log_level", "log_format", "authtoken"];
        assert_eq!(nearest("log_levl", words), Some("log_level"));
        assert_eq!(nearest("lgo", words), Some("log"));
        assert_eq!(nearest("AuthToken", words), Some("authtoken"));
        assert_eq!(nearest("auth_token", words), Some("authtoken"));
        assert_eq!(nearest("zebra", words), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(distance(b"abcd", b"acbd"), 1);
    }
}
