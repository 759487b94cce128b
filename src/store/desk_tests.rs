//! Tests of `desk`: nobody waits for a database that is away, and nothing that was asked is forgotten.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::store::HistoryQuery;
use crate::store::engine::{Engine, Work};

/// A database that holds nothing and is away when it is told to be.
struct Fake(Arc<AtomicU32>);

fn away() -> StoreError {
    StoreError::Away { database: "fake".into(), doing: "open it", why: "gone fishing".into() }
}

impl Engine for Fake {
    fn shown(&self) -> &str {
        "fake"
    }

    fn write(&mut self, _: &'static str, _: Work<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&mut self, _: &'static str, _: Work<'_>) -> Result<(), StoreError> {
        if self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() { Err(away()) } else { Ok(()) }
    }
}

/// A desk whose database fails so often to open, and then so often to answer.
fn desk(fails_to_open: u32, fails_to_answer: u32) -> Desk<&'static str> {
    let (mut opens, answers) = (fails_to_open, Arc::new(AtomicU32::new(fails_to_answer)));
    let open = move || {
        if opens > 0 {
            opens -= 1;
            return Err(away());
        }
        Ok(Box::new(Fake(answers.clone())) as Box<dyn Store>)
    };
    Desk::new(open).unwrap()
}

fn wait(desk: &Desk<&'static str>) {
    let mut fds = [PollFd::from_borrowed_fd(desk.fd(), PollFlags::IN)];
    let deadline = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&deadline)), Ok(1), "no answer came");
}

fn touch(store: &mut dyn Store) -> Result<(), StoreError> {
    match store.runs(&HistoryQuery { chain: None, failed: false, limit: 1 }) {
        // The fake has no rows, and says so in this way.
        Ok(_) | Err(StoreError::Rejected { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[test]
fn answers_come_in_order_and_ring() {
    let mut desk = desk(0, 0);
    let tickets: Vec<Ticket> = ["a", "b", "c"].map(|word| desk.ask(move |_| Ok(word))).to_vec();
    let mut answers = Vec::new();
    while answers.len() < 3 {
        wait(&desk);
        answers.extend(desk.answers());
    }
    assert_eq!(answers.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets);
    assert_eq!(answers.into_iter().map(|(_, answer)| answer.unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((desk.open_requests(), desk.health()), (0, Health::Good));
    assert!(desk.answers().is_empty());
}

#[test]
fn a_database_that_comes_late_or_goes_away_is_waited_for() {
    let mut desk = desk(1, 1);
    desk.ask(|store| touch(store).map(|()| "done"));
    wait(&desk);
    assert_eq!(desk.answers().remove(0).1.unwrap(), "done");
    assert_eq!(desk.health(), Health::Good);
}

#[test]
fn what_will_not_pass_is_told_at_once() {
    let mut desk = desk(0, 0);
    desk.ask(|_| Err(StoreError::Newer { database: "fake".into(), found: 9, known: 1 }));
    desk.ask(|_| Ok("next"));
    let answers = desk.settle(Duration::from_secs(20));
    assert!(matches!(answers[0].1, Err(StoreError::Newer { .. })));
    assert_eq!(*answers[1].1.as_ref().unwrap(), "next");
}

#[test]
fn a_desk_that_is_closed_waits_for_nobody() {
    let mut desk = desk(u32::MAX, 0);
    desk.ask(|_| Ok("never"));
    assert!(desk.settle(Duration::from_millis(1)).is_empty());
    assert_eq!(desk.open_requests(), 1);
    let thread = desk.thread.take().unwrap();
    drop(desk);
    thread.join().unwrap();
}
