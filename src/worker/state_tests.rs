//! Tests of what a worker sees when it looks around.

use super::*;
use crate::config::queue_values::PriorityOrder;
use crate::queue::Next;
use crate::store::engine::{Engine, Work};
use crate::store::job::{NewJob, Want};
use crate::store::sqlite::Sqlite;
use crate::worker::job::not_begun;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

/// A database in which something happens right after the running jobs were read.
struct Meanwhile<D> {
    file: Sqlite,
    deed: Option<D>,
}

impl<D: FnOnce(&mut Sqlite) + Send> Engine for Meanwhile<D> {
    fn shown(&self) -> &str {
        self.file.shown()
    }

    fn write(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        self.file.write(doing, work)
    }

    fn read(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        self.file.read(doing, work)?;
        if let Some(deed) = self.deed.take_if(|_| doing == "read the jobs that run") {
            deed(&mut self.file);
        }
        Ok(())
    }
}

#[test]
fn a_worker_that_wrote_an_end_and_left_is_not_a_dead_one() {
    let home = tempfile::tempdir().unwrap();
    let mut file = Sqlite::open(&home.path().join("runner.db")).unwrap();
    let here = Owner::look();
    // A process that is gone when it is looked for.
    let gone = Owner { start_time: here.start_time + 1, ..here.clone() };
    let job = NewJob { queue: "q".into(), task: "t".into(), ..NewJob::default() };
    file.enqueue(&[job.clone(), job], at(0)).unwrap();
    let wants = vec![Want { queue: "q".into(), order: PriorityOrder::Descending, places: 2 }];
    let (finishes, token) = (Vec::new(), "x".to_owned());
    let turn =
        Turn { owner: gone, now: at(1), lease_until: at(61), finishes, renew: false, wants, places: 2, token, plenty: false, again: false };
    let taken = file.turn(&turn).unwrap().jobs;
    let (ended, dead) = (not_begun(&taken[0], Next::Done(false), at(2)), taken[1].id);
    let finish = move |file: &mut Sqlite| assert_eq!(file.finish_jobs(std::slice::from_ref(&ended)).unwrap(), 1);
    let seen = look(&mut Meanwhile { file, deed: Some(finish) }, &here).unwrap();
    let seen: Vec<_> = seen.iter().map(|seen| (seen.job.id, seen.alive)).collect();
    assert_eq!(seen, [(dead, Some(false))], "the other job has ended, and what it left running is to go on");
}
