//! What core decides, asked with small numbers: the real plan, interlock, commands and host plan, each answer remembered.
//!
//! A coordinator's pass depends on what it wrote down and on what it knows of every host, and of stamps only on whether what
//! was heard carries the newest one. So the question is small, and the same in many states.

use crate::happen::{Happening, Notes};
use crate::scope::{Scope, pool, release, shop};
use crate::state::{Id, Known, MEMBERS, Member, PARTIES, Place, Process, SLOTS, View, Which};
use crate::table::{Memory, Table};
use crate::truth::Invariant;
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState};
use baton_core::fleet::spec::{Exchange, HostSpec, MemberState};
use baton_core::fleet::{Fleet, Heard, Host, InstanceKey, LiteMap, MemberKey, Service};
use baton_core::host::plan::{Action, Observed, plan as plan_host};
use baton_core::mutant;
use baton_core::name::{Epoch, Generation, HostName, ReleaseId, RolloutId, ServiceName, Slot};
use baton_core::problem::{Code, Problem};
use baton_core::release::Release;
use baton_core::rollout::command::{Command, Deploy, apply};
use baton_core::rollout::plan::{Plan, plan};
use baton_core::rollout::{Rollout, RolloutState, interlock};
use baton_core::time::Moment;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// What a coordinator wrote down beside the specs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    services: BTreeMap<ServiceName, Service>,
    rollouts: BTreeMap<RolloutId, Rollout>,
    releases: BTreeMap<ReleaseId, Arc<Release>>,
    pub(crate) stands: Stands,
}

/// Where the newest rollout stands, for those who look from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) state: Option<RolloutState>,
    pub(crate) committed: Option<Which>,
    pub(crate) warm: Option<Which>,
    pub(crate) rolling: bool,
    pub(crate) says_why: bool,
}

/// A spec without its stamp, and what it means for the small world.
#[derive(Debug)]
pub(crate) struct Document {
    spec: HostSpec,
    pub(crate) told: [Option<Which>; SLOTS],
    /// Which members should be in; None: the balancer knows nothing of it.
    pub(crate) members: [Option<bool>; MEMBERS],
    pub(crate) exchange: Exchange,
}

/// What one pass of a coordinator led to.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) books: Id,
    /// The specs that changed.
    pub(crate) issued: [Option<Id>; PARTIES],
    pub(crate) wake_at: Option<Moment>,
    pub(crate) broken: u32,
}

type Seen = (Id, [(Id, Option<Id>, bool, bool); PARTIES]);

#[derive(Debug)]
pub(crate) struct Decisions {
    pub(crate) scope: Scope,
    pub(crate) names: Vec<HostName>,
    releases: [Release; 2],
    ids: [ReleaseId; 2],
    pub(crate) books: Table<Books>,
    pub(crate) documents: Table<Document>,
    reports: Table<HostReport>,
    passes: Memory<(Seen, bool), Pass>,
    rollbacks: Memory<Seen, Option<Id>>,
    acts: Memory<(Id, [Process; SLOTS]), [Process; SLOTS]>,
    said_by_hosts: Memory<(Id, [Process; SLOTS]), Id>,
    said_by_balancers: Memory<(Id, [Member; MEMBERS]), Id>,
    notes: Notes,
}

impl Decisions {
    pub(crate) fn new(scope: Scope) -> Self {
        let releases = [release("1"), release("2")];
        let ids = [releases[0].id(), releases[1].id()];
        let names = scope.names();
        Self {
            scope,
            names,
            releases,
            ids,
            books: Table::default(),
            documents: Table::default(),
            reports: Table::default(),
            passes: Memory::default(),
            rollbacks: Memory::default(),
            acts: Memory::default(),
            said_by_hosts: Memory::default(),
            said_by_balancers: Memory::default(),
            notes: Notes::default(),
        }
    }

    /// How many questions core was really asked: passes of coordinators, acts of hosts, rollbacks.
    pub(crate) fn asked(&self) -> usize {
        self.passes.len() + self.acts.len() + self.rollbacks.len()
    }

    fn which(&self, release: ReleaseId) -> Which {
        if release == self.ids[0] { Which::Old } else { Which::New }
    }

