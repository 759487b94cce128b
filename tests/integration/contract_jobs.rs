//! What every database has to do for the queue; a part of the suite in `contract.rs`.

use std::time::Duration;

use jiff::Timestamp;
use runner::config::queue_values::{Keep, PriorityOrder};
use runner::queue::{JobState, Next};
use runner::store::job::{Existing, Finish, JobQuery, JobRecord, Kept, NewJob, Turn, Turned, Want};
use runner::store::{Owner, Store};

use crate::contract::{at, owner};

pub(crate) fn new_job(queue: &str, task: &str) -> NewJob {
    NewJob { queue: queue.into(), task: task.into(), ..NewJob::default() }
}

pub(crate) fn turn_of(owner: &Owner, queue: &str, places: u32, seconds: i64) -> Turn {
    // No two turns have the same token.
    static TURNS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = TURNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Turn {
        owner: owner.clone(),
        now: at(seconds),
        lease_until: at(seconds + 60),
        finishes: Vec::new(),
        renew: false,
        wants: vec![Want { queue: queue.into(), order: PriorityOrder::Descending, places }],
        places,
        plenty: false,
        token: format!("{}-{number:08}", owner.pid),
        again: false,
    }
}

pub(crate) fn finish_of(job: &JobRecord, next: Next, seconds: i64) -> Finish {
    Finish {
        id: job.id,
        claim: job.claim.clone().unwrap(),
        next,
        repetition: None,
        at: at(seconds),
        result: "OK",
        exit_code: Some(0),
        signal: None,
        message: Some("exit 0".into()),
        last_error: None,
        lease: None,
    }
}

fn ids(turned: &Turned) -> Vec<i64> {
    turned.jobs.iter().map(|job| job.id).collect()
}

fn state(store: &mut dyn Store, id: i64, now: Timestamp) -> JobState {
    store.job(id).unwrap().unwrap().state(now)
}

pub(crate) fn jobs_fulfil_the_contract(store: &mut dyn Store) {
    what_is_added_is_there(store);
    jobs_are_taken_in_order(store, "order", false);
    jobs_are_taken_in_order(store, "plenty", true);
    a_lost_answer_is_given_again(store);
    a_busy_worker_ends_and_begins(store);
    results_and_repetitions_are_one(store);
    a_worker_that_has_lost_a_job_changes_nothing(store);
    equal_jobs(store);
    cancelled_and_begun_anew(store);
    old_jobs_are_forgotten(store);
    jobs_are_counted(store);
}

fn what_is_added_is_there(store: &mut dyn Store) {
    let full = NewJob {
        args: vec!["a b".into(), "\"ž\\".into()],
        name: Some("a name".into()),
        creator: Some("me".into()),
        key: Some("k".into()),
        priority: -3,
        due: Some(at(100)),
        repeat: Some(Duration::from_secs(60)),
        repeat_until: Some(at(1000)),
        max_attempts: Some(3),
        ..new_job("added", "task")
    };
    let mut jobs = vec![new_job("added", "plain"); 250];
    jobs.insert(120, full);
    let added = store.enqueue(&jobs, at(0)).unwrap();
    assert_eq!(added.len(), 251);
    assert!(added.is_sorted_by(|one, other| one < other), "in the order of the jobs");
    let job = store.job(added[120]).unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Vec<String>>(&job.args).unwrap(), ["a b", "\"ž\\"]);
    assert_eq!((job.name.as_deref(), job.creator.as_deref(), job.key.as_deref()), (Some("a name"), Some("me"), Some("k")));
    assert_eq!(
        (job.priority, job.due, job.planned(), job.repeat_ms, job.repeat_until),
        (-3, at(100), at(100), Some(60_000), Some(at(1000)))
    );
    assert_eq!((job.attempts, job.max_attempts, job.created), (0, Some(3), at(0)));
    assert_eq!((job.state(at(99)), job.state(at(100))), (JobState::Scheduled, JobState::Ready));
    let query = |state| JobQuery { queue: Some("added".into()), state, limit: 1000, now: at(0) };
    assert_eq!(store.jobs(&query(None)).unwrap().len(), 251);
    assert_eq!(store.jobs(&query(Some(JobState::Scheduled))).unwrap().iter().map(|job| job.id).collect::<Vec<_>>(), [added[120]]);
    assert_eq!(store.jobs(&query(Some(JobState::Ready))).unwrap()[0].id, added[250], "the newest first");
    let counts: Vec<_> = store.count_jobs(at(0)).unwrap().into_iter().filter(|count| count.queue == "added").collect();
    assert_eq!(
        counts.iter().map(|count| (count.state, count.count)).collect::<Vec<_>>(),
        [(JobState::Scheduled, 1), (JobState::Ready, 250)]
    );
    assert_eq!(store.enqueue(&[], at(0)).unwrap(), [0_i64; 0]);
    assert!(store.job(i64::MAX).unwrap().is_none());
}

