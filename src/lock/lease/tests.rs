//! Every state of the lease against every input.

use super::*;

const fn at(seconds: u64) -> BootTime {
    BootTime::at(Duration::from_secs(seconds))
}

/// TTL 60 and `kill_after` 10: renewed every 20 s, stopping begins 12 s before the end.
fn in_state(state: LockState) -> Lease {
    Lease { terms: Terms::new(Duration::from_secs(60), Duration::from_secs(10)).unwrap(), state }
}

const fn held(until: u64, doubted: bool) -> LockState {
    LockState::Held { trusted_until: Some(at(until)), doubted }
}

const fn acquiring(until: u64, answer: Option<Unavailable>) -> LockState {
    LockState::Acquiring { until: Some(at(until)), answer }
}

const fn stopping(until: u64) -> LockState {
    LockState::Stopping { trusted_until: at(until) }
}

const HELD: Unavailable = Unavailable::Held;
const AWAY: Unavailable = Unavailable::Unreachable;

/// It is 100 in every row.
#[test]
fn every_cell_of_the_table() {
    use Action::{Enter, GiveBack, GiveUp, Kill, Reassure, Stop, Warn};
    use Input::{Acquired, Busy, Contend, Doubt, Gone, LetGo, Renewed, Unreachable, Woke};
    use LockState::{Free, GaveUp, Lost, Released};
    let (fresh, late, lapsed) = (Renewed { begun: at(99) }, Renewed { begun: at(50) }, Renewed { begun: at(98) });
    #[rustfmt::skip]
    let table = [
        (Free, Contend { until: Some(at(100)) }, acquiring(100, None), None),
        (Free, Acquired { begun: at(99) }, Free, Some(GiveBack)),
        (Free, LetGo, Free, None),
        (Free, Woke, Free, None),
        (acquiring(100, None), Woke, acquiring(100, None), None),
        (acquiring(90, None), Woke, GaveUp(AWAY), Some(GiveUp(AWAY))),
        (acquiring(100, Some(HELD)), Woke, GaveUp(HELD), Some(GiveUp(HELD))),
        (acquiring(101, Some(HELD)), Woke, acquiring(101, Some(HELD)), None),
        (acquiring(100, None), Busy, GaveUp(HELD), Some(GiveUp(HELD))),
        (acquiring(101, None), Busy, acquiring(101, Some(HELD)), None),
        (acquiring(100, Some(HELD)), Unreachable, GaveUp(AWAY), Some(GiveUp(AWAY))),
        (acquiring(101, Some(AWAY)), Busy, acquiring(101, Some(HELD)), None),
        (acquiring(90, None), Acquired { begun: at(99) }, held(159, false), Some(Enter)),
        (acquiring(90, None), Acquired { begun: at(52) }, acquiring(90, None), Some(GiveBack)),
        (acquiring(90, None), Acquired { begun: at(53) }, held(113, false), Some(Enter)),
        (acquiring(101, None), LetGo, Released, Some(GiveBack)),
        (acquiring(101, None), Renewed { begun: at(99) }, acquiring(101, None), None),
        (held(130, false), fresh, held(159, false), None),
        (held(130, true), fresh, held(159, false), Some(Reassure)),
        (held(130, true), late, held(130, false), Some(Reassure)),
        (held(97, false), lapsed, Lost, Some(Kill)),
        (held(112, false), late, stopping(112), Some(Stop)),
        (held(130, false), Doubt, held(130, true), Some(Warn { stop_at: at(118) })),
        (held(130, true), Doubt, held(130, true), None),
        (held(112, false), Doubt, stopping(112), Some(Stop)),
        (held(130, false), Gone, Lost, Some(Stop)),
        (held(100, false), Gone, Lost, Some(Kill)),
        (held(131, false), Woke, held(131, false), None),
        (held(130, false), Woke, held(130, true), Some(Warn { stop_at: at(118) })),
        (held(113, true), Woke, held(113, true), None),
        (held(112, false), Woke, stopping(112), Some(Stop)),
        (held(100, true), Woke, Lost, Some(Kill)),
        (held(130, false), LetGo, Released, Some(GiveBack)),
        (held(130, false), Busy, held(130, false), None),
        (stopping(110), fresh, stopping(159), None),
        (stopping(97), lapsed, Lost, Some(Kill)),
        (stopping(110), Woke, stopping(110), None),
        (stopping(100), Woke, Lost, Some(Kill)),
        (stopping(110), Doubt, stopping(110), None),
        (stopping(110), Gone, Lost, Some(Kill)),
        (stopping(110), LetGo, Released, Some(GiveBack)),
        (Lost, fresh, Lost, None),
        (Lost, Woke, Lost, None),
        (Lost, LetGo, Released, Some(GiveBack)),
        (Lost, Acquired { begun: at(99) }, Lost, Some(GiveBack)),
        (GaveUp(HELD), Acquired { begun: at(99) }, GaveUp(HELD), Some(GiveBack)),
        (GaveUp(HELD), Contend { until: None }, LockState::Acquiring { until: None, answer: None }, None),
        (Released, fresh, Released, None),
        (Released, LetGo, Released, None),
        (Released, Acquired { begun: at(99) }, Released, Some(GiveBack)),
        (Released, Contend { until: Some(at(100)) }, acquiring(100, None), None),
    ];
    for (state, input, expected, action) in table {
        let mut lease = in_state(state);
        let done = lease.step(input, at(100));
        assert_eq!((lease.state(), done), (expected, action), "{state:?} {input:?}");
    }
}

