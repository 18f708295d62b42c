//! Who may call what: every method there is, and for each everybody who may. The rest is denied.

use baton_core::problem::Problem;
use baton_proto::identity::{Identity, Role};
use baton_proto::problem::code;

/// What a caller is, as far as the table is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    Host,
    Viewer,
    Ci,
    Deployer,
    Admin,
}

use Caller::{Admin, Anonymous, Ci, Deployer, Host, Viewer};

const EVERYBODY: &[Caller] = &[Anonymous, Host, Viewer, Ci, Deployer, Admin];
const OPERATORS: &[Caller] = &[Viewer, Ci, Deployer, Admin];
const DEPLOYERS: &[Caller] = &[Ci, Deployer, Admin];
const DRIVERS: &[Caller] = &[Deployer, Admin];
const ADMINS: &[Caller] = &[Admin];

/// Every method, by its path on the wire. A test compares this with the `.proto` files.
pub const METHODS: &[(&str, &[Caller])] = &[
    // The token decides who the caller becomes. Whoever has a certificate may join again with another token.
    ("/baton.v1.Enrollment/Join", EVERYBODY),
    // Versions and the clock, before a token is spent.
    ("/baton.v1.Enrollment/Greet", EVERYBODY),
    // Whoever has a certificate gets the next one for the same identity.
    // Not a pipeline's: its certificate is a file that nobody would write anew, and it ends when its token said.
    ("/baton.v1.Enrollment/Renew", &[Host, Viewer, Deployer, Admin]),
    ("/baton.v1.Enrollment/Kept", &[Host, Viewer, Deployer, Admin]),
    ("/baton.v1.AgentLink/Connect", &[Host]),
    // A host may fetch what its own spec names, and nothing else: see `api::artifacts`.
    ("/baton.v1.Artifacts/Fetch", &[Host]),
    ("/baton.v1.Artifacts/Stat", DEPLOYERS),
    ("/baton.v1.Artifacts/Upload", DEPLOYERS),
    ("/baton.v1.Control/WhoAmI", OPERATORS),
    ("/baton.v1.Control/Plan", OPERATORS),
    ("/baton.v1.Control/Deploy", DEPLOYERS),
    ("/baton.v1.Control/Rollback", DEPLOYERS),
    ("/baton.v1.Control/Pause", DRIVERS),
    ("/baton.v1.Control/Resume", DRIVERS),
    ("/baton.v1.Control/Abort", DRIVERS),
    ("/baton.v1.Control/Promote", DRIVERS),
    ("/baton.v1.Control/Retry", DRIVERS),
    ("/baton.v1.Control/Skip", DRIVERS),
    ("/baton.v1.Control/Restart", DRIVERS),
    ("/baton.v1.Control/Rehearse", DRIVERS),
    ("/baton.v1.Control/Freeze", DRIVERS),
    ("/baton.v1.Control/Unfreeze", DRIVERS),
    ("/baton.v1.Control/DrainHost", DRIVERS),
    ("/baton.v1.Control/UndrainHost", DRIVERS),
    // It may go on sending requests to what is stopped then, where it only cannot be reached from here.
    ("/baton.v1.Control/DeclareDead", ADMINS),
    ("/baton.v1.Control/Revive", ADMINS),
    // Where machines stand is an inventory's matter, not a release's.
    ("/baton.v1.Control/LabelHost", ADMINS),
    // Which machine is which is for whoever may make tokens to say.
    ("/baton.v1.Control/AcceptHost", ADMINS),
    // What is removed does not come back by the opposite command.
    ("/baton.v1.Control/RemoveService", ADMINS),
    ("/baton.v1.Control/RemoveHost", ADMINS),
    ("/baton.v1.Control/Recover", ADMINS),
    // A package is installed as root.
    ("/baton.v1.Control/UpgradeAgents", ADMINS),
    ("/baton.v1.Control/PauseAgents", ADMINS),
    ("/baton.v1.Control/ResumeAgents", ADMINS),
    ("/baton.v1.Control/AbortAgents", ADMINS),
    ("/baton.v1.Control/AgentsStatus", OPERATORS),
    // A host that does not come back is somebody's night.
    ("/baton.v1.Control/RebootHosts", ADMINS),
    ("/baton.v1.Control/SteerReboot", ADMINS),
    ("/baton.v1.Control/RebootStatus", OPERATORS),
    ("/baton.v1.Control/Status", OPERATORS),
    ("/baton.v1.Control/Watch", OPERATORS),
    ("/baton.v1.Control/History", OPERATORS),
    ("/baton.v1.Control/ListReleases", OPERATORS),
    ("/baton.v1.Control/CreateToken", ADMINS),
    ("/baton.v1.Control/ListTokens", ADMINS),
    ("/baton.v1.Control/RevokeToken", ADMINS),
    ("/baton.v1.Control/ListCertificates", ADMINS),
    ("/baton.v1.Control/RevokeCertificates", ADMINS),
    ("/baton.v1.Control/AuthorityStatus", ADMINS),
    ("/baton.v1.Control/RotateAuthority", ADMINS),
    ("/baton.v1.Control/RetireAuthority", ADMINS),
    ("/baton.v1.Control/ListAudit", ADMINS),
    ("/baton.v1.Control/VerifyAudit", ADMINS),
    ("/baton.v1.Control/AcceptAuditLoss", ADMINS),
    ("/baton.v1.Control/RecordBackup", ADMINS),
];

