//! "Did you mean": the nearest of a few known words.

/// Longest word that is compared; longer ones have no neighbour.
const MAX_LENGTH: usize = 48;

/// The candidate that is nearest to the word and near enough to be a slip of the keyboard.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = simplified(word);
    if word.is_empty() || word.len() > MAX_LENGTH {
        return None;
    }
    let allowed = match word.len() {
        0..=2 => 1,
        3..=6 => 2,
        _ => 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().take(1_000) {
        let simple = simplified(candidate);
        if simple.len() > MAX_LENGTH || simple.len().abs_diff(word.len()) > allowed {
            continue;
        }
        let distance = distance(&word, &simple);
        // No more than a third of a word may be wrong.
        if distance <= allowed
            && distance * 3 <= word.len().max(simple.len())
            && best.is_none_or(|(d, _)| distance < d)
        {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Case, dashes and underscores do not count.
fn simplified(word: &str) -> Vec<char> {
    word.chars()
        .take(MAX_LENGTH + 1)
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edit distance with swaps of neighbours counted once.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut current = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best =
                (previous[j] + usize::from(x != y)).min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            current[j + 1] = best;
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_found_and_another_word_is_not() {
        for (word, expected) in [
            ("strategey", Some("strategy")),
            ("Startegy", Some("strategy")),
            ("bake-", Some("bake")),
            ("nedes", Some("needs")),
            ("replicas", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, ["strategy", "bake", "needs"]), expected, "{word}");
        }
    }
}
