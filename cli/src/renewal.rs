//! An operator's certificate renews itself: by whatever command comes after two thirds of its life.

use crate::connection::{ConnectArgs, Login, login};
use crate::errors::code;
use crate::output::Output;
use crate::render::page::Page;
use crate::verbs::login::request;
use baton_core::problem::Problem;
use baton_proto::identity::{Identity, Role};
use baton_proto::renewal::renew;
use rustix::fs::{FlockOperation, flock};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A command waits no longer for this: the next one tries again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Renews the login of this machine when it is time. It never keeps a command from being carried out: what goes wrong is a
/// note, and only near the end of the certificate.
pub async fn when_due(connect: &ConnectArgs, output: &Output) {
    let Some((folder, kept)) = login(connect) else { return };
    let Ok(subject) = kept.credentials.subject() else { return };
    // A pipeline's ends when its token said.
    if matches!(subject.identity, Identity::Operator { role: Role::Ci, .. }) {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if !(subject.renew_at()..subject.not_after).contains(&now) {
        return;
    }
    let outcome = tokio::time::timeout(PATIENCE, renewed(&folder, kept)).await;
    let late = || Problem::new(baton_proto::problem::code::NO_ANSWER, "the coordinator did not answer in time");
    if let Err(problem) = outcome.unwrap_or_else(|_| Err(late())) {
        let days = (subject.not_after - now) / (24 * 3600);
        output.note(Page::new().text(format!("this login was not renewed and ends in {days} days: {problem}")));
    }
}

async fn renewed(folder: &Path, kept: Login) -> Result<(), Problem> {
    let cannot = |error: &dyn std::fmt::Display| {
        Problem::new(code::LOGIN, "the login cannot be renewed").saw("cause", error.to_string())
    };
    // Two commands at once must not mix the key of one with the certificate of the other.
    let lock = std::fs::File::open(folder).map_err(|error| cannot(&error))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let (key, csr) = request().map_err(|error| cannot(&error))?;
    let credentials = renew(&kept.coordinator, &kept.credentials, key, csr).await?;
    Ok(credentials.save(folder)?)
}
