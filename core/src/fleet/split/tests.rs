//! What holds of every split: monotone, accurate, and the same everywhere.

use super::*;
use std::net::Ipv4Addr;

/// A request with one header and one cookie.
struct Request(&'static str, String, &'static str, String);

impl Asking for Request {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.eq_ignore_ascii_case(name).then_some(self.1.as_bytes())
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        (self.2 == name).then_some(self.3.as_bytes())
    }

    fn source(&self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, 7).into()
    }
}

fn user(number: u32) -> Request {
    Request("X-Beta", "0".to_owned(), "uid", format!("user-{number}"))
}

fn split(share: u16, sticky: Option<&str>, rules: &[&str]) -> TrafficSplit {
    TrafficSplit {
        share: Share::of_places(share),
        sticky: sticky.map(|key| key.parse().unwrap()),
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
    }
}

#[test]
fn nobody_leaves_the_trial_side_while_the_share_grows() {
    for number in 0..2_000 {
        let user = user(number);
        let mut was = Side::Stable;
        for share in (0..=PLACES).step_by(7).chain([PLACES]) {
            let Verdict::Placed(side) = side_of(&split(share, Some("cookie uid"), &[]), &user) else { panic!() };
            assert!(side >= was, "user {number} went back at {share}");
            was = side;
        }
        assert_eq!(was, Side::Trial);
    }
}

#[test]
fn each_place_holds_its_share_of_the_users() {
    const USERS: u32 = 1_000_000;
    let mut places = vec![0u32; usize::from(PLACES)];
    (0..USERS).for_each(|number| places[usize::from(place_of(format!("user-{number}").as_bytes()))] += 1);
    // The mean is 100 users a place; six deviations either way.
    assert!(places.iter().all(|users| (40..=160).contains(users)), "{:?}", places.iter().max());
    for share in [1, 10, 100, 500, 2_500] {
        let users: u32 = places.iter().take(share).sum();
        let wanted = f64::from(USERS) * f64::from(u16::try_from(share).unwrap()) / f64::from(PLACES);
        assert!((f64::from(users) - wanted).abs() < 6.0 * wanted.sqrt(), "{share}: {users} of {wanted}");
    }
}

#[test]
fn a_rule_leads_to_the_trial_side_whatever_the_share() {
    let split = split(0, Some("cookie uid"), &["header x-beta = 1", "cookie cohort = staff"]);
    let request = |beta: &str, cookie, value: &str| Request("X-Beta", beta.to_owned(), cookie, value.to_owned());
    assert_eq!(side_of(&split, &request("1", "uid", "7")), Verdict::Ruled);
    assert_eq!(side_of(&split, &request("0", "cohort", "staff")), Verdict::Ruled);
    assert_eq!(side_of(&split, &request("11", "cohort", "staffer")), Verdict::Placed(Side::Stable));
}

#[test]
fn a_request_without_a_user_is_stable_until_the_share_is_everything() {
    let nobody = Request("X-Beta", String::new(), "other", String::new());
    assert_eq!(side_of(&split(9_999, Some("cookie uid"), &[]), &nobody), Verdict::Placed(Side::Stable));
    assert_eq!(side_of(&split(PLACES, Some("cookie uid"), &[]), &nobody), Verdict::Placed(Side::Trial));
    assert_eq!(side_of(&split(5_000, None, &[]), &nobody), Verdict::Counted);
}

#[test]
fn shares_keys_and_rules_are_read_as_they_are_written() {
    for text in ["0%", "5%", "0.01%", "0.5%", "99.99%", "100%"] {
        assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
    }
    assert_eq!("0.50%".parse::<Share>().unwrap().places(), 50);
    for text in ["5", "-1%", "100.01%", "0.001%", "+5%", ".5%", "5.%", "%", "1e1%", "70000%"] {
        assert!(text.parse::<Share>().is_err(), "{text}");
    }
    for text in ["cookie uid", "header X-User", "source"] {
        assert_eq!(text.parse::<UserKey>().unwrap().to_string(), text);
    }
    for text in ["", "cookie", "cookie a b", "source x", "query uid", "header X:Y"] {
        assert!(text.parse::<UserKey>().is_err(), "{text}");
    }
    for text in ["header X-Beta = 1", "cookie cohort = staff"] {
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
    }
    assert_eq!("header X-Beta=1".parse::<Rule>().unwrap().to_string(), "header X-Beta = 1");
    for text in ["", "header X-Beta", "header X-Beta =", "header = 1", "path / = 1", "header X = a b", "cookie c = a;b"] {
        assert!(text.parse::<Rule>().is_err(), "{text}");
    }
}
