//! The codes of a manifest's diagnostics, with what `baton explain` says about each.

use crate::problem::Code;

/// One code: what it is called, and what it means for whoever wrote the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    pub code: Code,
    pub title: &'static str,
    pub text: &'static str,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $text:literal;)*) => {
        $(#[doc = $title] pub const $name: Code = Code($number);)*

        /// Every code of the manifest, in order.
        pub const CODES: &[Explanation] = &[
            $(Explanation { code: $name, title: $title, text: $text },)*
        ];
    };
}

codes! {
    SYNTAX = 101, "the file is not valid TOML",
        "Nothing else is checked until the file can be read as TOML. The first places where reading failed are \
         listed; the very first is usually the cause of the others.";
    UNKNOWN_KEY = 102, "a key or table that Baton does not know",
        "Unknown keys are errors, because a misspelt key would otherwise be a default that nobody asked for. The coordinator \
         reads the manifest: a key of a later version needs a later coordinator.";
    WRONG_TYPE = 103, "a value of the wrong type",
        "Durations are strings with a unit (\"30s\"), ports are integers, shares of hosts are strings (\"25%\").";
    MISSING = 104, "a required key is missing",
        "service, hosts, artifact.path, run.command, run.ports and one probe in [health] have no default.";
    BAD_NAME = 105, "text that cannot be a name",
        "Names become units, folders, certificates and balancer objects, so they are ASCII letters, digits and `-` (some \
         also `.`, `_`, `+`), start with a letter or digit, and are at most 63 characters long (hosts: 253).";
    NO_HOSTS = 106, "a list of hosts is empty",
        "A service without hosts runs nowhere, and a balancer on no host serves nothing.";
    DUPLICATE = 107, "something is listed twice",
        "A host or a port that stands twice in a list would be planned twice.";
    BAD_PORT = 108, "a port that cannot be used",
        "Ports are 1 to 65535, at least one and at most eight of them: each is one slot.";
    PLACEHOLDER = 109, "a placeholder that means nothing here",
        "Commands know {address}, {port}, {slot} and {version}; artifact.path knows {version}; everything else is taken \
         as it is written.";
    BAD_COMMAND = 110, "a command that cannot be run",
        "Commands are split into words as a shell would split them, with ' and \" and \\, and then run without a shell: no \
         pipes, no redirections, no variables.";
    BAD_ARTIFACT = 111, "an artifact path that names no version",
        "The path is where `baton deploy SERVICE VERSION` looks for the archive of that version, so it must contain \
         {version}.";
    BAD_DURATION = 112, "a duration that cannot be used",
        "Durations are strings such as \"500ms\", \"30s\", \"5m\" or \"1h 30m\", at most seven days.";
    BAD_AMOUNT = 113, "a number or share of hosts that cannot be used",
        "A number of hosts (1) or a share of them (\"25%\"). Waves are cumulative: each reaches at least as far as the one \
         before, and the last one reaches every host.";
    NOT_YET = 114, "something this version of Baton cannot do yet",
        "The key or value is planned and refused until it works, so that no file promises what Baton does not do.";
    CONTRADICTION = 115, "two settings that exclude each other",
        "For example side by side with a single port: there is no second slot for the new instance.";
    SECRET = 116, "a secret written into the manifest",
        "A manifest is kept in version control and stored by the coordinator, and others on the host can read arguments and \
         environment values. Put the secret into a file on the hosts that only root can read, such as /etc/credstore/shop.db, and \
         name it in run.secrets: the instance is given it as a file. What is none and looks like one: give it another name, or let a \
         script in the artifact set it.";
    NO_PROBE = 117, "not exactly one way to know that the service is ready",
        "[health] needs one of http, tcp and exec. Without a probe every release would count as healthy.";
    NOBODY_SERVES = 118, "no host serves while the release is replaced",
        "In place, a host does not serve between stopping the old instance and the new one's being ready. When \
         max_unavailable allows that on every host at once, the service is down for that long. This is a warning.";
    NOT_A_CHOICE = 119, "a value outside a closed list",
        "The key takes one of a few words.";
    BAD_ENV = 120, "an environment variable that cannot be set",
        "Names are letters, digits and `_` and do not start with a digit; values are strings without NUL.";
    TOO_LATE = 121, "a deadline that ends before what it waits for",
        "A rollout waits at least for as long as one host may take to drain, start and stop, whatever progress_deadline says. \
         One that is shorter than a part of that is not what holds. This is a warning.";
    TOO_LARGE = 122, "the file is too large for a manifest",
        "A manifest is a few dozen lines; more than 256 KiB is some other file.";
    BAD_RULE = 123, "a rule or a user that no balancer can tell",
        "Rules are `header NAME = VALUE` or `cookie NAME = VALUE`, users are told apart by `cookie NAME`, `header NAME` or \
         `source`. Names are letters, digits, `-` and `_`.";
    BAD_FIGURE = 124, "a figure that cannot be used",
        "Confidence, tolerance and regressions are strings such as \"99%\", \"1.2x + 0.1%\" and \"+1%\".";
    BAD_ADDRESS = 127, "an address that nobody can listen on",
        "run.listen takes IP addresses with a port: \"0.0.0.0:8100\", \"[::]:8100\", \"10.0.0.7:80\". Names are not looked up: \
         which address a name has on a host is not for the manifest to guess.";
    NOBODY_MOVES = 128, "nothing moves the clients from the old instance to the new one",
        "Side by side the new instance listens on another port than the old one. A load balancer moves the clients over, or \
         one listening socket that both take in turn; with neither, clients have to find the port by themselves. This is a \
         warning.";
    PORT_UNTOLD = 129, "nothing tells the program which port is its own",
        "With two ports each instance listens on the port of its slot. The command passes it on as {port}; a program can also \
         read BATON_PORT from its environment. One that listens on a fixed port collides with the instance beside it, and does \
         not become ready. This is a warning.";
    BAD_SECRET = 140, "a secret that is no reference",
        "run.secrets says where each host finds a value and never the value itself: file:/etc/credstore/shop.db, \
         env-file:/etc/shop/env#NAME, systemd-creds:/etc/credstore.encrypted/db or exec:/usr/bin/pass show shop/db. What was \
         written is not shown, because it may have been the secret.";
}
