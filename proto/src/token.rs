//! What lets a host or an operator join: a secret, and the hash of the authority to believe.

use baton_core::name::Digest;
use data_encoding::BASE32_NOPAD_NOCASE;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

const PREFIX: &str = "baton1.";

/// A join token, as `baton token create` shows it once: `baton1.` and base32.
///
/// It carries both directions of trust: the secret shows the coordinator that the bearer may join, the pin shows the bearer
/// that the coordinator is the one the token comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// BLAKE3 of the authority's certificate, in DER.
    pub pin: [u8; 32],
    pub secret: [u8; 32],
}

/// Text that is not a join token. It never repeats the text: half a token is still half a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("a join token starts with `{PREFIX}`")]
    Prefix,
    #[error("the join token is cut short or holds characters that do not belong to it")]
    Body,
}

/// What is wrong with how a token's file is kept, where others may read it; a pipe has no others.
#[must_use]
pub fn exposed(file: &Path) -> Option<String> {
    let mode = fs::metadata(file).ok().filter(fs::Metadata::is_file)?.permissions().mode() & 0o777;
    let name = file.display();
    (mode & 0o077 != 0).then(|| {
        format!("warning: others may read {name} (mode {mode:04o}), and whoever has a token may use it: chmod 600 {name}")
    })
}

/// A text without the tokens in it: people write one where its file belongs, and what they wrote is shown to them again.
#[must_use]
pub fn masked(text: &str) -> String {
    let mut parts = text.split(PREFIX);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.extend([PREFIX, "…", part.trim_start_matches(|c: char| c.is_ascii_alphanumeric())]);
    }
    shown
}

impl JoinToken {
    /// What the coordinator stores and compares instead of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> Digest {
        Digest::of(&self.secret)
    }
}

/// The whole token, secret included: for the one place that shows it.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.pin, self.secret].concat();
        write!(f, "{PREFIX}{}", BASE32_NOPAD_NOCASE.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("pin", &Digest::from_bytes(self.pin)).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;
    /// Reads a token; white space around it, as files and terminals add it, does not matter.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken::Prefix)?;
        let bytes = BASE32_NOPAD_NOCASE.decode(body.as_bytes()).map_err(|_| InvalidToken::Body)?;
        let (pin, secret) = bytes.split_at_checked(32).ok_or(InvalidToken::Body)?;
        let half = |bytes: &[u8]| bytes.try_into().map_err(|_| InvalidToken::Body);
        Ok(Self { pin: half(pin)?, secret: half(secret)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken { pin: [0xa5; 32], secret: std::array::from_fn(|index| index as u8) }
    }

    #[test]
    fn a_token_among_other_words_is_masked() {
        let token = JoinToken { pin: [7; 32], secret: [9; 32] }.to_string();
        assert_eq!(
            masked(&format!("unexpected argument '{token}' found\n{token}")),
            "unexpected argument 'baton1.…' found\nbaton1.…"
        );
        assert_eq!(masked("nothing to hide"), "nothing to hide");
    }

    #[test]
    fn a_token_is_read_back_as_it_was_written() {
        let text = token().to_string();
        assert!(text.starts_with("baton1.") && text == text.to_lowercase(), "{text}");
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!("  {text}\n").parse(), Ok(token()));
    }

    #[test]
    fn a_token_cut_short_or_mistyped_is_refused() {
        let text = token().to_string();
        for wrong in ["", "baton1.", "baton2.aaaa", &text[..text.len() - 1], &format!("{text}a"), &text.replace('a', "!")] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
        for end in 0..text.len() {
            assert!(text[..end].parse::<JoinToken>().is_err());
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_said_and_a_pipe_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "baton1.x").unwrap();
        for (mode, said) in [(0o600, false), (0o400, false), (0o644, true), (0o640, true), (0o602, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(exposed(&file).is_some(), said, "{mode:o}");
        }
        assert!(exposed(&file).unwrap().contains("(mode 0602)"));
        assert_eq!((exposed(Path::new("/dev/null")), exposed(Path::new("-"))), (None, None));
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_secret() {
        let secret = data_encoding::HEXLOWER.encode(&token().secret);
        let shown = format!("{:?}", token());
        assert!(!shown.contains(&secret) && !shown.contains("[0, 1, 2"), "{shown}");
        let mut broken = token().to_string();
        broken.push('!');
        let error = broken.parse::<JoinToken>().unwrap_err().to_string();
        assert!(!error.contains(&broken[10..20]), "{error}");
    }
}