/// With `plenty` the first look takes at once; what is taken is the same.
fn jobs_are_taken_in_order(store: &mut dyn Store, queue: &str, plenty: bool) {
    let me = owner(queue);
    let turn_of = |owner: &Owner, queue: &str, places, seconds| Turn { plenty, ..turn_of(owner, queue, places, seconds) };
    let job = |priority, due| NewJob { priority, due: Some(at(due)), ..new_job(queue, "t") };
    let added = store.enqueue(&[job(0, 5), job(0, 1), job(7, 3), job(7, 3), job(9, 50), job(-1, 0)], at(0)).unwrap();
    let place = |numbers: &[usize]| numbers.iter().map(|number| added[*number]).collect::<Vec<_>>();
    let first = store.turn(&turn_of(&me, queue, 2, 10)).unwrap();
    assert_eq!(ids(&first), place(&[2, 3]), "the highest priority that is due, then due time, then number");
    let mut low = turn_of(&me, queue, 1, 10);
    low.wants[0].order = PriorityOrder::Ascending;
    assert_eq!(ids(&store.turn(&low).unwrap()), place(&[5]), "niceness");
    let rest = store.turn(&turn_of(&me, queue, 9, 10)).unwrap();
    assert_eq!((ids(&rest), rest.next_due), (place(&[1, 0]), Some(at(50))));
    let none = store.turn(&turn_of(&me, queue, 9, 10)).unwrap();
    assert_eq!((none.jobs.len(), none.next_due), (0, Some(at(50))));
    let job = &first.jobs[0];
    assert_eq!((job.attempts, job.state.as_str(), job.owner().map(|owner| owner.pid)), (1, "running", Some(me.pid)));
    assert_eq!((job.lease_until, job.began), (Some(at(70)), Some(at(10))));
    let mine: Vec<_> = store.running_jobs().unwrap().into_iter().filter(|job| job.queue == queue).collect();
    assert_eq!(mine.len(), 5);
    let renewed = store.turn(&Turn { renew: true, wants: Vec::new(), ..turn_of(&me, queue, 0, 30) }).unwrap();
    assert_eq!(renewed.held.map(|held| held.len()), Some(5));
    assert_eq!(store.job(job.id).unwrap().unwrap().lease_until, Some(at(90)));
    let two = [Want { queue: "none".into(), order: PriorityOrder::Descending, places: 5 }, turn_of(&me, queue, 5, 60).wants[0].clone()];
    assert_eq!(ids(&store.turn(&Turn { wants: two.into(), places: 1, ..turn_of(&me, "", 0, 60) }).unwrap()), place(&[4]));
}

fn a_lost_answer_is_given_again(store: &mut dyn Store) {
    let me = owner("again");
    store.enqueue(&vec![new_job("again", "t"); 5], at(0)).unwrap();
    let turn = turn_of(&me, "again", 2, 1);
    let first = store.turn(&turn).unwrap();
    let again = store.turn(&Turn { again: true, ..turn.clone() }).unwrap();
    assert_eq!(ids(&again), ids(&first));
    assert_eq!(store.turn(&turn_of(&me, "again", 9, 1)).unwrap().jobs.len(), 3);
    let taken = store.enqueue(&[NewJob { due: Some(at(99)), ..new_job("again", "t") }], at(0)).unwrap()[0];
    let turn = turn_of(&me, "again", 1, 1);
    for _ in 0..2 {
        assert_eq!(store.take_job(taken, &turn).unwrap().map(|job| job.id), Some(taken));
    }
    assert_eq!(store.take_job(taken, &turn_of(&me, "again", 1, 1)).unwrap(), None);
}

