//! How a command ends. The codes are an interface: scripts and pipelines branch on them.

use std::process::ExitCode;

/// How a command ended, as its exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// An error before anything changed.
    Error = 1,
    /// The command line itself was wrong.
    Usage = 2,
    /// Paused, needs approval, or not enough is known.
    Waiting = 3,
    /// The release failed and was taken back; the service is healthy on the one before.
    RolledBack = 4,
    /// Failed, and a person is needed: mixed releases, or going back failed.
    NeedsPerson = 5,
    /// A person aborted it.
    Aborted = 6,
    /// Refused: frozen, locked, another rollout, policy.
    Refused = 7,
    /// The waiting timed out; the rollout goes on.
    TimedOut = 8,
    /// `plan --exit-code` found changes.
    Changes = 10,
    /// Interrupted at the terminal; the rollout goes on.
    Interrupted = 130,
}

impl Exit {
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn the_codes_are_those_that_scripts_were_promised() {
        let promised = [
            (Exit::Done, 0),
            (Exit::Error, 1),
            (Exit::Usage, 2),
            (Exit::Waiting, 3),
            (Exit::RolledBack, 4),
            (Exit::NeedsPerson, 5),
            (Exit::Aborted, 6),
            (Exit::Refused, 7),
            (Exit::TimedOut, 8),
            (Exit::Changes, 10),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in promised {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}
