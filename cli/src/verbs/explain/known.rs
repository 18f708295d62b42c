//! What there is to say about each code, beside those of the manifest, which say it themselves.

use baton_core::manifest::codes::Explanation;
use baton_core::problem::Code;

const fn known(code: u16, title: &'static str, text: &'static str) -> Explanation {
    Explanation { code: Code(code), title, text }
}

pub(super) const KNOWN: &[Explanation] = &[
    known(
        130,
        "the manifest cannot be read",
        "The file is not there, is no UTF-8 text, or may not be read. `-f FILE` names another one; `baton init` writes one to start from.",
    ),
    known(
        131,
        "the manifest is of another service",
        "The service named on the command line is checked against the manifest, so that one service is never deployed with another's settings.",
    ),
    known(132, "a file is there already", "`baton init` never overwrites a file."),
    known(
        133,
        "a name that nothing has",
        "The coordinator knows no service, host, version or code of that name. What there is stands beside the error.",
    ),
    known(
        501,
        "the coordinator cannot be reached",
        "No connection came about: refused, no route, no such name, no such socket. Hosts go on serving what they serve. Look whether baton-coordinator runs, and whether the address or the socket is right.",
    ),
    known(
        502,
        "no answer in time",
        "The other side accepted nothing and refused nothing. A firewall that drops packets looks like this.",
    ),
    known(
        503,
        "another authority",
        "The certificate is signed by an authority that is not this fleet's: another fleet's coordinator answers there, or the authority was made anew. Join or log in again with a new token.",
    ),
    known(
        504,
        "a certificate is not valid at this time",
        "It has expired, is not valid yet, or the clock of one of the two machines is off. Compare `date -u` on both.",
    ),
    known(
        505,
        "the token belongs to another coordinator",
        "A token pins the authority it comes from. Here another one answered: the address is wrong, or somebody listens in between.",
    ),
    known(
        506,
        "the other side is no coordinator",
        "A genuine certificate of this fleet, of somebody who may not be a coordinator.",
    ),
    known(
        507,
        "the coordinator refused the certificate",
        "It was revoked or replaced, or it belongs to another fleet. Log in again.",
    ),
    known(
        508,
        "TLS failed",
        "Something on that port speaks no TLS 1.3 with certificates on both sides. Is it the coordinator's port?",
    ),
    known(509, "the connection broke", "It broke while something was asked. A rollout does not need it: it goes on."),
    known(510, "who are you?", "The call needs a certificate and none was shown. `baton login` brings one."),
    known(
        511,
        "the role does not allow it",
        "Roles stand in certificates: viewer may look, ci and deployer may deploy, admin may do everything.",
    ),
    known(
        512,
        "the other side cannot be understood",
        "It sent what cannot be right, or does not know the call: the versions of the two programs are too far apart.",
    ),
    known(
        513,
        "credentials cannot be used",
        "Certificate, key or authority on disk are missing, damaged, or do not belong together. Join or log in again.",
    ),
    known(
        514,
        "the token cannot be redeemed",
        "It is unknown, used up, revoked or expired. Tokens are short-lived and counted; `baton token create` makes another one.",
    ),
    known(519, "a call failed", "The coordinator could not do what was asked; the status says what it said."),
    known(
        520,
        "no coordinator is known",
        "On the coordinator's machine its socket is used; elsewhere the credentials of `baton login HOST:PORT --token-file FILE`.",
    ),
    known(521, "the login cannot be used", "The files of a login, or the token for one, cannot be read."),
    known(
        522,
        "the coordinator fell silent",
        "A rollout was asked for or watched, and the coordinator did not answer for long. It goes on when the coordinator is back; the same command attaches to it.",
    ),
    known(
        650,
        "the artifact cannot be read",
        "It is looked for at artifact.path, beside the manifest, with {version} filled in. A version that was released before needs no file.",
    ),
    known(
        651,
        "the coordinator did not take the artifact",
        "Uploads go on where they ended. This one ended short again and again.",
    ),
    known(
        701,
        "another rollout is under way",
        "A service has one rollout at a time. The same release attaches to it; another one waits until it has ended or was taken back.",
    ),
    known(702, "no host", "A rollout without hosts would be a success that changes nothing."),
    known(
        703,
        "a host never joined",
        "Every host in a manifest must have joined: on it, `baton-agent join HOST:PORT --token-file FILE`.",
    ),
    known(704, "a port belongs to another service", "Two services cannot listen on one port of a host."),
    known(
        705,
        "ports or balancer of a live service changed",
        "They say where its members are, so they do not change under it.",
    ),
    known(706, "no release to go back to", "There is no release before the one that is live."),
    known(
        707,
        "the release speaks against itself",
        "Something failed on the new release, and the manifest says that a failure pauses. It cannot go on; it can go back.",
    ),
    known(708, "no rollout is under way", "There is nothing to pause, resume or abort."),
    known(709, "no such service", "A service exists from its first deploy on."),
];