/// Results, and as many new jobs for the places that they leave: what a busy worker asks for, again and again.
fn a_busy_worker_ends_and_begins(store: &mut dyn Store) {
    let me = owner("busy");
    let job = |priority| NewJob { priority, ..new_job("busy", "t") };
    let added = store.enqueue(&[job(2), job(2), job(2), job(2), job(2), job(1), job(0)], at(0)).unwrap();
    let busy = |ended: &[JobRecord], next: Next| {
        let finishes: Vec<_> = ended.iter().map(|job| finish_of(job, next, 2)).collect();
        Turn { plenty: true, wants: turn_of(&me, "busy", 4, 2).wants, finishes, ..turn_of(&me, "busy", 2, 2) }
    };
    let first = store.turn(&turn_of(&me, "busy", 2, 1)).unwrap();
    let turn = busy(&first.jobs, Next::Done(false));
    let second = store.turn(&turn).unwrap();
    assert_eq!((ids(&second), second.next_due), (added[2..4].to_vec(), None), "no more than there are places in all");
    assert!(first.jobs.iter().all(|job| store.job(job.id).unwrap().unwrap().state(at(2)) == JobState::Done));
    assert_eq!(ids(&store.turn(&Turn { again: true, ..turn }).unwrap()), ids(&second), "the answer was lost");
    // Of the first priority there is one left: the place beside it is for the next.
    let third = store.turn(&busy(&second.jobs, Next::Failed)).unwrap();
    assert_eq!(ids(&third), added[4..6]);
    // One goes back in the same turn, and is taken again with the last one.
    let fourth = store.turn(&busy(&third.jobs[1..], Next::Done(false))).unwrap();
    assert_eq!(ids(&fourth), added[6..]);
    let fifth = store.turn(&busy(&[third.jobs[0].clone(), fourth.jobs[0].clone()], Next::Back)).unwrap();
    assert_eq!(ids(&fifth), [added[4], added[6]]);
    assert!(fifth.jobs.iter().all(|job| job.attempts == 1));
    let last = store.turn(&busy(&fifth.jobs, Next::Done(false))).unwrap();
    assert_eq!((last.jobs.len(), last.next_due), (0, None));
    assert!(added.iter().all(|id| matches!(state(store, *id, at(2)), JobState::Done | JobState::Failed)));
    // Somebody else's by now: nothing is changed, and nothing is left free.
    let more = store.enqueue(&[job(0)], at(0)).unwrap();
    assert_eq!(ids(&store.turn(&busy(&first.jobs[..1], Next::Failed)).unwrap()), more);
    assert_eq!(state(store, first.jobs[0].id, at(2)), JobState::Done);
}

fn results_and_repetitions_are_one(store: &mut dyn Store) {
    let me = owner("ends");
    let repeating = NewJob { repeat: Some(Duration::from_secs(60)), key: Some("r".into()), args: vec!["x".into()], ..new_job("ends", "t") };
    store.enqueue(&[repeating, new_job("ends", "t"), new_job("ends", "t"), new_job("ends", "t")], at(0)).unwrap();
    let jobs = store.turn(&turn_of(&me, "ends", 9, 1)).unwrap().jobs;
    let done = Finish { repetition: Some(at(60)), ..finish_of(&jobs[0], Next::Done(false), 2) };
    let again = Finish {
        result: "RETRY",
        exit_code: Some(7),
        message: Some("exit 7".into()),
        last_error: Some("why\n".into()),
        ..finish_of(&jobs[1], Next::Again(at(9)), 2)
    };
    let finishes = vec![done, again, finish_of(&jobs[2], Next::Back, 2), finish_of(&jobs[3], Next::Failed, 2)];
    let turn = Turn { finishes, ..turn_of(&me, "ends", 9, 2) };
    let turned = store.turn(&turn).unwrap();
    assert_eq!((ids(&turned), turned.next_due), (vec![jobs[2].id], Some(at(9))), "one transaction ends and begins");
    assert_eq!(turned.jobs[0].attempts, 1, "what went back was no attempt");
    store.turn(&Turn { again: true, ..turn }).unwrap();
    let query = JobQuery { queue: Some("ends".into()), state: None, limit: 99, now: at(2) };
    let all = store.jobs(&query).unwrap();
    assert_eq!(all.len(), 5, "the repetition is there, once");
    let next = &all[0];
    assert_eq!((next.state(at(2)), next.due, next.planned(), next.attempts), (JobState::Scheduled, at(60), at(60), 0));
    assert_eq!((next.key.as_deref(), next.args.as_str(), next.repeat_ms), (Some("r"), "[\"x\"]", Some(60_000)));
    let one = store.job(jobs[1].id).unwrap().unwrap();
    assert_eq!((one.state(at(9)), one.due, one.attempts, one.exit_code), (JobState::Ready, at(9), 1, Some(7)));
    assert_eq!((one.last_error.as_deref(), one.message.as_deref(), one.claim.as_deref()), (Some("why\n"), Some("exit 7"), None));
    assert_eq!(one.planned(), at(0), "a later try does not move the plan");
    assert_eq!([0, 3].map(|job: usize| state(store, jobs[job].id, at(2))), [JobState::Done, JobState::Failed]);
    assert_eq!(store.job(jobs[0].id).unwrap().unwrap().ended, Some(at(2)));
}

