//! An operator's certificate renews itself: by whatever command comes after two thirds of its life, and by one that learned of
//! another authority.

use crate::connection::{ConnectArgs, Login, login};
use crate::errors::code;
use crate::output::Output;
use crate::render::page::Page;
use crate::verbs::login::request;
use baton_core::problem::Problem;
use baton_proto::identity::{Identity, Role, Subject};
use baton_proto::renewal;
use rustix::fs::{FlockOperation, flock};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A command waits no longer for this: the next one tries again.
const PATIENCE: Duration = Duration::from_secs(3);

/// The file whose lock says that a command renews.
const LOCK: &str = "renewal.lock";

/// Renews the login of this machine when it is time. It never keeps a command from being carried out: what goes wrong is a
/// note, and only near the end of the certificate.
pub async fn when_due(connect: &ConnectArgs, output: &Output) {
    let Some((folder, kept)) = login(connect) else { return };
    let Ok(subject) = kept.credentials.subject() else { return };
    if is_pipeline(&subject) {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if !(subject.renew_at()..subject.not_after).contains(&now) {
        return;
    }
    if let Err(problem) = in_time(&folder, kept).await {
        let days = (subject.not_after - now) / (24 * 3600);
        output.note(Page::new().text(format!("this login was not renewed and ends in {days} days: {problem}")));
    }
}

/// Renews the login of this machine once a handshake showed that the coordinator leads to other authorities than those it
/// believes: by that it moves to the one that signs now. Nor does this keep a command from anything.
pub async fn when_noticed(connect: &ConnectArgs, output: &Output) {
    if !connect.notice.is_set() {
        return;
    }
    let Some((folder, kept)) = login(connect) else { return };
    if kept.credentials.subject().is_ok_and(|subject| is_pipeline(&subject)) {
        return;
    }
    // Whose certificate is refused is told so by the command itself.
    if let Err(problem) = in_time(&folder, kept).await
        && problem.code != baton_proto::problem::code::REFUSED
    {
        let what =
            format!("this login has not moved to the coordinator's authority yet, the next command tries again: {problem}");
        output.note(Page::new().text(what));
    }
}

/// A pipeline's certificate ends when its token said.
const fn is_pipeline(subject: &Subject) -> bool {
    matches!(subject.identity, Identity::Operator { role: Role::Ci, .. })
}

async fn in_time(folder: &Path, kept: Login) -> Result<(), Problem> {
    let late = || Problem::new(baton_proto::problem::code::NO_ANSWER, "the coordinator did not answer in time");
    tokio::time::timeout(PATIENCE, renewed(folder, kept)).await.unwrap_or_else(|_| Err(late()))
}

async fn renewed(folder: &Path, kept: Login) -> Result<(), Problem> {
    let cannot = |error: &dyn std::fmt::Display| {
        Problem::new(code::LOGIN, "the login cannot be renewed").saw("cause", error.to_string())
    };
    // Two commands at once need not both renew. A file of its own: the folder itself is locked while credentials are written.
    let lock = std::fs::File::create(folder.join(LOCK)).map_err(|error| cannot(&error))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let (key, csr) = request().map_err(|error| cannot(&error))?;
    let credentials = renewal::renew(&kept.coordinator, &kept.credentials, key, csr).await?;
    credentials.save(folder)?;
    // Where this does not arrive, the next command shows it.
    let _ = renewal::kept(&kept.coordinator, &credentials).await;
    Ok(())
}