/// Methods that change nothing anybody would ask about later: the audit log has their refusals only. An upload alone changes
/// nothing; the deploy that names it does. One that accepts a loss of the log writes its entries itself. Every other method is
/// recorded, also those that are added and forgotten here.
const UNRECORDED: &[&str] = &[
    "/baton.v1.Enrollment/Greet",
    "/baton.v1.Enrollment/Kept",
    "/baton.v1.AgentLink/Connect",
    "/baton.v1.Artifacts/Fetch",
    "/baton.v1.Artifacts/Stat",
    "/baton.v1.Artifacts/Upload",
    "/baton.v1.Control/WhoAmI",
    "/baton.v1.Control/Plan",
    "/baton.v1.Control/AgentsStatus",
    "/baton.v1.Control/RebootStatus",
    "/baton.v1.Control/Status",
    "/baton.v1.Control/Watch",
    "/baton.v1.Control/History",
    "/baton.v1.Control/ListReleases",
    "/baton.v1.Control/ListTokens",
    "/baton.v1.Control/ListCertificates",
    "/baton.v1.Control/AuthorityStatus",
    "/baton.v1.Control/ListAudit",
    "/baton.v1.Control/VerifyAudit",
    "/baton.v1.Control/AcceptAuditLoss",
];

/// Whether a call that was let through is recorded in the audit log.
#[must_use]
pub fn is_recorded(path: &str) -> bool {
    !UNRECORDED.contains(&path)
}

/// Whether a call shows that its caller has its certificate for good. Joining and renewing do not: a certificate may be tried
/// there before it is kept.
#[must_use]
pub fn shows_use(path: &str) -> bool {
    !path.starts_with("/baton.v1.Enrollment/")
}

