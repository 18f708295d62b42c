//! The command line's grammar.

use crate::connection::ConnectArgs;
use crate::demo::{DemoArgs, PartArgs};
use crate::verbs::{
    agents, audit, authority, balancers, certificates, completions, config, deploy, doctor, explain, freeze, history, hosts,
    init, login, plan, reboot, recover, releases, renew, retry, rollback, services, status, steer, support_bundle, token,
    watch, why,
};
use clap::{Args, Parser, Subcommand};

/// Replaces the version of a service on servers you own, without one failed request.
#[derive(Debug, Parser)]
#[command(name = "baton", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub format: FormatArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done, or nothing to do
    1  error before anything changed
    2  usage
    3  waiting: paused
    4  failed and rolled back; the service is healthy on the old release
    5  failed, needs a person
    6  aborted by a person
    7  refused
    8  waiting timed out; the rollout goes on
   10  plan --exit-code: there are changes
  130  interrupted; the rollout goes on";

/// How the answer is written.
#[derive(Debug, Clone, Default, Args)]
pub struct FormatArgs {
    /// One JSON document on stdout
    #[arg(long, global = true, conflicts_with = "json_lines", help_heading = "Output")]
    pub json: bool,
    /// One JSON document a line on stdout, as things happen
    #[arg(long, global = true, help_heading = "Output")]
    pub json_lines: bool,
    /// No colour, no boxes, no redrawing
    #[arg(long, global = true, help_heading = "Output")]
    pub plain: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Bring a service to a version, and wait until it is live or taken back
    Deploy(deploy::DeployArgs),
    /// Show what a deploy would do; changes nothing
    Plan(plan::PlanArgs),
    /// Show services, their hosts and rollouts
    Status(status::StatusArgs),
    /// Follow a rollout until it ends
    Watch(watch::WatchArgs),
    /// List rollouts, and what the load balancers counted of each
    History(history::HistoryArgs),
    /// Show one rollout: how it ended, what was counted, what spoke against it
    Show(history::ShowArgs),
    /// Say why a service or a host is as it is, and what would help
    Why(why::WhyArgs),
    /// Go back: turn the rollout under way round, or return to the release before
    Rollback(rollback::RollbackArgs),
    /// Hold the rollout under way: hosts that have begun are finished, no other begins
    Pause(steer::PauseArgs),
    /// Let a paused rollout go on
    Resume(steer::ResumeArgs),
    /// Let a rollout that asks for it go on, or end the watch of its wave
    Promote(steer::PromoteArgs),
    /// Give the rollout under way up and go back; with --keep, end it where it stands
    Abort(rollback::AbortArgs),
    /// Try again what failed or was given up, and take skipped hosts back in
    Retry(retry::RetryArgs),
    /// Leave a host out of rollouts, by name and on the record
    Skip(retry::SkipArgs),
    /// Start every instance anew, host by host, on the release it has
    Restart(renew::RestartArgs),
    /// Drain one host, start it anew and bring it back, and tell how long each part took
    Rehearse(renew::RehearseArgs),
    /// Refuse new releases for a while; going back stays possible
    Freeze(freeze::FreezeArgs),
    /// End a freeze
    Unfreeze(freeze::UnfreezeArgs),
    /// List services, or remove one
    Services(services::ServicesArgs),
    /// List hosts, show one, take one out for work on it, or remove it
    Hosts(hosts::HostsArgs),
    /// The agents' own packages: what each host runs; bring another one to them in rings
    Agents(agents::AgentsArgs),
    /// Reboot hosts one after the other, each drained before and put back after
    Reboot(reboot::RebootArgs),
    /// Let a coordinator that was restored from a backup go on without hosts it has not heard
    Recover(recover::RecoverArgs),
    /// Load balancers: what they should serve, and what they do
    Balancers(balancers::BalancersArgs),
    /// List releases
    Releases(releases::ReleasesArgs),
    /// Tokens that let hosts join and operators log in
    Token(token::TokenArgs),
    /// Certificates of hosts and operators: who has one, until when; take one away
    Certificates(certificates::CertificatesArgs),
    /// The authority that signs certificates: put another one in its place, while hosts may be away
    Authority(authority::AuthorityArgs),
    /// Look at this machine, the coordinator and the fleet, and say what is wrong and what mends it
    Doctor(doctor::DoctorArgs),
    /// Collect what somebody who helps needs to see into one file, without secrets
    SupportBundle(support_bundle::SupportBundleArgs),
    /// The audit log: who did what, from where, and what it changed
    Audit(audit::AuditArgs),
    /// Keep credentials for a coordinator on this machine
    Login(login::LoginArgs),
    /// Write a commented baton.toml to start from; never overwrites
    Init(init::InitArgs),
    /// Check a manifest, or show it with every default
    Config(config::ConfigArgs),
    /// A fleet on this machine, a rolling release, a broken one taken back: nothing to set up, nothing left behind
    Demo(DemoArgs),
    /// One process of the demo
    #[command(hide = true)]
    DemoPart(PartArgs),
    /// Explain an error code such as B0210
    Explain(explain::ExplainArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the version
    Version,
}

#[cfg(test)]
mod tests {
    use super::{Cli, Verb};
    use crate::exit::Exit;
    use clap::{CommandFactory, Parser};
    use std::time::Duration;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_takes_json_before_and_after_it() {
        for verb in [
            "deploy 2.1.0",
            "plan 2.1.0",
            "status",
            "watch",
            "why",
            "history",
            "history shop --limit 3",
            "show r-1",
            "rollback",
            "pause",
            "resume",
            "abort",
            "abort --keep",
            "abort shop --queued r-9",
            "retry shop web1",
            "skip shop web1",
            "restart",
            "rehearse shop web1",
            "freeze shop --why holidays",
            "freeze --all --why holidays --for 3d",
            "unfreeze --all",
            "recover --without web1 --why burnt",
            "services",
            "services remove shop --yes",
            "hosts accept web1 web2",
            "hosts accept --all",
            "hosts drain web1 --stop",
            "hosts undrain web1",
            "hosts remove web1 --force",
            "rollback --to 2.0.4",
            "rollback shop --force",
            "skip shop --hook migrate --why looked",
            "deploy 2.1.0 --queue",
            "deploy 2.1.0 --supersede",
            "hosts",
            "hosts show web1",
            "agents",
            "agents status",
            "agents upgrade --package a.deb --hosts web1,web2 --rings 1,50% --yes",
            "agents pause --why lunch",
            "agents resume --no-wait",
            "agents abort",
            "reboot",
            "reboot web1 web2 --at-once 2 --back-within 5m --yes",
            "reboot --service shop",
            "reboot --all --why kernel",
            "reboot --pause",
            "reboot --resume --no-wait",
            "reboot --cancel",
            "balancers",
            "balancers show lb1",
            "balancers drift",
            "releases",
            "releases shop",
            "releases list shop",
            "token create",
            "token list",
            "token revoke t-1",
            "certificates list",
            "doctor",
            "support-bundle b.tar.zst",
            "audit list",
            "audit verify",
            "audit verify --file audit.jsonl",
            "audit accept --why restored --yes",
            "audit export",
            "certificates revoke host/web1",
            "authority",
            "authority rotate --why leaked",
            "authority retire --force",
            "login c:7443 --token-file t",
            "init",
            "config check",
            "config show",
            "config explain run.ports",
            "explain B0210",
            "completions bash",
            "version",
        ] {
            let cli = parse(&format!("baton {verb} --json")).unwrap();
            assert!(cli.format.json, "{verb}");
            assert!(parse(&format!("baton --json {verb}")).unwrap().format.json, "{verb}");
        }
    }

