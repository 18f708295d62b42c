//! The `nginx` command, and what it says of a configuration.

use super::NginxConfig;
use super::logs::{HttpLog, Logs};
use super::page;
use crate::balancer::problem;
use baton_core::problem::Problem;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// For a test of the configuration. One that looks up names or reads a thousand certificates takes its time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A configuration nginx accepts, with every file it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    text: String,
    pub(super) logs: Logs,
}

/// Has nginx read its configuration as it is on disk now.
///
/// # Errors
/// nginx's own message, when it refuses.
pub(super) async fn test(config: &NginxConfig) -> Result<Accepted, Problem> {
    let mut command = Command::new(&config.binary);
    command.arg("-T").stdin(Stdio::null()).kill_on_drop(true);
    command.args(config.prefix.iter().flat_map(|prefix| ["-p".as_ref(), prefix.as_os_str()]));
    command.args(config.config.iter().flat_map(|file| ["-c".as_ref(), file.as_os_str()]));
    let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(problem::nginx_missing(&config.binary, &error)),
        Err(_) => return Err(problem::config_refused("nginx", "`nginx -t` is not done after 5 s")),
    };
    if output.status.success() {
        return Ok(Accepted::of(String::from_utf8_lossy(&output.stdout).into_owned(), config));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let worst = said.lines().find(|line| line.contains("[emerg]")).or_else(|| said.lines().last());
    Err(problem::config_refused("nginx", worst.unwrap_or("it said nothing")))
}

/// Baton's file, as nginx names it.
fn own<'a>(text: &'a str, config: &NginxConfig) -> Option<&'a str> {
    let real = std::fs::canonicalize(&config.include).ok();
    let mut files = text.lines().filter_map(|line| line.strip_prefix("# configuration file ")?.strip_suffix(':'));
    files.find(|file| config.include == **file || real.is_some() && std::fs::canonicalize(file).ok() == real)
}

impl Accepted {
    fn of(text: String, config: &NginxConfig) -> Self {
        let logs = Logs::of(&text, own(&text, config).unwrap_or_default());
        Self { text, logs }
    }

    /// Whether nginx reads this file at all.
    pub(super) fn includes(&self, config: &NginxConfig) -> bool {
        own(&self.text, config).is_some()
    }

    /// The variables that `proxy_pass` lines send requests by.
    pub(super) fn divided_by(&self) -> BTreeSet<String> {
        let words = self.text.lines().filter_map(|line| line.trim_start().strip_prefix("proxy_pass "));
        let variable = |rest: &str| {
            rest.trim_start()
                .strip_prefix("http://$")
                .map(|name| name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        };
        words.filter_map(variable).collect()
    }

    /// What a reload costs with this configuration, where that can be known and avoided, and whose requests are not counted.
    pub(super) fn notes(&self, version: Option<&str>, config: &NginxConfig) -> Vec<Problem> {
        let says = |directive: &str| {
            self.text.lines().any(|line| line.trim_start().strip_prefix(directive).is_some_and(|rest| rest.starts_with(' ')))
        };
        let keeps_idle = version.is_some_and(|version| at_least(version, [1, 27, 4]));
        let idle = match version {
            Some(version) if !keeps_idle => Some(problem::nginx_too_old(version)),
            Some(_) if !says("keepalive_min_timeout") => Some(problem::nginx_drops_idle()),
            _ => None,
        };
        let cuts = says("worker_shutdown_timeout").then(problem::nginx_cuts_streams);
        let line = page::access_log(config);
        let uncounted = match self.logs.http {
            HttpLog::Chosen if self.logs.unheard.is_empty() => None,
            HttpLog::Chosen => Some(problem::nginx_logs_elsewhere(&self.logs.unheard, line.trim_end())),
            HttpLog::Off => {
                Some(problem::nginx_logs_nothing("`access_log off` in http { } holds for Baton's own line, too"))
            }
            HttpLog::Implied => {
                Some(problem::nginx_logs_nothing("beside Baton's line, nginx would not write its default log"))
            }
        };
        idle.into_iter().chain(cuts).chain(uncounted).collect()
    }
}

fn at_least(version: &str, least: [u32; 3]) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    [0; 3].map(|_: u32| numbers.next().unwrap_or(0)) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NginxConfig {
        NginxConfig {
            drift: crate::balancer::Drift::Correct,
            include: "/etc/nginx/baton.conf".into(),
            status: "127.0.0.1:8079".parse().unwrap(),
            pid_file: "/run/nginx.pid".into(),
            binary: "nginx".into(),
            config: None,
            prefix: None,
            upstream: Vec::new(),
        }
    }

    fn codes(text: &str, version: &str) -> Vec<u16> {
        let config = config();
        let text = format!("{text}\n# configuration file /etc/nginx.conf:\nhttp {{ access_log a; }}\n");
        let accepted = Accepted::of(text, &config);
        accepted.notes(Some(version), &config).iter().map(|note| note.code.0).collect()
    }

    #[test]
    fn what_sends_requests_by_a_variable_is_prepared() {
        let text = "proxy_pass http://$baton_shop;\n  # proxy_pass http://$baton_a;\n  proxy_pass http://till;\n";
        let accepted = Accepted::of(text.to_owned(), &config());
        assert_eq!(accepted.divided_by().into_iter().collect::<Vec<_>>(), ["baton_shop"]);
    }

    #[test]
    fn whose_requests_are_not_counted_is_said() {
        let notes = |http: &str| {
            let accepted = Accepted::of(format!("# configuration file /n.conf:\nhttp {{ {http} }}\n"), &config());
            accepted.notes(None, &config())
        };
        assert_eq!(notes("access_log a; server { proxy_pass http://$baton_a; }"), []);
        let elsewhere = notes("access_log a; server { access_log b; proxy_pass http://$baton_a; }").remove(0);
        assert!(
            elsewhere.help.as_ref().unwrap().contains("access_log syslog:server=127.0.0.1:8079,nohostname,tag=baton baton")
        );
        assert_eq!(["", "access_log off;"].map(|http| notes(http).remove(0).code.0), [446, 446]);
    }

    #[test]
    fn versions_and_directives_that_cost_something_are_named() {
        assert_eq!(codes("http {\n    keepalive_min_timeout 5s;\n}", "1.27.4"), Vec::<u16>::new());
        assert_eq!(codes("http {\n}", "1.31.3"), [433]);
        assert_eq!(codes("    keepalive_min_timeout 5s;", "1.22.1"), [433]);
        assert_eq!(codes("worker_shutdown_timeout 3s;\n# keepalive_min_timeout 5s;", "1.28.0"), [433, 434]);
    }
}