/// Whether a caller may call the method at a path. Only a path that is exactly in the table is a method.
///
/// # Errors
/// B0510 for a caller without a certificate, B0511 for one whose role is not enough, B0512 for what is no method.
pub fn authorise(identity: &Identity, path: &str) -> Result<(), Problem> {
    let Some((_, callers)) = METHODS.iter().find(|(method, _)| *method == path) else {
        return Err(Problem::new(code::NOT_UNDERSTOOD, "the coordinator does not know this call")
            .saw("path", path.chars().take(120).collect::<String>())
            .help("is its version older than the caller's?"));
    };
    let caller = match identity {
        Identity::Anonymous => Some(Anonymous),
        Identity::Host(_) => Some(Host),
        Identity::Operator { role, .. } => Some(match role {
            Role::Viewer => Viewer,
            Role::Ci => Ci,
            Role::Deployer => Deployer,
            Role::Admin => Admin,
        }),
        Identity::Coordinator => None,
    };
    if caller.is_some_and(|caller| callers.contains(&caller)) {
        return Ok(());
    }
    let (command, roles) = (command(path), roles(callers));
    Err(match caller {
        Some(Anonymous) => Problem::new(code::WHO_ARE_YOU, "the coordinator does not know who this is")
            .saw("command", command)
            .help("baton login HOST:PORT --token-file FILE, or on a host: baton-agent join HOST:PORT --token-file FILE"),
        _ => Problem::new(code::NOT_ALLOWED, format!("{identity} may not do this"))
            .saw("command", command)
            .saw("allowed to", roles.join(", "))
            .help(match roles.iter().find(|role| **role != HOST) {
                Some(role) => {
                    format!("ask one of those, or an admin for a token of that role: baton token create --role {role}")
                }
                None => "this is for agents on hosts, and no operator's".to_owned(),
            }),
    })
}

const HOST: &str = "host";

/// The roles of callers in the words of `baton token create --role`, the least of them first.
fn roles(callers: &[Caller]) -> Vec<&'static str> {
    let word = |caller: &Caller| match caller {
        Anonymous => None,
        Host => Some(HOST),
        Viewer => Some("viewer"),
        Ci => Some("ci"),
        Deployer => Some("deployer"),
        Admin => Some("admin"),
    };
    callers.iter().filter_map(word).collect()
}