#[test]
fn waiting_for_ever_does_not_give_up() {
    let mut lease = in_state(LockState::Acquiring { until: None, answer: None });
    assert_eq!((lease.wake_at(), lease.step(Input::Busy, at(1_000_000))), (None, None));
    assert_eq!(lease.step(Input::Woke, at(2_000_000)), None);
}

#[test]
fn nothing_begins_once_stopping_is_due() {
    let lease = in_state(held(112, false));
    assert!(lease.may_start(at(99)) && !lease.may_start(at(100)) && !in_state(stopping(112)).may_start(at(1)));
    assert_eq!((lease.stop_at(), lease.wake_at()), (Some(at(100)), Some(at(82))));
    assert_eq!(in_state(held(112, true)).wake_at(), Some(at(100)));
}

#[test]
fn a_lock_without_an_end_never_stops_by_time() {
    let mut lease = Lease::new(Terms::endless(Duration::from_secs(10)));
    lease.step(Input::Contend { until: Some(at(0)) }, at(0));
    assert_eq!(lease.step(Input::Acquired { begun: at(0) }, at(50)), Some(Action::Enter));
    assert_eq!((lease.wake_at(), lease.step(Input::Woke, at(1_000_000))), (None, None));
    assert!(lease.may_start(at(1_000_000)) && lease.terms().renew_every().is_none());
    assert_eq!(lease.step(Input::Doubt, at(1)), None);
    assert_eq!(lease.step(Input::Gone, at(1)), Some(Action::Stop));
}

#[test]
fn a_ttl_needs_room() {
    let terms = |ttl, kill_after| Terms::new(Duration::from_secs(ttl), Duration::from_secs(kill_after));
    assert_eq!(terms(35, 10), Err(TtlTooShort { least: Duration::from_secs(36) }));
    let terms = terms(60, 10).unwrap();
    assert_eq!(terms.renew_every(), Some(Duration::from_secs(20)));
    assert!(Terms::new(Duration::MAX, Duration::MAX).is_ok());
}

#[test]
fn tokens_grow_whatever_the_clock_says() {
    let after = |last, wall| Token::after(last, wall);
    assert_eq!(after(None, 1_000), Token(1_000));
    assert_eq!(after(Some(Token(5_000)), 1_000), Token(5_001));
    assert_eq!(after(Some(Token(5)), 1_000), Token(1_000));
    assert_eq!(after(None, 0), Token(1));
}

#[test]
fn asking_again_slows_down_but_not_past_the_end_of_the_lease() {
    let millis = Duration::from_millis;
    let (file, long) = (Terms::endless(Duration::ZERO), Terms::new(Duration::from_secs(60), Duration::ZERO).unwrap());
    for terms in [file, long] {
        assert_eq!(pause_before_next(terms, 0, None), millis(25));
        assert_eq!(pause_before_next(terms, 50, None), millis(1000));
        assert_eq!(pause_before_next(terms, 50, Some(millis(3))), millis(3));
        assert_eq!(pause_before_next(terms, 0, Some(millis(500))), millis(25));
        assert_eq!(pause_before_next(terms, 0, Some(millis(0))), millis(1));
    }
    let short = Terms::new(Duration::from_secs(6), Duration::ZERO).unwrap();
    assert_eq!(pause_before_next(short, 50, Some(millis(5000))), millis(200));
}
