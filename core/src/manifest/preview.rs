//! `[balancer] preview`: who looks at the new release before the switch.

use super::codes;
use super::reader::{Finding, Reader, quoted};
use crate::fleet::split::{Rule, RuleAt};
use crate::strategy::{Strategy, Wave};

/// Where it is said whose requests, and what stands between the name and the value there.
const PLACES: [(&str, RuleAt, char, &str); 2] = [
    ("balancer.preview.header", RuleAt::Header, ':', "X-Preview: 1"),
    ("balancer.preview.cookie", RuleAt::Cookie, '=', "preview=1"),
];

/// The strategy with a preview before its switch, where one is asked for; None: reported.
pub(super) fn preview(reader: &mut Reader<'_, '_>, strategy: Option<Strategy>) -> Option<Strategy> {
    let given: Vec<_> = PLACES.into_iter().filter(|(place, ..)| reader.value(place).is_some()).collect();
    let (place, at, between, example) = match given.as_slice() {
        [] => return strategy,
        [only] => *only,
        [_, (second, ..), ..] => {
            let finding = Finding::error(codes::CONTRADICTION, reader.span(second), "a preview has one rule, not two");
            reader.report(finding.label("again").help("say either header or cookie"));
            return None;
        }
    };
    let rule = rule(reader, place, (at, between, example))?;
    let strategy = strategy?;
    if !strategy.lockstep {
        let what = format!("{} has no switch that a preview could come before", strategy.word());
        let finding = Finding::error(codes::CONTRADICTION, reader.span(place), what).label("needs one switch");
        reader.report(finding.help("use strategy = \"blue-green\", or rollout.match for whose requests come first"));
        return None;
    }
    if reader.value("rollout.approve").is_some() && strategy.waves.iter().all(|wave| !wave.approve) {
        let what = "the switch waits for a person's word, or nobody could look before";
        let finding = Finding::error(codes::CONTRADICTION, reader.span("rollout.approve"), what).label("asks for nobody's");
        reader.report(finding.help("leave rollout.approve out, or balancer.preview"));
        return None;
    }
    Some(before_the_switch(strategy, rule))
}

/// Both releases everywhere, and whom the rule names alone reaches the new one; then a person's word, and the switch.
fn before_the_switch(mut strategy: Strategy, rule: Rule) -> Strategy {
    strategy.waves.iter_mut().for_each(|wave| wave.approve = true);
    strategy.waves.insert(0, Wave::preview());
    strategy.users.rules = vec![rule];
    strategy
}

fn rule(reader: &mut Reader<'_, '_>, place: &'static str, (at, between, example): (RuleAt, char, &str)) -> Option<Rule> {
    let text = reader.text(place)?;
    let said = text.get_ref();
    let rule =
        said.split_once(between).and_then(|(name, value)| format!("{at} {} = {}", name.trim(), value.trim()).parse().ok());
    if rule.is_none() {
        let finding = Finding::error(codes::BAD_RULE, text.span(), format!("{} is no {at}", quoted(said)));
        let finding = finding.label(format!("not as in \"{example}\""));
        reader.report(finding.help("values are visible ASCII without spaces, quotes, commas and semicolons"));
    }
    rule
}
