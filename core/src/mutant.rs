//! Old mistakes of others, made again on purpose: only under `--cfg mutant`, in the crates of `tests/mutants`, for the test that must
//! catch each.
//!
//! Everywhere else the question is the constant `false`, so that nothing of them is in what is shipped. It is a `cfg` of the
//! compiler and no feature, because features of one crate leak into the build of another.

/// Whether the mistake of this name is to be made.
#[cfg(not(mutant))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// Whether the mistake of this name is to be made.
#[cfg(mutant)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::lives($name)
    };
}

#[cfg(mutant)]
static CHOSEN: std::sync::RwLock<Option<&'static str>> = std::sync::RwLock::new(None);

/// From now on this mistake is made, and no other.
#[cfg(mutant)]
pub fn choose(name: Option<&'static str>) {
    if let Ok(mut chosen) = CHOSEN.write() {
        *chosen = name;
    }
}

/// Whether this is the mistake that was chosen.
#[cfg(mutant)]
#[must_use]
pub fn lives(name: &str) -> bool {
    CHOSEN.read().is_ok_and(|chosen| *chosen == Some(name))
}