fn a_worker_that_has_lost_a_job_changes_nothing(store: &mut dyn Store) {
    let (slow, quick) = (owner("slow"), Owner { pid: 99, ..owner("quick") });
    let id = store.enqueue(&[new_job("lost", "t")], at(0)).unwrap()[0];
    let first = store.turn(&turn_of(&slow, "lost", 1, 1)).unwrap().jobs.remove(0);
    assert_eq!(store.finish_jobs(&[finish_of(&first, Next::Again(at(2)), 2)]).unwrap(), 1);
    assert_eq!(store.finish_jobs(&[finish_of(&first, Next::Again(at(2)), 2)]).unwrap(), 0, "others were quicker");
    let second = store.turn(&turn_of(&quick, "lost", 1, 3)).unwrap().jobs.remove(0);
    assert_eq!((second.id, second.attempts), (id, 2));
    let late = Finish { repetition: Some(at(60)), ..finish_of(&first, Next::Done(false), 4) };
    let turned = store.turn(&Turn { finishes: vec![late], renew: true, ..turn_of(&slow, "lost", 1, 4) }).unwrap();
    assert_eq!((turned.jobs.len(), turned.held), (0, Some(Vec::new())));
    assert_eq!(state(store, id, at(4)), JobState::Running);
    assert_eq!(store.finish_jobs(&[finish_of(&second, Next::Done(true), 5)]).unwrap(), 1);
    assert_eq!(state(store, id, at(5)), JobState::Done);
}

fn equal_jobs(store: &mut dyn Store) {
    let me = owner("equal");
    let job = |existing, due| NewJob { key: Some("k".into()), existing, due: Some(at(due)), ..new_job("equal", "t") };
    let add = |store: &mut dyn Store, existing, due| store.enqueue(&[job(existing, due)], at(0)).unwrap()[0];
    let first = add(store, Existing::Keep, 10);
    assert_eq!(add(store, Existing::Keep, 20), first);
    assert_eq!(store.job(first).unwrap().unwrap().due, at(10));
    assert_eq!(add(store, Existing::Reschedule, 30), first);
    assert_eq!(store.job(first).unwrap().unwrap().due, at(30));
    let second = add(store, Existing::Replace, 1);
    assert_eq!((state(store, first, at(0)), second > first), (JobState::Cancelled, true));
    let running = store.turn(&turn_of(&me, "equal", 1, 5)).unwrap().jobs.remove(0);
    assert_eq!(running.id, second);
    assert_eq!(add(store, Existing::Keep, 1), second, "it runs");
    let third = add(store, Existing::Reschedule, 40);
    assert!(third > second, "what runs has its time already");
    let fourth = add(store, Existing::Add, 40);
    let other = NewJob { queue: "equal too".into(), ..job(Existing::Keep, 1) };
    assert!(store.enqueue(&[other], at(0)).unwrap()[0] > fourth, "of another queue");
    assert_eq!(state(store, second, at(5)), JobState::Running);
}

fn cancelled_and_begun_anew(store: &mut dyn Store) {
    let me = owner("cancel");
    let added = store.enqueue(&vec![new_job("cancel", "t"); 3], at(0)).unwrap();
    let running = store.turn(&turn_of(&me, "cancel", 1, 1)).unwrap().jobs.remove(0);
    assert_eq!(store.cancel_jobs(&[added[0], added[1], i64::MAX], at(2)).unwrap(), (vec![added[1]], vec![added[0]]));
    let held = store.turn(&Turn { renew: true, wants: Vec::new(), ..turn_of(&me, "cancel", 0, 2) }).unwrap().held.unwrap();
    assert_eq!(held, [(running.claim.clone().unwrap(), true)]);
    store.finish_jobs(&[finish_of(&running, Next::Cancelled, 3)]).unwrap();
    assert_eq!(
        added.iter().map(|id| state(store, *id, at(3))).collect::<Vec<_>>(),
        [JobState::Cancelled, JobState::Cancelled, JobState::Ready]
    );
    assert_eq!(store.retry_jobs(&added, at(4)).unwrap(), added[..2], "the third has not ended");
    let job = store.job(added[0]).unwrap().unwrap();
    assert_eq!((job.state(at(4)), job.attempts, job.ended, job.cancel), (JobState::Ready, 0, None, false));
}

