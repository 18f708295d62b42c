//! Reads the counters on the instances' own pages, for the reports: each at its own steady pace, so that one that does not answer
//! keeps nobody waiting.

use crate::probe::page;
use crate::reconciler::{Phase, View};
use crate::{session, text};
use baton_core::fleet::InstanceKey;
use baton_core::scrape::{Reading, Scrape};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// As often as a report goes out: more would be told to nobody.
const EVERY: Duration = session::HEARTBEAT;
/// A page that takes longer comes too late for its report.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Of a page: tens of thousands of series.
const PAGE_MAX: usize = 1 << 20;
/// What scrapers ask for.
const ACCEPT: &str = "text/plain;version=0.0.4,*/*;q=0.1";
/// How much is said of what was seen instead of numbers.
const SHOWN: usize = 200;

/// Whoever reads, by instance.
#[derive(Debug, Default)]
pub(crate) struct Scraper {
    readers: BTreeMap<InstanceKey, Reader>,
}

/// One start of an instance, and where it is asked.
#[derive(Debug)]
struct Reader {
    of: Subject,
    last: Arc<Mutex<Option<Reading>>>,
    /// Ends with this.
    _task: JoinSet<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    incarnation: String,
    address: SocketAddr,
    scrape: Scrape,
}

impl Scraper {
    /// The last reading of every instance that is to be read: of the very process that is there now, and of none before it.
    pub(crate) fn of(&mut self, view: &View) -> BTreeMap<InstanceKey, Reading> {
        let wanted = wanted(view);
        self.readers.retain(|key, reader| wanted.get(key) == Some(&reader.of));
        for (key, subject) in wanted {
            self.readers.entry(key).or_insert_with(|| Reader::new(subject));
        }
        let last = |reader: &Reader| reader.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.readers.iter().filter_map(|(key, reader)| Some((key.clone(), last(reader)?))).collect()
    }
}

/// What has once been ready can be asked, until it is to stop.
fn wanted(view: &View) -> BTreeMap<InstanceKey, Subject> {
    let Some(told) = &view.told else { return BTreeMap::new() };
    let subject = |(key, spec): (&InstanceKey, &baton_core::fleet::spec::InstanceSpec)| {
        let (scrape, instance) = (spec.scrape.as_deref().cloned()?, view.instances.get(key)?);
        let answers = matches!(instance.phase, Phase::Ready { .. } | Phase::Unready { .. });
        let incarnation = instance.incarnation.clone();
        answers.then(|| (key.clone(), Subject { incarnation, address: spec.address, scrape }))
    };
    told.instances.iter().filter_map(subject).collect()
}

impl Reader {
    fn new(of: Subject) -> Self {
        let last = Arc::new(Mutex::new(None));
        let mut task = JoinSet::new();
        task.spawn(read_steadily(of.clone(), Arc::clone(&last)));
        Self { of, last, _task: task }
    }
}

async fn read_steadily(subject: Subject, last: Arc<Mutex<Option<Reading>>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = read(&subject).await;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }
}

