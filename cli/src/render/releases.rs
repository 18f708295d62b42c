//! Releases and tokens, as tables.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{bytes, counted, millis};
use baton_proto::v1::{ReleaseList, TokenList};

#[must_use]
pub fn releases(list: &ReleaseList) -> Page {
    if list.releases.is_empty() {
        let mut page = Page::new();
        page.text("no release yet");
        return page;
    }
    let mut table = Table::new(&["SERVICE", "VERSION", "RELEASE", "ROLE", "SIZE", "ARTIFACT", "HELD BY"]);
    for release in &list.releases {
        let tone = if release.role == "live" { Tone::Good } else { Tone::Plain };
        table.row(vec![
            Line::of(&release.service),
            Line::of(&release.version),
            // One version may be several releases: another artifact, or another configuration.
            Line::of(release.id.chars().take(12).collect::<String>()),
            Line::default().span(tone, release.role.clone()),
            Line::of(bytes(release.artifact_size)),
            Line::of(release.artifact_digest.chars().take(12).collect::<String>()),
            Line::of(release.held_by.join(", ")),
        ]);
    }
    table.page()
}

#[must_use]
pub fn tokens(list: &TokenList) -> Page {
    if list.tokens.is_empty() {
        let mut page = Page::new();
        page.text("no token that can still be redeemed");
        return page;
    }
    let mut table = Table::new(&["TOKEN", "ROLE", "USES LEFT", "EXPIRES IN", "NAMES", "SERVICES"]);
    for token in &list.tokens {
        table.row(vec![
            Line::of(&token.id),
            Line::of(&token.role),
            Line::of(counted(token.uses_left.into(), "use", "uses")),
            Line::of(millis(token.ttl_left_ms)),
            Line::of(if token.names.is_empty() { "any that is free".to_owned() } else { token.names.join(", ") }),
            Line::of(if token.services.is_empty() { "all".to_owned() } else { token.services.join(", ") }),
        ]);
    }
    table.page()
}

#[cfg(test)]
mod tests {
    use super::{releases, tokens};
    use crate::render::page::Look;
    use baton_proto::v1::{ReleaseList, ReleaseView, TokenList, TokenView};

    #[test]
    fn releases_say_their_role_and_who_holds_them() {
        let release = ReleaseView {
            service: "shop".into(),
            version: "2.1.0".into(),
            id: "5c0ffee5c0ffee5c".into(),
            artifact_digest: "77ab01cd23ef4567".into(),
            artifact_size: 31_200_000,
            role: "live".into(),
            held_by: vec!["web1".into(), "web2".into()],
        };
        assert_eq!(
            releases(&ReleaseList { releases: vec![release] }).to_text(Look::default()),
            "SERVICE   VERSION   RELEASE        ROLE   SIZE      ARTIFACT       HELD BY\n\
             shop      2.1.0     5c0ffee5c0ff   live   31.2 MB   77ab01cd23ef   web1, web2\n"
        );
        assert_eq!(releases(&ReleaseList::default()).to_text(Look::default()), "no release yet\n");
    }

    #[test]
    fn tokens_are_listed_without_their_secret() {
        let token = TokenView {
            id: "t-1".into(),
            role: "host".into(),
            uses_left: 1,
            ttl_left_ms: 3_540_000,
            ..TokenView::default()
        };
        assert_eq!(
            tokens(&TokenList { tokens: vec![token] }).to_text(Look::default()),
            "TOKEN   ROLE   USES LEFT   EXPIRES IN   NAMES              SERVICES\n\
             t-1     host   1 use       59 min       any that is free   all\n"
        );
    }
}
