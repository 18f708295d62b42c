//! Waiting for a rollout to end: views as they come, a connection that may break meanwhile, a terminal that may be left.

use crate::connection::Connection;
use crate::errors::code;
use crate::exit::Exit;
use crate::outcome::{Wish, outcome, state};
use crate::output::Output;
use crate::screen::Screen;
use baton_core::problem::Problem;
use baton_proto::problem::from_status;
use baton_proto::v1::{FleetView, ServiceView, StatusRequest};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::{Code, Status};

/// A coordinator that is silent for longer is not waited for: its hosts go on serving, and somebody should look.
const LOST_AFTER: Duration = Duration::from_secs(600);

/// Between attempts to reach a coordinator that fell silent; doubles up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// After a release was taken back, how long the service may take to be called healthy again: reports come every 2 s.
const SETTLES: Duration = Duration::from_secs(5);

/// A rollout that was accepted is in the views by then, unless it ended and another one took its place.
const APPEARS: Duration = Duration::from_secs(10);

/// What is waited for.
#[derive(Debug)]
pub struct Follow {
    pub service: String,
    /// None: whichever is under way.
    pub rollout: Option<String>,
    pub wish: Wish,
    pub timeout: Option<Duration>,
    /// Whether a paused rollout ends the waiting.
    pub pause: OnPause,
}

/// What a paused rollout means for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPause {
    End,
    Wait,
}

/// How the waiting ended.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    /// The last view; None when there was none.
    pub service: Option<ServiceView>,
    /// Another rollout of the service began before this one was seen to end.
    pub superseded: bool,
    /// From the first moment to this one.
    pub waited: Duration,
}

/// What the watching brings.
#[derive(Debug)]
enum Seen {
    View(Box<FleetView>),
    /// The connection broke; it is tried again.
    Lost(Problem),
    /// Watching is refused.
    Refused(Problem),
}

/// Follows a rollout to its end.
///
/// # Errors
/// When watching is refused, or the coordinator stays silent for too long. The rollout goes on.
pub async fn follow(
    connection: &Connection,
    follow: Follow,
    output: &Output,
    screen: &mut Screen<'_>,
) -> Result<Ended, Problem> {
    let mut seen = views(connection.clone(), follow.service.clone());
    let asked = Instant::now();
    let mut watcher = Watcher::new(follow);
    let mut ticks = interval(screen.tick());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    let exit = loop {
        tokio::select! {
            seen = seen.recv() => match seen {
                Some(Seen::View(view)) => watcher.view(&view, screen),
                Some(Seen::Lost(problem)) => watcher.lost(&problem, screen),
                Some(Seen::Refused(problem)) => return Err(problem),
                None => return Err(gone()),
            },
            _ = ticks.tick() => screen.draw(),
            () = &mut interrupted => break Exit::Interrupted,
        }
        if let Some(exit) = watcher.ends(Instant::now()) {
            break exit;
        }
        if watcher.lost_for(Instant::now()) > LOST_AFTER {
            return Err(gone());
        }
        // Whoever reads the events is gone; there is nobody left to wait for.
        if output.answers().is_closed() && screen.answers() {
            break Exit::Interrupted;
        }
    };
    screen.finish();
    let superseded = watcher.superseded;
    let waited = asked.elapsed();
    Ok(Ended { exit, service: watcher.last, superseded, waited })
}

/// The state of waiting, without its sources.
#[derive(Debug)]
struct Watcher {
    follow: Follow,
    last: Option<ServiceView>,
    began: Instant,
    /// Since when it is over, and only the service's health is waited for.
    settling: Option<Instant>,
    lost: Option<Instant>,
    superseded: bool,
}

impl Watcher {
    fn new(follow: Follow) -> Self {
        Self { follow, last: None, began: Instant::now(), settling: None, lost: None, superseded: false }
    }

