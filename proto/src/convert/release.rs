//! Releases and probes.

use super::{InvalidMessage, bytes, digest, duration, millis, parse, present, required};
use crate::v1;
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::secret::{InvalidSecret, Secret};

impl From<&Release> for v1::Release {
    fn from(release: &Release) -> Self {
        Self {
            service: release.service.to_string(),
            version: release.version.to_string(),
            artifact_digest: bytes(release.artifact.digest),
            artifact_size: release.artifact.size,
            command: release.run.command.clone(),
            user: release.run.user.clone().unwrap_or_default(),
            env: release.run.env.clone(),
            secrets: release.run.secrets.iter().map(|(name, secret)| (name.clone(), secret.to_string())).collect(),
            stop_signal: release.run.stop.signal.name().to_owned(),
            stop_timeout_ms: millis(release.run.stop.timeout),
            probe: Some((&release.health.probe).into()),
            probe_interval_ms: millis(release.health.interval),
            probe_timeout_ms: millis(release.health.timeout),
            healthy_for_ms: millis(release.health.healthy_for),
            start_timeout_ms: millis(release.health.start_timeout),
            listen: release.run.listen.iter().map(ToString::to_string).collect(),
            hooks: super::hooks::write(&release.hooks),
        }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = InvalidMessage;
    fn try_from(message: v1::Release) -> Result<Self, InvalidMessage> {
        let signal = Signal::from_name(&message.stop_signal).ok_or_else(|| {
            InvalidMessage::new("stop_signal", format!("`{}` is not a signal to stop with", message.stop_signal))
        })?;
        for (key, value) in &message.env {
            let invalid = |what: &str| Err(InvalidMessage::new(format!("env[{key}]"), what));
            if key.is_empty() || key.contains(['=', '\0']) {
                return invalid("not the name of an environment variable");
            }
            if value.contains('\0') {
                return invalid("holds a NUL character");
            }
        }
        Ok(Self {
            service: parse("service", &message.service)?,
            version: parse("version", &message.version)?,
            artifact: Artifact { digest: digest("artifact_digest", &message.artifact_digest)?, size: message.artifact_size },
            run: Run {
                command: command("command", message.command)?,
                user: Some(message.user).filter(|user| !user.is_empty()),
                env: message.env,
                secrets: message.secrets.into_iter().map(secret).collect::<Result<_, _>>()?,
                stop: Stop { signal, timeout: duration("stop_timeout_ms", message.stop_timeout_ms)? },
                listen: message.listen.iter().map(|address| parse("listen", address)).collect::<Result<_, _>>()?,
            },
            health: Health {
                probe: required("probe", message.probe)?,
                interval: duration("probe_interval_ms", message.probe_interval_ms)?,
                timeout: duration("probe_timeout_ms", message.probe_timeout_ms)?,
                healthy_for: duration("healthy_for_ms", message.healthy_for_ms)?,
                start_timeout: duration("start_timeout_ms", message.start_timeout_ms)?,
            },
            hooks: super::hooks::read(message.hooks)?,
        })
    }
}

/// A name that is safe as a file's, and a reference.
fn secret((name, reference): (String, String)) -> Result<(String, Secret), InvalidMessage> {
    let field = || format!("secrets[{}]", name.chars().take(64).collect::<String>());
    if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(InvalidMessage::new(field(), "not the name of a secret"));
    }
    let secret = reference.parse().map_err(|error: InvalidSecret| InvalidMessage::new(field(), error.to_string()))?;
    Ok((name, secret))
}

impl From<&Probe> for v1::Probe {
    fn from(probe: &Probe) -> Self {
        use v1::probe::Kind;
        let kind = match probe {
            Probe::Http { path } => Kind::Http(v1::HttpProbe { path: path.to_string() }),
            Probe::Tcp => Kind::Tcp(v1::TcpProbe {}),
            Probe::Exec { command } => Kind::Exec(v1::ExecProbe { command: command.clone() }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Probe> for Probe {
    type Error = InvalidMessage;
    fn try_from(message: v1::Probe) -> Result<Self, InvalidMessage> {
        use v1::probe::Kind;
        Ok(match present("kind", message.kind)? {
            Kind::Http(http) => Self::Http { path: path("http.path", http.path)?.into() },
            Kind::Tcp(v1::TcpProbe {}) => Self::Tcp,
            Kind::Exec(exec) => Self::Exec { command: command("exec.command", exec.command)? },
        })
    }
}

/// A path that is one word of a request line: anything else could become a second header, or a second request.
fn path(field: &str, path: String) -> Result<String, InvalidMessage> {
    if !path.starts_with('/') {
        return Err(InvalidMessage::new(field, "a path starts with `/`"));
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(InvalidMessage::new(field, "holds white space or a control character"));
    }
    Ok(path)
}

pub(super) fn command(field: &str, command: Vec<String>) -> Result<Vec<String>, InvalidMessage> {
    if command.first().is_none_or(String::is_empty) {
        return Err(InvalidMessage::new(field, "names no program"));
    }
    if command.iter().any(|argument| argument.contains('\0')) {
        return Err(InvalidMessage::new(field, "holds a NUL character"));
    }
    Ok(command)
}
