//! A model of the lease protocol, walked through completely: two contenders that decide with the program's own
//! `lock::lease::Lease`, one store, and between them a world that delays answers and questions, loses them, kills
//! contenders, freezes them, and silences the store. Every order of events up to a horizon is tried, breadth first.
//!
//! `cargo test --test lease_model -- --nocapture` tells how many states there were. Time goes in whole seconds; the
//! lease is as short as the rules let it be: TTL 6, nothing between TERM and KILL, renewed every 2.
//!
//! What must hold in every state, however late a message is:
//! - no two commands run at once, as long as no contender is frozen or killed over the end of its lease;
//! - with freezing and killing: nobody who does not own the lock begins anything, and whoever acts after its lease ended
//!   is ended before it does anything else;
//! - tokens grow strictly in the order in which commands begin.
//!
//! And the model can see a fault: with rules that are wrong (no stop before the end; trust counted from the answer instead
//! of from the question) it finds two commands at once.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may panic, and tells how far it went")]

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use runner::clock::BootTime;
use runner::lock::lease::{Action, Input, Lease, LockState, Terms};

const TTL: u64 = 6;
const RENEW_EVERY: u64 = 2;
/// What a command needs to end, within the margin of 2 s.
const ENDING: u64 = 1;

/// What may go wrong besides slowness.
#[derive(Debug, Clone, Copy, PartialEq)]
struct World {
    horizon: u64,
    /// What a question waits for its answer at most; then it failed, and the answer is never heard.
    patience: u64,
    /// Questions that were given up on may still reach the store.
    late: bool,
    /// How many contenders may be killed, and how often one may be frozen.
    crashes: u8,
    freezes: u8,
    fault: Fault,
}

const CONTENDERS: usize = 2;

/// A fault that is built into the model on purpose.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The holder waits for the end of its lease before it ends its command.
    StopsLate,
    /// The trust counts from the answer.
    TrustFromAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    Acquire,
    Renew(u64),
    Release(u64),
}

