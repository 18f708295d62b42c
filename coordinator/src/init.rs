//! The first minute of a coordinator: an authority, a certificate of its own, an empty store.

use crate::artifact::Folder;
use crate::config::Config;
use crate::identity::authority::Authority;
use crate::identity::brought::{AuthorityFiles, bring};
use crate::identity::issuance::Issuance;
use crate::identity::rotation::Authorities;
use crate::identity::wall_time;
use crate::state::StateFolder;
use crate::store::sqlite::SqliteStore;
use baton_core::problem::{Code, Problem};

/// What there is after `init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initialised {
    /// False: it had been done before, and nothing was changed.
    pub fresh: bool,
    /// The hash of the authority, which join tokens pin.
    pub pin: [u8; 32],
}

/// Makes what a coordinator needs, once. Run again, it changes nothing; it never replaces an authority.
///
/// # Errors
/// When the state folder cannot be made or written, or holds what this version does not understand.
pub async fn init(config: &Config) -> Result<Initialised, Problem> {
    init_with(config, None).await
}

/// The same, with an authority that was there before where one is given.
///
/// # Errors
/// Those of [`init`]; what is wrong with the authority that was brought; B1008 when this coordinator has another one.
pub async fn init_with(config: &Config, brought: Option<&AuthorityFiles>) -> Result<Initialised, Problem> {
    // Before anything is made: a refusal leaves nothing behind.
    if let Some(files) = brought {
        files.read(wall_time())?;
    }
    let state = match StateFolder::open(&config.state) {
        Ok(state) => state,
        Err(held) if held.code == Code(1003) => {
            // A coordinator runs from here: then everything is there already.
            let authorities = Authorities::load(&config.state.join("identity")).map_err(|_| held)?;
            if let Some(files) = brought {
                bring(files, &config.state.join("identity"), wall_time())?;
            }
            return Ok(Initialised { fresh: false, pin: authorities.signer.pin() });
        }
        Err(problem) => return Err(problem),
    };
    // The store comes first and the authority's certificate last: the service starts when it sees that.
    SqliteStore::open(&state.store()).await.map_err(|error| error.problem())?.close().await;
    Folder::open(&state.artifacts())?;
    let folder = state.identity();
    Authorities::finish(&folder)?;
    let fresh = match (brought, Authorities::load(&folder)) {
        (Some(files), _) => bring(files, &folder, wall_time())?.1,
        (None, Ok(_)) => false,
        (None, Err(problem)) if problem.code == Code(1002) => Authority::create(&folder, wall_time()).map(|_| true)?,
        (None, Err(problem)) => return Err(problem),
    };
    let issuance = Issuance::open(&folder, config.life())?;
    Ok(Initialised { fresh, pin: issuance.current().signer.pin() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn config(folder: &tempfile::TempDir) -> Config {
        Config { state: folder.path().join("state"), ..Config::default() }
    }

    #[tokio::test]
    async fn init_run_twice_keeps_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        let first = init(&config(&folder)).await.unwrap();
        let second = init(&config(&folder)).await.unwrap();
        assert_eq!((first.fresh, second.fresh), (true, false));
        assert_eq!(first.pin, second.pin);
    }

    #[tokio::test]
    async fn init_beside_a_running_coordinator_says_that_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let first = init(&config(&folder)).await.unwrap();
        let _running = StateFolder::open(&config(&folder).state).unwrap();
        assert_eq!(init(&config(&folder)).await.unwrap(), Initialised { fresh: false, ..first });
    }

    #[tokio::test]
    async fn init_never_replaces_an_authority_it_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        init(&config(&folder)).await.unwrap();
        let path = config(&folder).state.join("identity/authority.pem");
        fs::write(&path, "not a certificate").unwrap();
        assert_eq!(init(&config(&folder)).await.unwrap_err().code, Code(1004));
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a certificate");
    }
}
