//! Suggestions for misspelled words.

/// Shortest beginning of a word that is recognized.
const MIN_BEGINNING: usize = 3;

/// Returns the candidate nearest to `word`, if it is near enough: one or two errors, more in a
/// long word. Else the only candidate that begins with `word`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(word, candidates.into_iter().collect())
}

/// Not generic: the program contains it once.
fn nearest_of<'a>(word: &str, candidates: Vec<&'a str>) -> Option<&'a str> {
    let word: Vec<u8> = word.bytes().take(64).map(|b| b.to_ascii_lowercase()).collect();
    let near = 1 + word.len() / 4;
    let distances = candidates.iter().map(|c| (distance(&word, c.as_bytes()), *c));
    let (errors, candidate) = distances.min_by_key(|(errors, _)| *errors)?;
    if errors <= near && errors < word.len() {
        return Some(candidate);
    }
    let mut begun = candidates.into_iter().filter(|c| c.as_bytes().starts_with(&word));
    let only = begun.next().filter(|_| word.len() >= MIN_BEGINNING)?;
    begun.next().is_none().then_some(only)
}

/// Returns whether `word` is `candidate` with at most one error.
pub(super) fn is_misspelled(word: &str, candidate: &str) -> bool {
    word.len() <= candidate.len() + 1 && distance(word.as_bytes(), candidate.as_bytes()) <= 1
}

/// Returns the number of errors between two words: letters missing, added, wrong, or two
/// swapped.
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
    fn misspelled_words_are_found_and_others_are_not() {
        let words = ["log", "log_level", "log_format", "authtoken"];
        assert_eq!(nearest("log_levl", words), Some("log_level"));
        assert_eq!(nearest("lgo", words), Some("log"));
        assert_eq!(nearest("AuthToken", words), Some("authtoken"));
        assert_eq!(nearest("auth_token", words), Some("authtoken"));
        assert_eq!(nearest("auth", words), Some("authtoken"));
        assert_eq!((nearest("log_", words), nearest("au", words)), (Some("log"), None));
        assert_eq!(nearest("zebra", words), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(distance(b"abcd", b"acbd"), 1);
        assert!(is_misspelled("lgo", "log") && is_misspelled("logs", "log"));
        assert!(!is_misspelled("set-headers", "add-headers") && !is_misspelled("logged", "log"));
    }
}
