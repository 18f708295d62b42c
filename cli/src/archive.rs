//! Whether hosts will take an archive, asked of the very reader that they have.

use baton_agent::artifact;
use baton_core::problem::Problem;
use std::path::Path;

/// Reads an archive as a host would.
///
/// # Errors
/// What a host would refuse it for, with the entry.
pub fn check(path: &Path) -> Result<(), Problem> {
    artifact::check(path).map_err(|problem| problem.saw("artifact", path.display().to_string()))
}
