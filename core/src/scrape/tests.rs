use super::*;

const PAGE: &str = r#"# HELP http_requests_total All of them.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/"} 1027 1395066363000
http_requests_total{code="404",path="/a\"b\\c\n"} 3
http_requests_total{code="500", path="/",} 4
http_requests_total{code="503",path="/"} 2.0 # {trace="x"} 1
http_requests_total_created{code="200"} 1.6e9
latency_bucket{le="+Inf"} 1036
latency_sum NaN
queue:depth -3
up 1
# EOF
"#;

fn selector(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn scrape(requests: &str, errors: &str) -> Scrape {
    Scrape { path: "/metrics".into(), requests: selector(requests), errors: selector(errors) }
}

fn read(requests: &str, errors: &str) -> Result<Totals, String> {
    scrape(requests, errors).read(PAGE)
}

#[test]
fn matching_series_are_added_up() {
    let totals = |requests, errors| Ok(Totals { requests, errors });
    assert_eq!(read("http_requests_total", r#"http_requests_total{code=~"5.."}"#), totals(1036, Some(6)));
    assert_eq!(read(r#"http_requests_total{code!="404"}"#, r#"http_requests_total{code="500"}"#), totals(1033, Some(4)));
    let errors = r#"http_requests_total { code !~ "2..|404" , path = "/" , }"#;
    assert_eq!(read(r#"latency_bucket{le="+Inf"}"#, errors), totals(1036, Some(6)));
    // A label that is not there is empty, and a pattern fits the whole of a value.
    assert_eq!(read(r#"http_requests_total{host=""}"#, r#"http_requests_total{code=~"5"}"#), totals(1036, None));
    let escaped = r#"http_requests_total{path="/a\"b\\c\n"}"#;
    assert_eq!(read("http_requests_total", escaped), totals(1036, Some(3)));
}

#[test]
fn what_no_counter_can_be_is_no_number_and_the_reason_is_said() {
    let why = |requests: &str, errors: &str| read(requests, errors).unwrap_err();
    assert_eq!(why("nginx_requests", "up"), "no metric is nginx_requests");
    assert_eq!(why(r#"up{job="shop"}"#, "up"), r#"no metric is up{job="shop"}"#);
    assert_eq!(why("latency_sum", "up"), "latency_sum is NaN, which no counter can be");
    assert_eq!(why("up", "latency_sum"), "latency_sum is NaN, which no counter can be");
    assert_eq!(why("queue:depth", "up"), "queue:depth is -3, which no counter can be");
    let page = |value: &str| scrape("a", "b").read(&format!("a {value}\nb 0\n"));
    for bad in ["+Inf", "-Inf", "1e300", "-0.5", "9007199254740993e3"] {
        assert!(page(bad).is_err_and(|why| why.ends_with("which no counter can be")), "{bad}");
    }
    assert_eq!(page("1.9"), Ok(Totals { requests: 1, errors: Some(0) }));
    let sum = scrape("a", "b").read("a{x=\"1\"} 9007199254740992\na{x=\"2\"} 9007199254740992\n").unwrap_err();
    assert_eq!(sum, "a adds up to more than can be counted");
}

#[test]
fn a_page_that_is_something_else_is_no_page_of_metrics() {
    let why = |page: &str| scrape("up", "down").read(page).unwrap_err();
    assert_eq!(why(""), "the page has no metrics");
    assert_eq!(why("# only words\n"), "the page has no metrics");
    for bad in [
        "<!doctype html><html>",
        "{\"up\": 1}",
        "up",
        "up one",
        "up 1 2 3",
        "up 1 soon",
        "up{a=\"1\" 1",
        "up{a=\"1} 1",
        "up{a=1} 1",
        "up{a=\"1\" b=\"2\"} 1",
        "up{=\"1\"} 1",
        "up{a=\"1\\",
        "1up 1",
        "up 0x1p3 é",
        "{} 1",
        "\u{feff}up 1",
    ] {
        assert_eq!(why(&format!("good 1\n{bad}\nup 1\n")), "line 2 of the page is no metric", "{bad}");
    }
}

#[test]
fn no_page_however_damaged_does_harm() {
    let scrape = scrape("http_requests_total", r#"http_requests_total{code=~"5.."}"#);
    for end in (0..PAGE.len()).filter(|end| PAGE.is_char_boundary(*end)) {
        let _ = scrape.read(&PAGE[..end]);
        for other in ["\"", "{", "\\", "}", "=", " ", "é", "\0"] {
            let _ = scrape.read(&format!("{}{other}{}", &PAGE[..end], &PAGE[end + 1..]));
        }
    }
}

#[test]
fn a_selector_comes_back_as_it_was_and_what_is_none_says_why() {
    for good in ["up", "a:b{}", r#"a{b="c",d!~"e|f"}"#] {
        assert_eq!(selector(good).to_string(), good);
        assert_eq!(String::from(selector(good)).parse(), Ok(selector(good)));
    }
    let long = format!("a{{b=\"{}\"}}", "c".repeat(1024));
    for (bad, why) in [
        ("", "a metric's name comes first"),
        ("1a", "a metric's name comes first"),
        ("{a=\"b\"}", "a metric's name comes first"),
        ("rate(a[5m])", "a metric's name comes first"),
        ("a{b=c}", "a label's value stands in double"),
        ("a{b=\"c}", "a label's value stands in double"),
        ("a{b~\"c\"}", "after a label comes"),
        ("a{b!\"c\"}", "after a label comes"),
        ("a{b:=\"c\"}", "a label's name has"),
        ("a{b=\"c\" d=\"e\"}", "between two matchers"),
        ("a{b=\"c\"", "between two matchers"),
        ("a{", "after a label comes"),
        ("a{b=\"c\"}[5m]", "a metric and its matchers are all"),
        ("a{} / b", "a metric and its matchers are all"),
        ("a{b=~\"(\"}", "not a pattern"),
        ("a{b=~\"x)(y\"}", "not a pattern"),
        ("a{b=~\"(x{1000}){1000}\"}", "not a pattern"),
        (&long, "longer than"),
    ] {
        let said = bad.parse::<Selector>().unwrap_err().to_string();
        assert!(said.starts_with(why), "{bad}: {said}");
    }
}