    pub(crate) fn note(&self, happening: Happening) {
        self.notes.note(happening);
    }

    pub(crate) fn note_unless(&self, usual: bool, happening: Happening) {
        if !usual {
            self.note(happening);
        }
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.notes.refusal()
    }

    pub(crate) fn noted(&self) -> Vec<Happening> {
        self.notes.all()
    }

    /// Nobody told anybody anything yet.
    pub(crate) fn nothing(&self) -> (Id, Id) {
        (self.keep_books(Books::default()), self.keep_document(HostSpec::default()))
    }

    fn keep_books(&self, mut books: Books) -> Id {
        books.stands = self.stands(&books);
        self.books.number(format!("{books:?}"), || books)
    }

    fn keep_document(&self, mut spec: HostSpec) -> Id {
        (spec.epoch, spec.generation) = (Epoch::default(), Generation::default());
        self.documents.number(format!("{spec:?}"), || self.document(spec))
    }

    fn document(&self, spec: HostSpec) -> Document {
        let told = std::array::from_fn(|slot| Some(self.which(spec.instances.get(&key(slot))?.release)));
        let pool = spec.pools.get(&pool());
        let members = std::array::from_fn(|index| {
            let member = pool?.members.get(&self.member(index)?)?;
            Some(member.state == MemberState::Ready)
        });
        let exchange = pool.map(|pool| pool.exchange).unwrap_or_default();
        Document { told, members, exchange, spec }
    }

    fn member(&self, index: usize) -> Option<MemberKey> {
        let host = self.names.get(index / SLOTS).filter(|_| index / SLOTS < self.scope.hosts)?;
        Some(MemberKey { host: host.clone(), slot: slot(index % SLOTS) })
    }

    fn stands(&self, books: &Books) -> Stands {
        let last = books.rollouts.values().next_back();
        let service = books.services.get(&shop());
        let paused = last.is_some_and(|it| it.state == RolloutState::Paused);
        Stands {
            state: last.map(|rollout| rollout.state),
            committed: service.and_then(|it| it.committed).map(|it| self.which(it)),
            warm: service.and_then(|it| it.warm).map(|it| self.which(it.release)),
            rolling: last.is_some_and(|rollout| rollout.state.is_active()),
            says_why: !paused || last.is_some_and(|it| it.pause.as_ref().is_some_and(|pause| !pause.why.is_empty())),
        }
    }

    /// The fleet as a coordinator believes it. Stamps are the same in every question: newest, or not.
    fn fleet(&self, (books, known): &Seen) -> Fleet {
        let newest = (Epoch(1), Generation(9));
        let books = self.books.get(*books);
        let hosts = self.names.iter().enumerate().zip(self.indices()).map(|((_, name), index)| {
            let (issued, heard, echoed, connected) = known[index];
            let mut host = Host::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
            host.issued = self.documents.get(issued).spec.clone();
            (host.issued.epoch, host.issued.generation) = newest;
            host.connected = connected;
            host.heard = heard.map(|heard| {
                let mut report = self.reports.get(heard).clone();
                report.observed.epoch = newest.0;
                report.observed.generation = if echoed { newest.1 } else { Generation(8) };
                Heard { at: Moment(0), report }
            });
            (name.clone(), host)
        });
        Fleet {
            epoch: newest.0,
            hosts: hosts.collect(),
            services: books.services.clone(),
            releases: books.releases.clone(),
            rollouts: books.rollouts.clone(),
            ..Fleet::default()
        }
    }

