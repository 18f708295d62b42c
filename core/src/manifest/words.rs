//! A command as words: split as a shell would, and then run without one.

use std::ops::Range;

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Where it stands in the command.
    pub(super) range: Range<usize>,
    /// Whether it was written without quotes and backslashes: only then can it be shell syntax.
    pub(super) bare: bool,
}

/// A quote that is opened and never closed, or a backslash with nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unclosed {
    pub(super) at: usize,
    pub(super) mark: char,
}

/// Splits at white space. `'…'` is literal; in `"…"` a backslash escapes `"` and `\`; outside, it escapes anything.
pub(super) fn split(command: &str) -> Result<Vec<Word>, Unclosed> {
    let mut words = Vec::new();
    let mut characters = command.char_indices().peekable();
    while let Some((begin, first)) = characters.peek().copied() {
        if first.is_whitespace() {
            characters.next();
            continue;
        }
        let mut word = Word { text: String::new(), range: begin..begin, bare: true };
        while let Some((at, character)) = characters.next_if(|(_, character)| !character.is_whitespace()) {
            let unclosed = || Unclosed { at, mark: character };
            word.bare &= !matches!(character, '\'' | '"' | '\\');
            match character {
                '\'' => quoted(&mut characters, '\'', &mut word.text).ok_or_else(unclosed)?,
                '"' => quoted(&mut characters, '"', &mut word.text).ok_or_else(unclosed)?,
                '\\' => word.text.push(characters.next().ok_or_else(unclosed)?.1),
                _ => word.text.push(character),
            }
        }
        word.range.end = characters.peek().map_or(command.len(), |(at, _)| *at);
        words.push(word);
    }
    Ok(words)
}

fn quoted(characters: &mut impl Iterator<Item = (usize, char)>, quote: char, into: &mut String) -> Option<()> {
    loop {
        match characters.next()?.1 {
            end if end == quote => return Some(()),
            '\\' if quote == '"' => match characters.next()?.1 {
                escaped @ ('"' | '\\') => into.push(escaped),
                other => into.extend(['\\', other]),
            },
            other => into.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, expect: &[&str]) {
        let words = split(command).unwrap();
        assert_eq!(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(), expect, "{command}");
        assert!(words.iter().all(|word| command.get(word.range.clone()).is_some()));
    }

    #[test]
    fn words_are_split_the_way_a_shell_splits_them() {
        check("bin/shop --listen 0.0.0.0:{port}", &["bin/shop", "--listen", "0.0.0.0:{port}"]);
        check("  a\tb\n c ", &["a", "b", "c"]);
        check(r#"sh -c 'exec "$0" && true' x"#, &["sh", "-c", "exec \"$0\" && true", "x"]);
        check(r#"a "b \" \\ \n" c\ d"#, &["a", "b \" \\ \\n", "c d"]);
        check("--name='a b'c \"\"", &["--name=a bc", ""]);
        check("bin/상점 '가 나'", &["bin/상점", "가 나"]);
        check("   ", &[]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_pointed_at() {
        assert_eq!(split("a 'b c"), Err(Unclosed { at: 2, mark: '\'' }));
        assert_eq!(split("a b\"c\\"), Err(Unclosed { at: 3, mark: '"' }));
        assert_eq!(split("a \\"), Err(Unclosed { at: 2, mark: '\\' }));
    }

    #[test]
    fn only_words_without_quotes_can_be_shell_syntax() {
        let bare: Vec<bool> = split("a && '&&' \\&").unwrap().iter().map(|word| word.bare).collect();
        assert_eq!(bare, [true, true, false, false]);
    }
}