    fn view(&mut self, view: &FleetView, screen: &mut Screen<'_>) {
        if self.lost.take().is_some() {
            screen.notice("the coordinator answers again");
        }
        let Some(service) = view.services.iter().find(|service| service.name == self.follow.service) else { return };
        let id = service.rollout.as_ref().map(|rollout| rollout.id.as_str());
        let followed = self.follow.rollout.get_or_insert_with(|| id.unwrap_or_default().to_owned());
        if id == Some(followed) || followed.is_empty() {
            screen.view(service);
            self.last = Some(service.clone());
        } else if service.queue.iter().any(|queued| queued.rollout == *followed) {
            // Its turn has not come.
            self.began = Instant::now().min(self.began + APPEARS);
        } else if self.last.is_some() || self.began.elapsed() > APPEARS {
            self.superseded = true;
            // What the service is now is known; what became of the rollout follows from it.
            let rollout = self.last.take().and_then(|last| last.rollout);
            self.last = Some(ServiceView { rollout, ..service.clone() });
        }
    }

    fn lost(&mut self, problem: &Problem, screen: &mut Screen<'_>) {
        if self.lost.is_none() {
            self.lost = Some(Instant::now());
            screen.notice(&format!("{problem}; hosts go on serving, trying again"));
        }
    }

    fn lost_for(&self, now: Instant) -> Duration {
        self.lost.map_or(Duration::ZERO, |since| now - since)
    }

    /// How it ends, when it ends now.
    fn ends(&mut self, now: Instant) -> Option<Exit> {
        if self.superseded {
            return Some(self.superseded_exit());
        }
        let reached = self.last.as_ref().and_then(|service| outcome(service, self.follow.wish));
        let late = self.follow.timeout.is_some_and(|timeout| now - self.began >= timeout);
        match reached {
            Some(Exit::Waiting) if self.follow.pause == OnPause::Wait => {}
            // The release was taken back, and the service is not called healthy yet.
            Some(Exit::NeedsPerson) if self.is_reverted() => {
                let since = *self.settling.get_or_insert(now);
                return (now - since >= SETTLES || late).then_some(Exit::NeedsPerson);
            }
            Some(exit) => return Some(exit),
            None => self.settling = None,
        }
        late.then_some(Exit::TimedOut)
    }

    fn is_reverted(&self) -> bool {
        let rollout = self.last.as_ref().and_then(|service| service.rollout.as_ref());
        rollout.is_some_and(|rollout| rollout.state == state::REVERTED)
    }

    /// Another rollout only begins when the one before has ended: in success, if its release became the committed one.
    fn superseded_exit(&self) -> Exit {
        let committed = self.last.as_ref().and_then(|service| {
            let rollout = service.rollout.as_ref()?;
            Some(!rollout.to_version.is_empty() && rollout.to_version == service.committed_version)
        });
        if committed == Some(true) { Exit::Done } else { Exit::NeedsPerson }
    }
}

fn gone() -> Problem {
    Problem::new(code::LOST, "the coordinator has not answered for 10 min; the rollout is where it was, or goes on")
        .help("on the coordinator's machine: systemctl status baton-coordinator")
}

/// Watches in a task of its own, connecting anew whenever it must.
fn views(mut connection: Connection, service: String) -> mpsc::Receiver<Seen> {
    let (tell, seen) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut pause = AGAIN.0;
        loop {
            let status = match connection.control.watch(StatusRequest { service: service.clone() }).await {
                Err(status) => status,
                Ok(reply) => {
                    let mut stream = reply.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(view)) => {
                                pause = AGAIN.0;
                                if tell.send(Seen::View(Box::new(view))).await.is_err() {
                                    return;
                                }
                            }
                            Ok(None) => break Status::unavailable("the coordinator ended the watching"),
                            Err(status) => break status,
                        }
                    }
                }
            };
            let problem = from_status(&status);
            let event = if is_final(status.code()) { Seen::Refused(problem) } else { Seen::Lost(problem) };
            if tell.send(event).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    });
    seen
}