/// Where a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    /// Not yet at the store.
    There,
    /// Answered: the token for an acquisition, whether it is held for a renewal.
    Back(Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Contender {
    lease: Lease,
    alive: bool,
    frozen: bool,
    /// The token of the command that runs.
    inside: Option<u64>,
    /// When the command that is being ended is gone at the latest: TERM, the grace and KILL take time.
    gone_at: Option<u64>,
    /// The token of the last acquisition.
    token: Option<u64>,
    /// One question at a time, as the keeper asks; those that it has given up on may still reach the store.
    asked: Option<(Ask, u64, Way)>,
    late: Vec<Ask>,
    renew_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u64,
    /// Who owns it in the store: the token and the end of the lease.
    owner: Option<(u64, u64)>,
    last_token: u64,
    /// The token of the last command that began.
    last_inside: u64,
    contenders: Vec<Contender>,
    crashes: u8,
    freezes: u8,
}

fn at(seconds: u64) -> BootTime {
    BootTime::at(Duration::from_secs(seconds))
}

impl State {
    fn first(world: World) -> Self {
        let terms = Terms::new(Duration::from_secs(TTL), Duration::ZERO).unwrap();
        let mut lease = Lease::new(terms);
        lease.step(Input::Contend { until: None }, at(0));
        let contender = Contender {
            lease,
            alive: true,
            frozen: false,
            inside: None,
            gone_at: None,
            token: None,
            asked: None,
            late: Vec::new(),
            renew_at: 0,
        };
        Self {
            now: 0,
            owner: None,
            last_token: 0,
            last_inside: 0,
            contenders: vec![contender; CONTENDERS],
            crashes: world.crashes,
            freezes: world.freezes,
        }
    }

    /// The store does what it is asked.
    fn serve(&mut self, ask: Ask) -> Option<u64> {
        let (now, owner) = (self.now, self.owner.filter(|(_, end)| *end > self.now));
        match (ask, owner) {
            (Ask::Acquire, None) => {
                self.last_token += 1;
                self.owner = Some((self.last_token, now + TTL));
                Some(self.last_token)
            }
            (Ask::Renew(token), _) if self.owner.is_some_and(|(owner, _)| owner == token) => {
                self.owner = Some((token, now + TTL));
                Some(token)
            }
            (Ask::Release(token), _) if self.owner.is_some_and(|(owner, _)| owner == token) => {
                self.owner = None;
                Some(token)
            }
            (Ask::Acquire, Some(_)) | (Ask::Renew(_) | Ask::Release(_), _) => None,
        }
    }

    /// A contender that runs hears of time and of its answer, does what its lease says, and asks again if that is due.
    fn run(&mut self, who: usize, hears: bool, world: World) {
        let now = self.now;
        let contender = &mut self.contenders[who];
        let answer = contender.asked.filter(|(_, begun, way)| match way {
            Way::Back(_) => hears || now >= begun + world.patience,
            Way::There => now >= begun + world.patience,
        });
        if let Some((ask, begun, way)) = answer {
            contender.asked = None;
            let given_up = now >= begun + world.patience && !hears;
            let trust = if world.fault == Fault::TrustFromAnswer { now } else { begun };
            let input = match (ask, way) {
                (Ask::Acquire, Way::Back(Some(token))) if !given_up => {
                    contender.token = Some(token);
                    contender.renew_at = begun + RENEW_EVERY;
                    Input::Acquired { begun: at(trust) }
                }
                (Ask::Acquire, Way::Back(None)) if !given_up => Input::Busy,
                (Ask::Acquire, Way::Back(_) | Way::There) => Input::Unreachable,
                (Ask::Renew(_), Way::Back(Some(_))) if !given_up => {
                    contender.renew_at = begun + RENEW_EVERY;
                    Input::Renewed { begun: at(trust) }
                }
                (Ask::Renew(_), Way::Back(None)) if !given_up => Input::Gone,
                (Ask::Renew(_), Way::Back(_) | Way::There) => Input::Doubt,
                (Ask::Release(_), _) => Input::Woke,
            };
            if way == Way::There && world.late && contender.late.is_empty() {
                contender.late.push(ask);
            }
            self.step(who, input, world);
        }
        self.step(who, Input::Woke, world);
        self.ask(who);
    }

    fn step(&mut self, who: usize, input: Input, world: World) {
        let now = at(self.now);
        let contender = &mut self.contenders[who];
        match contender.lease.step(input, now) {
            Some(Action::Enter) => {
                let token = contender.token.unwrap();
                assert!(token > self.last_inside, "token {token} after {}", self.last_inside);
                contender.inside = Some(token);
                self.last_inside = token;
            }
            Some(Action::Stop) if world.fault == Fault::StopsLate => {}
            Some(Action::Kill) if world.fault == Fault::StopsLate => contender.gone_at = Some(self.now + ENDING),
            Some(Action::Stop) => contender.gone_at = Some(self.now + ENDING),
            Some(Action::Kill) => (contender.inside, contender.gone_at) = (None, None),
            Some(Action::GiveBack) => contender.token = None,
            Some(Action::GiveUp(_)) => panic!("who waits for ever gives up"),
            Some(Action::Warn { .. } | Action::Reassure) | None => {}
        }
        if contender.gone_at.is_some_and(|gone_at| self.now >= gone_at) {
            (contender.inside, contender.gone_at) = (None, None);
        }
        // What has lost its lock asks for it again, as a loop would.
        if let LockState::Lost | LockState::Stopping { .. } | LockState::Released = contender.lease.state()
            && contender.inside.is_none()
        {
            let token = contender.token.take();
            contender.lease.step(Input::LetGo, now);
            contender.lease.step(Input::Contend { until: None }, now);
            if contender.asked.is_none() {
                contender.asked = token.map(|token| (Ask::Release(token), self.now, Way::There));
            }
        }
    }

    fn ask(&mut self, who: usize) {
        let now = self.now;
        let contender = &mut self.contenders[who];
        if contender.asked.is_some() {
            return;
        }
        let ask = match contender.lease.state() {
            LockState::Acquiring { .. } => Some(Ask::Acquire),
            LockState::Held { .. } if now >= contender.renew_at => contender.token.map(Ask::Renew),
            LockState::Held { .. }
            | LockState::Free
            | LockState::Stopping { .. }
            | LockState::Lost
            | LockState::GaveUp(_)
            | LockState::Released => None,
        };
        contender.asked = ask.map(|ask| (ask, now, Way::There));
    }

    /// Everything that can happen next.
    fn next(&self, world: World) -> Vec<Self> {
        let mut all = Vec::new();
        for who in 0..self.contenders.len() {
            let one = &self.contenders[who];
            // A question arrives, now or later or never.
            if let Some((ask, begun, Way::There)) = one.asked {
                let mut next = self.clone();
                let answer = next.serve(ask);
                next.contenders[who].asked = Some((ask, begun, Way::Back(answer)));
                all.push(next);
            }
            for at in 0..one.late.len() {
                let mut next = self.clone();
                let ask = next.contenders[who].late.remove(at);
                next.serve(ask);
                all.push(next);
            }
            if one.alive && !one.frozen {
                if let Some((_, _, Way::Back(_))) = one.asked {
                    let mut next = self.clone();
                    next.run(who, true, world);
                    all.push(next);
                }
                if self.crashes > 0 {
                    let mut next = self.clone();
                    let crashed = &mut next.contenders[who];
                    // Its command goes with it: what does not is ended by whoever takes over on the machine.
                    (crashed.alive, crashed.inside) = (false, None);
                    next.crashes -= 1;
                    all.push(next);
                }
                if self.freezes > 0 {
                    let mut next = self.clone();
                    next.contenders[who].frozen = true;
                    next.freezes -= 1;
                    all.push(next);
                }
            }
            if one.frozen {
                let mut next = self.clone();
                next.contenders[who].frozen = false;
                next.run(who, false, world);
                all.push(next);
            }
        }
        if self.now < world.horizon {
            // A second passes; whoever runs looks at its clock before anything else.
            let mut next = self.clone();
            next.now += 1;
            for who in 0..next.contenders.len() {
                if next.contenders[who].alive && !next.contenders[who].frozen {
                    next.run(who, false, world);
                }
            }
            all.push(next);
        }
        all
    }

    /// Two commands run at once. The command of a frozen contender counts while its lease lasts: what it does after that
    /// nobody can prevent, and the token is for.
    fn is_wrong(&self) -> bool {
        let awake = self.contenders.iter().filter(|one| one.inside.is_some() && !one.frozen).count();
        let frozen_in_time =
            |one: &Contender| one.frozen && one.inside.is_some() && self.owner.is_some_and(|(token, _)| Some(token) == one.inside);
        awake + self.contenders.iter().filter(|one| frozen_in_time(one)).count() > 1
    }
}

/// Walks through everything; tells how many states there are, and the first that is wrong.
fn explore(world: World) -> (usize, usize, Option<State>) {
    let first = State::first(world);
    let (mut seen, mut waiting, mut entered) = (HashSet::from([first.clone()]), VecDeque::from([first]), 0);
    while let Some(state) = waiting.pop_front() {
        if state.is_wrong() {
            return (seen.len(), entered, Some(state));
        }
        entered = entered.max(usize::try_from(state.last_inside).unwrap());
        for next in state.next(world) {
            if !seen.contains(&next) {
                seen.insert(next.clone());
                waiting.push_back(next);
            }
        }
    }
    (seen.len(), entered, None)
}

fn holds(name: &str, world: World) {
    let (states, entered, wrong) = explore(world);
    println!("{name}: {states} states, up to {entered} commands after one another");
    assert!(wrong.is_none(), "{name}: two at once after {states} states: {wrong:#?}");
    assert!(entered >= 2, "{name}: nobody ever came second; the model shows nothing");
}

const CALM: World = World { horizon: 9, patience: 2, late: false, crashes: 0, freezes: 0, fault: Fault::None };

#[test]
fn slow_and_lost_messages_never_let_two_in() {
    holds("slow and lost messages", World { horizon: 12, ..CALM });
}

#[test]
fn questions_that_arrive_late_never_let_two_in() {
    holds("late messages", World { late: true, ..CALM });
}

#[test]
fn answers_that_take_longer_than_the_margin_never_let_two_in() {
    holds("very slow messages", World { patience: 4, ..CALM });
}

#[test]
fn crashes_never_let_two_in() {
    holds("a crash", World { crashes: 1, ..CALM });
}

#[test]
fn who_was_frozen_over_its_end_does_not_go_on() {
    holds("a freeze", World { freezes: 1, ..CALM });
}

#[test]
fn the_model_sees_a_holder_that_stops_late() {
    let (states, _, wrong) = explore(World { fault: Fault::StopsLate, ..CALM });
    assert!(wrong.is_some(), "{states} states, and nothing seen");
}

#[test]
fn the_model_sees_trust_that_counts_from_the_answer() {
    let (states, _, wrong) = explore(World { fault: Fault::TrustFromAnswer, patience: 5, horizon: 10, ..CALM });
    assert!(wrong.is_some(), "{states} states, and nothing seen");
}
