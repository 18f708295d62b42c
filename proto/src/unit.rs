//! How people reach one of the programs on this machine: through systemd where that runs it, by its own words elsewhere.

use std::path::Path;

/// What systemd itself makes while it runs a machine (`sd_booted`).
const BOOTED: &str = "/run/systemd/system";

/// What to type for a verb of systemctl's: `status`, `start`, `restart`, `enable --now`.
#[must_use]
pub fn command(verb: &str, program: &str) -> String {
    command_where(Path::new(BOOTED).exists(), verb, program)
}

fn command_where(booted: bool, verb: &str, program: &str) -> String {
    match (booted, verb) {
        (true, _) => format!("systemctl {verb} {program}"),
        (false, "status") => format!("pgrep -a {program}"),
        (false, "restart") => format!("end {program}, and start it again: {program} run"),
        (false, _) => format!("{program} run"),
    }
}

#[cfg(test)]
mod tests {
    use super::command_where;

    #[test]
    fn without_systemd_nobody_is_sent_to_systemctl() {
        assert_eq!(command_where(true, "enable --now", "baton-agent"), "systemctl enable --now baton-agent");
        assert_eq!(command_where(false, "enable --now", "baton-agent"), "baton-agent run");
        assert_eq!(command_where(false, "start", "baton-coordinator"), "baton-coordinator run");
        assert_eq!(command_where(false, "status", "baton-agent"), "pgrep -a baton-agent");
    }
}