fn old_jobs_are_forgotten(store: &mut dyn Store) {
    let me = owner("old");
    store.enqueue(&vec![new_job("old", "t"); 8], at(0)).unwrap();
    let jobs = store.turn(&turn_of(&me, "old", 7, 1)).unwrap().jobs;
    let finishes: Vec<_> = jobs[..6]
        .iter()
        .zip(10..)
        .map(|(job, seconds)| finish_of(job, if seconds < 14 { Next::Done(false) } else { Next::Failed }, seconds))
        .collect();
    assert_eq!(store.finish_jobs(&finishes).unwrap(), 6);
    let kept = |count, age: u64| {
        let done = Keep { count, age: Some(Duration::from_secs(age)) };
        [Kept { queue: "old".into(), done, failed: Keep { count: None, age: None } }]
    };
    assert_eq!(store.prune_jobs(&kept(Some(3), 1000), at(100), 99).unwrap(), 1, "too many");
    assert_eq!(store.prune_jobs(&kept(Some(3), 90), at(100), 1).unwrap(), 0, "none is so old");
    assert_eq!(store.prune_jobs(&kept(None, 88), at(100), 1).unwrap(), 1, "too old, and no more than was allowed");
    assert_eq!(store.prune_jobs(&kept(Some(0), 1000), at(100), 99).unwrap(), 2);
    let query = JobQuery { queue: Some("old".into()), state: None, limit: 99, now: at(100) };
    assert_eq!(store.jobs(&query).unwrap().len(), 4, "what failed, runs or waits stays");
}

fn jobs_are_counted(store: &mut dyn Store) {
    let me = owner("count");
    let counted = |store: &mut dyn Store, seconds| -> Vec<_> {
        let counts = store.count_jobs(at(seconds)).unwrap().into_iter().filter(|count| count.queue.starts_with("count"));
        counts.map(|count| (count.queue, count.state, count.count, count.first_due)).collect()
    };
    let is_open = |store: &mut dyn Store, seconds| store.has_open_jobs(&turn_of(&me, "count", 1, 0).wants, at(seconds)).unwrap();
    let queue = || "count".to_owned();
    assert!(counted(store, 0).is_empty() && !is_open(store, 0));
    let due = |priority, due| NewJob { due: Some(at(due)), priority, ..new_job("count", "t") };
    store.enqueue(&[due(0, 20), due(-1, 30), due(2, 40), due(0, 20)], at(0)).unwrap();
    store.enqueue(&[new_job("counter", "t")], at(5)).unwrap();
    let other = ("counter".to_owned(), JobState::Ready, 1, Some(at(5)));
    assert_eq!(counted(store, 10), [(queue(), JobState::Scheduled, 4, Some(at(20))), other.clone()]);
    assert!(!is_open(store, 10), "of another queue, or later");
    let at_30 = [(queue(), JobState::Scheduled, 1, Some(at(40))), (queue(), JobState::Ready, 3, Some(at(20))), other.clone()];
    assert_eq!(counted(store, 30), at_30);
    assert!(is_open(store, 20), "ready");
    let jobs = store.turn(&turn_of(&me, "count", 9, 40)).unwrap().jobs;
    assert_eq!(counted(store, 40), [(queue(), JobState::Running, 4, Some(at(20))), other.clone()]);
    assert!(is_open(store, 0), "running");
    let next = [Next::Done(false), Next::Failed, Next::Done(true), Next::Again(at(60))];
    let finishes: Vec<_> = jobs.iter().zip(next).map(|(job, next)| finish_of(job, next, 50)).collect();
    store.finish_jobs(&finishes).unwrap();
    let ended = [(queue(), JobState::Done, 2, None), (queue(), JobState::Failed, 1, None)];
    let later = (queue(), JobState::Scheduled, 1, Some(at(60)));
    assert_eq!(counted(store, 50), [&[later], &ended[..], std::slice::from_ref(&other)].concat());
    assert!(!is_open(store, 50) && is_open(store, 60));
    let waiting = jobs[3].id;
    store.cancel_jobs(&[waiting], at(50)).unwrap();
    assert_eq!(counted(store, 50), [&ended[..], &[(queue(), JobState::Cancelled, 1, None), other]].concat());
}
