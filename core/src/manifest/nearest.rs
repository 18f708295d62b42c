//! "Did you mean": the candidate closest to a word, when one is close enough, and what helps when none is.

/// The candidate with the smallest edit distance, if it takes at most a third of the word's letters to get there.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST).collect();
    let allowed = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// What helps with a key that is near to none: its file may have been written for a later version.
pub(crate) fn perhaps_later() -> String {
    let mine = env!("CARGO_PKG_VERSION");
    format!("it was read by Baton {mine}, and a later version may know it: upgrade that, or take it out")
}

/// No key is this long; a longer word is cut before it is compared, so that a hostile one costs little.
const LONGEST: usize = 64;

/// Edits (insert, delete, replace, swap of neighbours) between two words: the optimal string alignment distance.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let mut best = (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(next[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[track_caller]
    fn check(word: &str, expect: Option<&str>) {
        assert_eq!(nearest(word, ["command", "ports", "user", "env", "stop"]), expect, "{word}");
    }

    #[test]
    fn one_slip_of_the_finger_is_understood() {
        check("comand", Some("command"));
        check("commadn", Some("command"));
        check("port", Some("ports"));
        check("Users", Some("user"));
        check("evn", Some("env"));
    }

    #[test]
    fn a_different_word_is_not_guessed_at() {
        check("memory", None);
        check("", None);
        check(&"command".repeat(1000), None);
    }
}