/// Whether asking again would only bring the same answer.
const fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

/// Ends with Ctrl-C or SIGTERM; never, where signals cannot be heard.
pub async fn interrupted() {
    let hear = |kind| signal(kind).ok();
    let (Some(mut interrupt), Some(mut terminate)) = (hear(SignalKind::interrupt()), hear(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Follow, OnPause, SETTLES, Watcher};
    use crate::args::FormatArgs;
    use crate::exit::Exit;
    use crate::outcome::Wish;
    use crate::output::Output;
    use crate::render::example;
    use crate::screen::Screen;
    use baton_proto::v1::{FleetView, RolloutView, ServiceView};
    use std::time::Duration;
    use tokio::time::Instant;

    fn watcher(timeout: Option<Duration>, pause: OnPause) -> Watcher {
        Watcher::new(Follow { service: "shop".into(), rollout: Some("r-7f3".into()), wish: Wish::Forward, timeout, pause })
    }

    fn see(watcher: &mut Watcher, service: ServiceView) {
        let output = Output::new(&FormatArgs { json: true, ..FormatArgs::default() });
        let view = FleetView { services: vec![service], ..example::fleet() };
        watcher.view(&view, &mut Screen::silent(&output));
    }

    fn in_state(state: &str) -> ServiceView {
        let rollout = RolloutView { state: state.into(), ..example::rollout() };
        ServiceView { rollout: Some(rollout), ..example::service() }
    }

    #[test]
    fn waiting_ends_with_the_rollout_or_with_the_time_given() {
        let mut watcher = watcher(Some(Duration::from_secs(60)), OnPause::End);
        let now = Instant::now();
        see(&mut watcher, in_state("running"));
        assert_eq!(watcher.ends(now), None);
        assert_eq!(watcher.ends(now + Duration::from_secs(61)), Some(Exit::TimedOut));
        see(&mut watcher, in_state("paused"));
        assert_eq!(watcher.ends(now), Some(Exit::Waiting));
        see(&mut watcher, in_state("succeeded"));
        assert_eq!(watcher.ends(now + Duration::from_secs(61)), Some(Exit::Done), "done is done, however late");
    }

    #[test]
    fn whoever_only_watches_waits_while_it_is_paused() {
        let mut watcher = watcher(None, OnPause::Wait);
        see(&mut watcher, in_state("paused"));
        assert_eq!(watcher.ends(Instant::now()), None);
    }

    #[test]
    fn a_service_may_take_a_moment_to_be_healthy_again() {
        let mut watcher = watcher(None, OnPause::End);
        let now = Instant::now();
        see(&mut watcher, ServiceView { health: "degraded".into(), ..example::taken_back() });
        assert_eq!(watcher.ends(now), None);
        assert_eq!(watcher.ends(now + SETTLES), Some(Exit::NeedsPerson));
        see(&mut watcher, example::taken_back());
        assert_eq!(watcher.ends(now), Some(Exit::RolledBack));
    }

    #[test]
    fn a_view_from_before_the_rollout_is_not_its_end() {
        let mut watcher = watcher(None, OnPause::End);
        let mut before = in_state("succeeded");
        before.rollout.as_mut().unwrap().id = "r-111".into();
        see(&mut watcher, before);
        assert_eq!(watcher.ends(Instant::now()), None);
    }

    #[test]
    fn a_rollout_that_another_one_followed_has_ended_as_the_service_says() {
        for (committed, exit) in [("2.1.0", Exit::Done), ("2.0.4", Exit::NeedsPerson)] {
            let mut watcher = watcher(None, OnPause::End);
            see(&mut watcher, in_state("running"));
            let mut next = in_state("running");
            next.committed_version = committed.into();
            next.rollout.as_mut().unwrap().id = "r-8aa".into();
            see(&mut watcher, next);
            assert_eq!(watcher.ends(Instant::now()), Some(exit));
        }
    }
}
