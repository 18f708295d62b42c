//! Authorities, and who has a certificate of which.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::duration;
use baton_proto::v1::{AuthorityFacts, AuthorityView, BearerView};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Digits of a fingerprint that people compare; `--json` has all of them.
const SHORT: usize = 12;

#[must_use]
pub fn status(view: &AuthorityView) -> Page {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    at(view, i64::try_from(now).unwrap_or(i64::MAX))
}

/// What people call an authority.
#[must_use]
pub fn name_of(authority: &AuthorityFacts) -> &str {
    authority.name.trim_start_matches("CN=")
}

fn at(view: &AuthorityView, now: i64) -> Page {
    let mut table = Table::new(&["AUTHORITY", "FINGERPRINT", "VALID SINCE", "ENDS", "STATE"]);
    for authority in &view.authorities {
        table.row(vec![
            Line::of(name_of(authority)),
            Line::of(short(&authority.fingerprint)),
            Line::of(format!("{} ago", apart(authority.from_seconds, now))),
            Line::of(format!("in {}", apart(now, authority.until_seconds))),
            match authority.signs {
                true => Line::default().span(Tone::Good, "signs"),
                false => Line::default().span(Tone::Busy, "believed until it is retired"),
            },
        ]);
    }
    let mut page = table.page();
    if view.bearers.is_empty() {
        page.text("nobody has joined or logged in yet");
        return page;
    }
    page.line(Line::default());
    let mut table = Table::new(&["IDENTITY", "SERIAL", "AUTHORITY", "ENDS", "STATE"]);
    for bearer in &view.bearers {
        table.row(vec![
            Line::of(&bearer.identity),
            Line::of(&bearer.serial),
            Line::of(short(&bearer.authority)),
            Line::of(format!("in {}", apart(now, bearer.expires_seconds))),
            state(view, bearer),
        ]);
    }
    page.extend(table.page());
    page
}

fn state(view: &AuthorityView, bearer: &BearerView) -> Line {
    match (view.authorities.len(), bearer.moved) {
        (0 | 1, _) => Line::default().span(Tone::Good, "accepted"),
        (_, true) => Line::default().span(Tone::Good, "moved"),
        (_, false) if bearer.identity.starts_with("ci/") => Line::default().span(Tone::Busy, "to log in again"),
        (_, false) => Line::default().span(Tone::Busy, "to move"),
    }
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(SHORT).collect()
}

fn apart(from: i64, to: i64) -> String {
    duration(Duration::from_secs(u64::try_from(to.saturating_sub(from)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::page::Look;

    const DAY: i64 = 86_400;

    #[test]
    fn who_has_moved_and_who_has_not_is_one_look() {
        let authority = |fingerprint: &str, name: &str, signs| AuthorityFacts {
            fingerprint: fingerprint.repeat(8),
            name: name.into(),
            from_seconds: 0,
            until_seconds: 3650 * DAY,
            signs,
        };
        let bearer = |identity: &str, fingerprint: &str, moved| BearerView {
            identity: identity.into(),
            serial: "4a01".into(),
            authority: fingerprint.repeat(8),
            expires_seconds: 90 * DAY,
            moved,
        };
        let mut view = AuthorityView {
            authorities: vec![
                authority("0b1c2d3e", "CN=Baton authority 5f6a7b8c", true),
                authority("a1a2a3a4", "CN=Baton authority", false),
            ],
            bearers: vec![
                bearer("ci/pipeline", "a1a2a3a4", false),
                bearer("host/web1", "0b1c2d3e", true),
                bearer("host/web2", "a1a2a3a4", false),
            ],
        };
        assert_eq!(
            at(&view, DAY).to_text(Look::default()),
            "AUTHORITY                  FINGERPRINT    VALID SINCE   ENDS        STATE\n\
             Baton authority 5f6a7b8c   0b1c2d3e0b1c   1 d ago       in 3649 d   signs\n\
             Baton authority            a1a2a3a4a1a2   1 d ago       in 3649 d   believed until it is retired\n\
             \n\
             IDENTITY      SERIAL   AUTHORITY      ENDS      STATE\n\
             ci/pipeline   4a01     a1a2a3a4a1a2   in 89 d   to log in again\n\
             host/web1     4a01     0b1c2d3e0b1c   in 89 d   moved\n\
             host/web2     4a01     a1a2a3a4a1a2   in 89 d   to move\n"
        );
        view.authorities.truncate(1);
        view.bearers.truncate(0);
        assert!(at(&view, DAY).to_text(Look::default()).ends_with("nobody has joined or logged in yet\n"));
    }
}