/// The command that calls a method, as people write it.
fn command(path: &str) -> String {
    let (service, method) = path.trim_start_matches("/baton.v1.").split_once('/').unwrap_or_default();
    let words = match (service, method) {
        ("AgentLink", _) | ("Artifacts", "Fetch") => return "baton-agent run".to_owned(),
        ("Enrollment", _) => return "baton-agent join, baton login".to_owned(),
        ("Artifacts", _) => "deploy",
        (_, "WhoAmI") => "doctor",
        (_, "DrainHost") => "hosts drain",
        (_, "UndrainHost") => "hosts undrain",
        (_, "LabelHost") => "hosts label",
        (_, "AcceptHost") => "hosts accept",
        (_, "RemoveHost") => "hosts remove",
        (_, "DeclareDead") => "balancers declare-dead",
        (_, "Revive") => "balancers revive",
        (_, "RemoveService") => "services remove",
        (_, "ListReleases") => "releases",
        (_, "CreateToken") => "token create",
        (_, "ListTokens") => "token list",
        (_, "RevokeToken") => "token revoke",
        (_, "ListCertificates") => "certificates list",
        (_, "RevokeCertificates") => "certificates revoke",
        (_, "ListAudit") => "audit list",
        (_, "VerifyAudit") => "audit verify",
        (_, "AcceptAuditLoss") => "audit accept",
        (_, "RecordBackup") => return "baton-coordinator backup".to_owned(),
        (_, "AuthorityStatus") => "authority status",
        (_, "RotateAuthority") => "authority rotate",
        (_, "RetireAuthority") => "authority retire",
        (_, "UpgradeAgents") => "agents upgrade",
        (_, "PauseAgents") => "agents pause",
        (_, "ResumeAgents") => "agents resume",
        (_, "AbortAgents") => "agents abort",
        (_, "AgentsStatus") => "agents status",
        (_, "RebootHosts" | "SteerReboot" | "RebootStatus") => "reboot",
        (_, other) => return format!("baton {}", other.to_lowercase()),
    };
    format!("baton {words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn methods_of_the_proto_files() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
        let files: Vec<_> = std::fs::read_dir(root.join("baton/v1")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let descriptors = protox::compile(files, [root]).unwrap();
        let mut methods = BTreeSet::new();
        for file in descriptors.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        methods
    }

    #[test]
    fn the_table_names_every_method_of_the_proto_files_and_no_other() {
        let table: BTreeSet<_> = METHODS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(table.len(), METHODS.len(), "a method stands in the table twice");
        assert_eq!(table, methods_of_the_proto_files());
    }

    #[test]
    fn what_is_not_recorded_is_a_method_and_commands_are_recorded() {
        assert!(UNRECORDED.iter().all(|path| METHODS.iter().any(|(method, _)| method == path)));
        for command in
            ["Control/Deploy", "Control/Pause", "Control/CreateToken", "Control/RotateAuthority", "Enrollment/Join"]
        {
            assert!(is_recorded(&format!("/baton.v1.{command}")), "{command}");
        }
        // Who may only look commands nothing.
        let looks = METHODS.iter().filter(|(path, callers)| path.contains("/Control/") && callers.contains(&Viewer));
        looks.for_each(|(path, _)| assert!(!is_recorded(path), "{path}"));
    }

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_without_a_certificate_may_do_anything_but_join() {
        for (path, _) in METHODS {
            let allowed = authorise(&Identity::Anonymous, path).is_ok();
            assert_eq!(allowed, matches!(*path, "/baton.v1.Enrollment/Join" | "/baton.v1.Enrollment/Greet"), "{path}");
        }
    }

    #[test]
    fn a_hosts_certificate_is_neither_operator_nor_server() {
        let may = |path: &str| authorise(&identity("host/web1"), path).is_ok();
        let may: Vec<_> = METHODS.iter().map(|(path, _)| *path).filter(|path| may(path)).collect();
        assert_eq!(
            may,
            [
                "/baton.v1.Enrollment/Join",
                "/baton.v1.Enrollment/Greet",
                "/baton.v1.Enrollment/Renew",
                "/baton.v1.Enrollment/Kept",
                "/baton.v1.AgentLink/Connect",
                "/baton.v1.Artifacts/Fetch"
            ]
        );
        assert!(METHODS.iter().all(|(path, _)| authorise(&Identity::Coordinator, path).is_err()));
    }

    #[test]
    fn a_viewer_changes_nothing_and_only_an_admin_makes_tokens() {
        for path in ["Control/Deploy", "Control/Rollback", "Control/Pause", "Control/Abort", "Artifacts/Upload"] {
            assert!(authorise(&identity("viewer/v"), &format!("/baton.v1.{path}")).is_err(), "{path}");
        }
        for role in ["viewer/v", "ci/c", "deployer/d", "host/web1"] {
            assert!(authorise(&identity(role), "/baton.v1.Control/CreateToken").is_err(), "{role}");
        }
        assert!(authorise(&identity("admin/ana"), "/baton.v1.Control/CreateToken").is_ok());
    }

    #[test]
    fn a_refusal_names_the_command_and_who_may_give_it() {
        let refused = |who: &str, path: &str| {
            let problem = authorise(&identity(who), &format!("/baton.v1.{path}")).unwrap_err();
            let seen: Vec<String> = problem.seen.iter().map(|(label, seen)| format!("{label}: {seen}")).collect();
            format!("{} | {} | {}", problem.what, seen.join(", "), problem.help.clone().unwrap_or_default())
        };
        assert_eq!(
            refused("viewer/eve", "Control/Deploy"),
            "viewer/eve may not do this | command: baton deploy, allowed to: ci, deployer, admin | \
             ask one of those, or an admin for a token of that role: baton token create --role ci"
        );
        assert!(refused("deployer/ana", "Control/LabelHost").contains("baton hosts label, allowed to: admin | "));
        assert!(refused("admin/ana", "AgentLink/Connect").ends_with("this is for agents on hosts, and no operator's"));
    }

    #[test]
    fn odd_paths_are_no_methods_not_even_for_an_admin() {
        for path in [
            "",
            "/",
            "baton.v1.Control/Status",
            "//baton.v1.Control/Status",
            "/baton.v1.Control/Status/",
            "/baton.v1.Control//Status",
            "/baton.v1.control/status",
            "/baton.v1.Control/%53tatus",
            "/baton.v1.Control/Status?x",
            "/baton.v1.Enrollment/../Control/Status",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(authorise(&identity("admin/ana"), path).unwrap_err().code, code::NOT_UNDERSTOOD, "{path}");
        }
    }
}