    /// Where each of [`Self::names`] stands in a state: hosts first, and balancers always behind the most hosts there may be.
    pub(crate) fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let (hosts, balancers) = (self.scope.hosts, self.scope.balancers);
        (0..hosts).chain(crate::state::WEBS..crate::state::WEBS + balancers)
    }

    /// One pass of a coordinator; with `late`, once its next deadline has passed.
    pub(crate) fn plan_for(&self, view: &View, late: bool) -> Pass {
        self.passes.recall((seen(view), late), |(seen, late)| {
            let fleet = self.fleet(seen);
            if !late {
                return self.one_pass(&fleet, Moment(0)).unwrap_or_else(|| self.no_pass(seen.0));
            }
            let mut at = plan(&fleet, Moment(0)).wake_at;
            while let Some(moment) = at {
                match self.one_pass(&fleet, moment) {
                    Some(pass) if pass.is_nothing(seen.0) => at = pass.wake_at.filter(|next| *next > moment),
                    Some(pass) => return pass,
                    None => break,
                }
            }
            self.no_pass(seen.0)
        })
    }

    fn no_pass(&self, books: Id) -> Pass {
        Pass { books, issued: [None; PARTIES], wake_at: None, broken: 0 }
    }

    fn one_pass(&self, fleet: &Fleet, now: Moment) -> Option<Pass> {
        let next = plan(fleet, now);
        let mut broken = 0;
        if let Err(violations) = interlock::check(fleet, &next) {
            self.notes.refuse(violations);
            broken |= Invariant::Interlock.bit();
        }
        let mut after = fleet.clone();
        next.take(&mut after);
        if plan(&after, now).changes_anything() {
            broken |= Invariant::Twice.bit();
        }
        if after.rollouts.values().filter(|rollout| rollout.state.is_active()).count() > 1 {
            broken |= Invariant::OneRollout.bit();
        }
        Some(Pass { books: self.rewind(after, now), issued: self.issued(&next), wake_at: next.wake_at, broken })
    }

    fn issued(&self, plan: &Plan) -> [Option<Id>; PARTIES] {
        let mut issued = [None; PARTIES];
        for (name, index) in self.names.iter().zip(self.indices()) {
            issued[index] = plan.specs.get(name).map(|spec| self.keep_document(spec.clone()));
        }
        issued
    }

    /// Writes the books as if no time had passed: how long things took is no part of a state.
    fn rewind(&self, fleet: Fleet, now: Moment) -> Id {
        let Fleet { mut services, mut rollouts, releases, .. } = fleet;
        let back = |moment: &mut Moment| *moment = Moment(moment.0.saturating_sub(now.0));
        for rollout in rollouts.values_mut() {
            back(&mut rollout.started);
            back(&mut rollout.progressed);
            rollout.wave_done.iter_mut().chain(&mut rollout.ended).for_each(back);
        }
        for service in services.values_mut() {
            service.warm.iter_mut().for_each(|warm| back(&mut warm.until));
        }
        self.keep_books(Books { services, rollouts, releases, stands: Stands::default() })
    }

    /// What a rollback makes of the books; None where it is refused or changes nothing.
    pub(crate) fn roll_back(&self, view: &View) -> Option<Id> {
        self.rollbacks.recall(seen(view), |seen| {
            let id = rollout_id("r-3");
            self.command(seen, Command::Rollback { id, service: shop(), by: "ana".into(), force: false })
        })
    }

    /// What a deploy makes of the books.
    pub(crate) fn deploy(&self, view: &View, which: Which) -> Option<Id> {
        let id = rollout_id(if which == Which::Old { "r-1" } else { "r-2" });
        let (service, release) = (self.scope.service(), self.releases[which as usize].clone());
        self.command(&seen(view), Command::Deploy(Box::new(Deploy::new(id, shop(), service, release, "ana".into()))))
    }

    fn command(&self, seen: &Seen, command: Command) -> Option<Id> {
        let mut fleet = self.fleet(seen);
        apply(&mut fleet, command, Moment(0)).ok()?;
        Some(self.rewind(fleet, Moment(0))).filter(|books| *books != seen.0)
    }

    /// What a host does next, and has then: all actions of one plan. What is to be fetched is there at once.
    pub(crate) fn act(&self, ledger: Id, processes: [Process; SLOTS]) -> [Process; SLOTS] {
        self.acts.recall((ledger, processes), |(ledger, processes)| {
            let document = self.documents.get(*ledger);
            let releases = document.spec.releases.keys().map(|release| (*release, ReleaseState::Held)).collect();
            let observed = Observed { instances: self.instances(processes), releases, failures: BTreeMap::new() };
            let mut after = *processes;
            for action in plan_host(&document.spec, &observed, Moment(0)).actions {
                match action {
                    Action::Start(key) => {
                        if let Some(told) = document.told.get(usize::from(key.slot.0)).copied().flatten() {
                            after[usize::from(key.slot.0)] = Process::Starting(told);
                        }
                    }
                    Action::Stop { key, .. } => {
                        let process = &mut after[usize::from(key.slot.0)];
                        *process = process.alive().map_or(Process::None, Process::Stopping);
                    }
                    Action::Forget(key) => after[usize::from(key.slot.0)] = Process::None,
                    Action::Fetch(_) | Action::Drop(_) => {}
                }
            }
            after
        })
    }

    fn instances(&self, processes: &[Process; SLOTS]) -> LiteMap<InstanceKey, InstanceReport> {
        let since = Duration::ZERO;
        let report = |(index, process): (usize, &Process)| {
            let (which, state) = match *process {
                Process::None => return None,
                Process::Starting(which) => (which, InstanceState::Starting { since, last: None }),
                Process::Ready(which) => (which, InstanceState::Ready { since }),
                Process::Stopping(which) => (which, InstanceState::Stopping { since }),
                Process::Failed(which) => (which, InstanceState::Failed { problem: Problem::new(Code(210), "exited") }),
            };
            let release = self.ids[which as usize];
            Some((key(index), InstanceReport { release, incarnation: "1".into(), start: 0, state }))
        };
        processes.iter().enumerate().filter_map(report).collect()
    }

    /// What a host says of itself.
    pub(crate) fn say_host(&self, ledger: Id, places: &[Place; SLOTS]) -> Id {
        let processes = places.map(|place| place.process);
        self.said_by_hosts.recall((ledger, processes), |(ledger, processes)| {
            let document = self.documents.get(*ledger);
            let releases = document.spec.releases.keys().map(|release| (*release, ReleaseState::Held)).collect();
            let report = HostReport { instances: self.instances(processes), releases, ..HostReport::default() };
            self.reports.number(format!("{report:?}"), || report)
        })
    }

    /// What a balancer's host says: of every member it was told of, what the balancer does, now and after a restart.
    pub(crate) fn say_balancer(&self, ledger: Id, members: &[Member; MEMBERS]) -> Id {
        self.said_by_balancers.recall((ledger, *members), |(ledger, members)| {
            let document = self.documents.get(*ledger);
            let state = |is_in: Option<bool>| match is_in {
                Some(false) => MemberState::Out,
                Some(true) | None => MemberState::Ready,
            };
            let pools = document.spec.pools.iter().map(|(name, spec)| {
                let seen = |(index, member): (usize, &Member)| {
                    let key = self.member(index).filter(|key| spec.members.contains_key(key))?;
                    let quiet = MemberReport::quiet(state(member.running));
                    let disk = if mutant!("a restarted balancer forgets") { member.running } else { member.disk };
                    let (on_disk, in_flight) = (state(disk), u64::from(member.busy));
                    Some((key, MemberReport { on_disk, in_flight, ..quiet }))
                };
                let members = members.iter().enumerate().filter_map(seen).collect();
                (name.clone(), PoolReport { balancer: "1".into(), members, ..PoolReport::default() })
            });
            let report = HostReport { pools: pools.collect(), ..HostReport::default() };
            self.reports.number(format!("{report:?}"), || report)
        })
    }
}

impl Pass {
    pub(crate) fn is_nothing(&self, books: Id) -> bool {
        self.books == books && self.issued.iter().all(Option::is_none) && self.broken == 0
    }
}

fn seen(view: &View) -> Seen {
    let of = |known: &Known| (known.issued.what, known.heard, known.echoed, known.connected);
    (view.books, std::array::from_fn(|index| of(&view.known[index])))
}

fn rollout_id(text: &str) -> RolloutId {
    RolloutId::new(text).expect("an id")
}

fn slot(index: usize) -> Slot {
    Slot(u8::try_from(index).unwrap_or(u8::MAX))
}

fn key(index: usize) -> InstanceKey {
    InstanceKey { service: shop(), slot: slot(index) }
}