    #[test]
    fn deploy_takes_a_version_or_a_service_and_a_version() {
        for (line, service, version) in
            [("baton deploy 2.1.0", None, "2.1.0"), ("baton deploy shop 2.1.0", Some("shop"), "2.1.0")]
        {
            let Verb::Deploy(args) = parse(line).unwrap().verb else { panic!("{line}") };
            assert_eq!((args.target.service(), args.target.version()), (service, version));
        }
        let Verb::Deploy(args) = parse("baton deploy shop 2.1.0 --no-wait").unwrap().verb else { panic!() };
        assert!(args.wait.no_wait);
        let Verb::Deploy(args) = parse("baton deploy 2.1.0 --timeout 5m").unwrap().verb else { panic!() };
        assert_eq!(args.wait.timeout, Some(Duration::from_secs(300)));
    }

    #[test]
    fn a_wrong_command_line_ends_with_2() {
        for line in [
            "baton",
            "baton deploy",
            "baton deploy a b c",
            "baton depoly",
            "baton status --json --json-lines",
            "baton deploy 1 --timeout x",
            "baton deploy 1 --queue --supersede",
            "baton abort --keep --queued",
            "baton freeze --why x",
            "baton freeze shop --all --why x",
            "baton freeze shop",
            "baton skip",
            "baton reboot web1 --all",
            "baton reboot --service shop --cancel",
            "baton reboot web1 --at-once 0",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), i32::from(Exit::Usage.code()), "{line}");
        }
    }
}