async fn read(subject: &Subject) -> Reading {
    let Subject { address, scrape, .. } = subject;
    let seen = match timeout(TIMEOUT, page(*address, &scrape.path, ACCEPT, PAGE_MAX)).await {
        Ok(Ok(page)) => scrape.read(&page),
        Ok(Err(refusal)) => Err(refusal.to_string()),
        Err(_) => Err(format!("no answer within {}", text::duration(TIMEOUT))),
    };
    let trouble = |seen: String| Reading::Trouble(text::line(&format!("GET {}: {seen}", scrape.path), SHOWN));
    seen.map_or_else(trouble, Reading::Counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconciler::InstanceView;
    use baton_core::fleet::spec::{HostSpec, InstanceSpec, Restart};
    use baton_core::name::{Digest, ReleaseId};
    use baton_core::scrape::Totals;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn subject(address: SocketAddr) -> Subject {
        let errors = "requests_total{code=~\"5..\"}".parse().unwrap();
        let scrape = Scrape { path: "/metrics".into(), requests: "requests_total".parse().unwrap(), errors };
        Subject { incarnation: "1".into(), address, scrape }
    }

    /// Answers each connection with the next of these, and then no more.
    async fn answering(answers: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut listener, mut left) = (Some(listener), answers.len());
            for answer in answers {
                let (mut stream, _) = listener.as_ref().unwrap().accept().await.unwrap();
                left -= 1;
                // Before the last one is answered: whoever comes after it finds nobody.
                listener = listener.filter(|_| left > 0);
                let mut asked = [0; 1024];
                let read = stream.read(&mut asked).await.unwrap();
                assert!(asked[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                // Whoever has read enough goes.
                let _ = stream.write_all(&answer).await;
            }
        });
        address
    }

    fn page(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn a_page_is_numbers_or_a_reason_why_not_and_never_more() {
        let good = "requests_total{code=\"200\"} 40\nrequests_total{code=\"500\"} 2\n";
        let huge = format!("{good}{}", "a 1\n".repeat(PAGE_MAX / 4));
        let answers = vec![
            page("200 OK", good),
            page("200 OK", "<html>"),
            page("200 OK", "requests_total NaN\n"),
            page("200 OK", "up 1\n"),
            page("404 Not Found", "no such page\n"),
            page("302 Found", ""),
            page("200 OK", &huge),
            b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nrequests_total 1\n".to_vec(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec(),
            b"220 mail.example.net\r\n".to_vec(),
            Vec::new(),
        ];
        let (asked, subject) = (answers.len(), subject(answering(answers).await));
        assert_eq!(read(&subject).await, Reading::Counted(Totals { requests: 42, errors: Some(2) }));
        let mut seen = Vec::new();
        for _ in 1..=asked {
            let Reading::Trouble(why) = read(&subject).await else { panic!("{seen:?}") };
            seen.push(why.strip_prefix("GET /metrics: ").unwrap().to_owned());
        }
        let begins = [
            "line 1 of the page is no metric",
            "requests_total is NaN, which no counter can be",
            "no metric is requests_total",
            "answered 404 Not Found: \"no such page\"",
            "answered 302 Found",
            "answered 200 OK, then broke off: length limit exceeded",
            "answered 200 OK, then broke off",
            "the page is no text",
            "connected, but no HTTP answer",
            "connected, but no HTTP answer",
            "connection refused",
        ];
        for (seen, begin) in seen.iter().zip(begins) {
            assert!(seen.to_lowercase().starts_with(&begin.to_lowercase()), "{seen}: {begin}");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_is_waited_for_only_so_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = read(&subject(listener.local_addr().unwrap())).await;
        assert_eq!(silent, Reading::Trouble("GET /metrics: no answer within 1 s".into()));
    }

    fn view(told: &Subject, incarnation: &str, phase: Phase) -> View {
        let (key, release): (InstanceKey, _) = ("shop/0".parse().unwrap(), ReleaseId(Digest::of(b"shop")));
        let scrape = Some(told.scrape.clone());
        let spec = InstanceSpec {
            release,
            address: told.address,
            restart: Restart::Never,
            start: 0,
            fallback: None,
            scrape: scrape.map(Box::new),
            withdraw: None,
        };
        let spec = HostSpec { instances: [(key.clone(), spec)].into_iter().collect(), ..HostSpec::default() };
        let incarnation = incarnation.to_owned();
        let instance = InstanceView { release, incarnation, start: 0, pid: Some(1), phase, proven: true };
        View { told: Some(Arc::new(spec)), instances: [(key, instance)].into(), ..View::default() }
    }

    #[tokio::test]
    async fn a_reading_is_of_the_process_that_is_there_and_of_none_that_is_not_asked_any_more() {
        let good = || page("200 OK", "requests_total 5\n");
        let subject = subject(answering(vec![good(), good()]).await);
        let ready = || Phase::Ready { at: Instant::now() };
        let mut scraper = Scraper::default();
        assert!(scraper.of(&view(&subject, "1", Phase::Starting { at: Instant::now(), last: None })).is_empty());
        let mut read = async |incarnation: &str| loop {
            let readings = scraper.of(&view(&subject, incarnation, ready()));
            match readings.into_values().next() {
                Some(reading) => return (reading, scraper.readers.len()),
                None => tokio::task::yield_now().await,
            }
        };
        let five = Reading::Counted(Totals { requests: 5, errors: None });
        assert_eq!(read("1").await, (five.clone(), 1));
        assert_eq!(read("2").await, (five, 1));
        assert!(scraper.of(&view(&subject, "3", ready())).is_empty(), "the third has not been asked yet");
        assert!(scraper.of(&view(&subject, "3", Phase::Stopping { at: Instant::now() })).is_empty());
        assert!(scraper.readers.is_empty());
    }
}
