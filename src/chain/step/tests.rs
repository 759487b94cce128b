//! A test for every cell of the table and every precedence, and a random walk that holds the promises of the whole.

mod whole;

use std::ffi::OsStr;

use rstest::rstest;

use super::*;
use crate::names::TaskName;

const TERM: i32 = 15;

fn at(seconds: u64) -> Moment {
    Moment::at(Duration::from_secs(seconds))
}

/// A chain as a story: what it is made of, then what happens to it.
struct Story {
    chain: Chain,
    now: Moment,
}

#[derive(Clone, Copy)]
struct Plot<'a> {
    files: &'a [&'a str],
    needs: &'a [(usize, usize)],
    width: usize,
    from: RetryFrom,
    max_tries: u32,
    own_tries: &'a [(usize, u32)],
    wait: u64,
    retry_deadline: u64,
    chain_max_time: u64,
    halt_on_give_up: bool,
}

const PLOT: Plot<'static> = Plot {
    files: &["1-a", "2-b", "3-c"],
    needs: &[],
    width: 1,
    from: RetryFrom::Start,
    max_tries: 3,
    own_tries: &[],
    wait: 10,
    retry_deadline: 0,
    chain_max_time: 0,
    halt_on_give_up: true,
};

/// Three tasks side by side.
const WIDE: Plot<'static> = Plot { files: &["1-a", "1-b", "1-c"], width: 3, ..PLOT };

fn limit(seconds: u64) -> Limit {
    Limit::of(Duration::from_secs(seconds))
}

impl Story {
    fn new(plot: Plot<'_>) -> Self {
        let names: Vec<_> = plot.files.iter().map(|file| TaskName::parse(OsStr::new(file))).collect();
        let mut depends_on = vec![Vec::new(); names.len()];
        for (task, need) in plot.needs {
            depends_on[*task].push(*need);
        }
        let plan = Plan::new(&names, &depends_on, plot.width).unwrap();
        let rules = Rules {
            max_parallel: plot.width,
            retry_from: plot.from,
            max_tries: Tries::of(plot.max_tries),
            retry_deadline: limit(plot.retry_deadline),
            chain_max_time: limit(plot.chain_max_time),
            halt_on_give_up: plot.halt_on_give_up,
        };
        let backoff = Backoff {
            sleep_time: Duration::from_secs(plot.wait),
            retry_jitter: Duration::ZERO,
            factor: 1.0,
            max_sleep_time: Duration::from_secs(3600),
        };
        let own = |task: usize| plot.own_tries.iter().find(|(own, _)| *own == task).map_or(plot.max_tries, |(_, tries)| *tries);
        let task_rules = (0..names.len()).map(|task| TaskRules { max_tries: Tries::of(own(task)), backoff });
        Self { chain: Chain::new(&plan, rules, task_rules, at(0)), now: at(0) }
    }

    fn begun(plot: Plot<'_>) -> Self {
        let mut story = Self::new(plot);
        story.step(Input::Begin);
        story
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = VecDeque::new();
        self.chain.step(input, self.now, &mut actions);
        actions.into()
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = at(seconds);
        self
    }

    fn judged(&mut self, task: usize, verdict: Verdict) -> Vec<Action> {
        self.step(Input::Judged { task, verdict, jitter: 0.0, unkillable: false })
    }

    fn freed(&mut self, task: usize) -> Vec<Action> {
        self.step(Input::Freed { task })
    }

    /// A task ends and its hook, too: both lists of actions.
    fn ends(&mut self, task: usize, verdict: Verdict) -> Vec<Action> {
        let mut actions = self.judged(task, verdict);
        actions.extend(self.freed(task));
        actions
    }
}

fn start(task: usize, try_num: u32, max_tries: u32) -> Action {
    Action::Start { task, try_num, max_tries }
}

const WAIT: Duration = Duration::from_secs(10);

// ---- verdicts while Open ----

#[rstest]
#[case(Verdict::Ok)]
#[case(Verdict::Skip)]
fn ok_and_skip_start_the_next_and_end_the_last(#[case] verdict: Verdict, #[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom) {
    let mut story = Story::new(Plot { from, ..PLOT });
    assert_eq!(story.step(Input::Begin), [start(0, 1, 3)]);
    assert_eq!(story.judged(0, verdict), [], "the place is free when the hook has run, too");
    assert_eq!(story.freed(0), [start(1, 1, 3)]);
    assert_eq!(story.ends(1, verdict), [start(2, 1, 3)]);
    assert_eq!(story.ends(2, verdict), [Action::End(Outcome::Done)]);
    assert_eq!(story.chain.phase(), Phase::Ended(Outcome::Done));
}

#[test]
fn retry_from_start_drains_pauses_and_begins_with_the_first_task() {
    let mut story = Story::begun(PLOT);
    story.ends(0, Verdict::Ok);
    assert_eq!(story.judged(1, Verdict::Retry), []);
    assert_eq!(story.chain.phase(), Phase::Draining(Why::Retry(WAIT)));
    assert_eq!(story.at(5).freed(1), [Action::Pause { wait: WAIT, try_num: 2 }]);
    assert_eq!(story.chain.phase(), Phase::Pause(at(15)), "from the moment the last task is gone");
    assert_eq!(story.chain.wake_at(), Some(at(15)));
    assert_eq!(story.at(14).step(Input::Woke), []);
    assert_eq!(story.at(15).step(Input::Woke), [start(0, 2, 3)], "all tasks wait again, done ones, too");
}

#[test]
fn retry_from_failed_lets_the_others_of_the_stage_go_on() {
    let mut story = Story::new(Plot { files: &["1-a", "1-b", "2-c"], width: 2, from: RetryFrom::Failed, ..PLOT });
    assert_eq!(story.step(Input::Begin), [start(0, 1, 3), start(1, 1, 3)]);
    assert_eq!(story.ends(0, Verdict::Retry), [Action::Sleep { task: 0, wait: WAIT }]);
    assert_eq!((story.chain.phase(), story.chain.task_state(0)), (Phase::Open, TaskState::Sleeping(at(10))));
    assert_eq!(story.ends(1, Verdict::Ok), [], "the next stage waits");
    assert_eq!(story.chain.wake_at(), Some(at(10)));
    assert_eq!(story.at(10).step(Input::Woke), [start(0, 2, 3)]);
    assert_eq!(story.ends(0, Verdict::Ok), [start(2, 1, 3)]);
}

#[rstest]
#[case(true, vec![Action::Halt(HaltReason::GaveUp, Some(0))])]
#[case(false, vec![Action::End(Outcome::GaveUp(GiveUp::Tries, Some(0)))])]
fn retry_with_no_tries_left_gives_up(
    #[case] halt: bool,
    #[case] expected: Vec<Action>,
    #[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom,
) {
    let mut story = Story::begun(Plot { from, max_tries: 1, halt_on_give_up: halt, ..PLOT });
    assert_eq!(story.judged(0, Verdict::Retry), [Action::Final { task: 0 }]);
    assert_eq!(story.chain.phase(), Phase::Draining(Why::GiveUp(0, GiveUp::Tries)));
    assert_eq!(story.freed(0), expected);
}

#[test]
fn giving_up_cancels_tasks_that_sleep() {
    let mut story = Story::begun(Plot { from: RetryFrom::Failed, own_tries: &[(1, 1)], ..WIDE });
    story.ends(0, Verdict::Retry);
    story.ends(1, Verdict::Retry);
    assert_eq!(story.chain.task_state(0), TaskState::Cancelled);
    assert_eq!(story.at(10).step(Input::Woke), [], "nothing new starts while draining");
    assert_eq!(story.ends(2, Verdict::Ok), [Action::Halt(HaltReason::GaveUp, Some(1))]);
}

#[rstest]
fn halt_cancels_the_others_at_once_and_runs_the_halt_task(#[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom) {
    let mut story = Story::begun(Plot { from, ..WIDE });
    assert_eq!(story.judged(1, Verdict::Halt), [Action::Cancel], "before its own hook has run");
    assert_eq!(story.chain.phase(), Phase::Cancelling(Why::Halt(1)));
    story.freed(1);
    story.ends(0, Verdict::Cancel);
    assert_eq!(story.ends(2, Verdict::Cancel), [Action::Halt(HaltReason::Task, Some(1))]);
    assert_eq!(story.chain.phase(), Phase::Halting(Outcome::Halted(1)));
    assert_eq!(story.step(Input::HaltEnded), [Action::End(Outcome::Halted(1))]);
}

#[rstest]
fn exit_drains_and_runs_no_halt_task(#[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom) {
    let mut story = Story::begun(Plot { from, ..WIDE });
    assert_eq!(story.ends(0, Verdict::Exit), []);
    assert_eq!(story.chain.phase(), Phase::Draining(Why::Exit(0)));
    story.ends(1, Verdict::Ok);
    assert_eq!(story.ends(2, Verdict::Ok), [Action::End(Outcome::StoppedByTask(0))]);
}

#[rstest]
#[case(true, vec![Action::Halt(HaltReason::ChainLimit, None)])]
#[case(false, vec![Action::End(Outcome::GaveUp(GiveUp::ChainLimit, None))])]
fn the_chain_limit_cancels(
    #[case] halt: bool,
    #[case] expected: Vec<Action>,
    #[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom,
) {
    let mut story = Story::begun(Plot { from, chain_max_time: 30, halt_on_give_up: halt, ..PLOT });
    assert_eq!(story.chain.wake_at(), Some(at(30)));
    assert_eq!(story.at(29).step(Input::Woke), []);
    assert_eq!(story.at(30).step(Input::Woke), [Action::Cancel]);
    assert_eq!(story.ends(0, Verdict::Cancel), expected);
}

#[rstest]
fn a_signal_cancels_and_runs_no_halt_task(#[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom) {
    let mut story = Story::begun(Plot { from, ..PLOT });
    assert_eq!(story.step(Input::Signal(TERM)), [Action::Cancel]);
    assert_eq!(story.step(Input::Signal(TERM)), [Action::KillNow], "the second kills");
    assert_eq!(story.ends(0, Verdict::Cancel), [Action::End(Outcome::Signalled(TERM))]);
}

#[test]
fn a_cancelled_task_has_used_no_try() {
    let mut story = Story::begun(WIDE);
    story.judged(0, Verdict::Halt);
    story.ends(1, Verdict::Cancel);
    assert_eq!(story.chain.task_state(1), TaskState::Cancelled);
    assert_eq!(story.chain.tasks[1].failures, 0);
}

// ---- while Draining and Cancelling: what wins ----

/// A reason's name, what happens to a task, and the end it leads to.
type Reason = (&'static str, fn(&mut Story, usize), Outcome);

/// The reasons in their order, each as what happens to task `n`, and the end it leads to alone.
fn reasons() -> Vec<Reason> {
    fn give_up(story: &mut Story, task: usize) {
        story.step(Input::Judged { task, verdict: Verdict::Retry, jitter: 0.0, unkillable: true });
    }
    fn exit(story: &mut Story, task: usize) {
        story.judged(task, Verdict::Exit);
    }
    fn chain_limit(story: &mut Story, task: usize) {
        story.at(100).step(Input::Woke);
        story.judged(task, Verdict::Cancel);
    }
    fn halt(story: &mut Story, task: usize) {
        story.judged(task, Verdict::Halt);
    }
    fn signal(story: &mut Story, task: usize) {
        story.step(Input::Signal(TERM));
        story.judged(task, Verdict::Cancel);
    }
    fn lock(story: &mut Story, task: usize) {
        story.step(Input::LockLost);
        story.judged(task, Verdict::Cancel);
    }
    let task = 0;
    vec![
        ("give up", give_up as fn(&mut Story, usize), Outcome::GaveUp(GiveUp::Unkillable, Some(task))),
        ("exit", exit, Outcome::StoppedByTask(task)),
        ("chain limit", chain_limit, Outcome::GaveUp(GiveUp::ChainLimit, None)),
        ("halt", halt, Outcome::Halted(task)),
        ("lock lost", lock, Outcome::LockLost),
        ("signal", signal, Outcome::Signalled(TERM)),
    ]
}

fn of_task(outcome: Outcome, task: usize) -> Outcome {
    match outcome {
        Outcome::GaveUp(why, Some(_)) => Outcome::GaveUp(why, Some(task)),
        Outcome::Halted(_) => Outcome::Halted(task),
        Outcome::StoppedByTask(_) => Outcome::StoppedByTask(task),
        Outcome::GaveUp(_, None) | Outcome::LockLost | Outcome::Signalled(_) | Outcome::Done => outcome,
    }
}

fn outcome_of(story: &mut Story) -> Outcome {
    for task in 0..3 {
        story.freed(task);
    }
    if matches!(story.chain.phase(), Phase::Halting(_)) {
        story.step(Input::HaltEnded);
    }
    match story.chain.phase() {
        Phase::Ended(outcome) => outcome,
        other => panic!("not ended: {other:?}"),
    }
}

#[test]
fn the_graver_reason_wins_in_either_order() {
    let reasons = reasons();
    for (low, (low_name, low_does, _)) in reasons.iter().enumerate() {
        for (high_name, high_does, high_end) in &reasons[low + 1..] {
            for high_first in [false, true] {
                let mut story = Story::begun(Plot { chain_max_time: 100, ..WIDE });
                let (first, second) = if high_first { (high_does, low_does) } else { (low_does, high_does) };
                first(&mut story, 0);
                second(&mut story, 1);
                story.judged(2, Verdict::Ok);
                let expected = of_task(*high_end, usize::from(!high_first));
                assert_eq!(outcome_of(&mut story), expected, "{low_name} and {high_name}, the graver one first: {high_first}");
            }
        }
    }
}

#[test]
fn a_retry_loses_against_every_other_reason() {
    for (name, does, end) in reasons() {
        for retry_first in [false, true] {
            let mut story = Story::begun(Plot { chain_max_time: 100, ..WIDE });
            if retry_first {
                story.judged(1, Verdict::Retry);
            }
            does(&mut story, 0);
            if !retry_first {
                story.judged(1, Verdict::Retry);
            }
            story.judged(2, Verdict::Ok);
            assert_eq!(outcome_of(&mut story), end, "{name}");
        }
    }
}

#[test]
fn of_two_equal_reasons_the_first_stays() {
    for (name, does, end) in reasons() {
        let mut story = Story::begun(Plot { chain_max_time: 100, ..WIDE });
        does(&mut story, 0);
        does(&mut story, 1);
        story.judged(2, Verdict::Ok);
        assert_eq!(outcome_of(&mut story), end, "{name}");
    }
}

#[test]
fn halt_signal_and_chain_limit_turn_draining_into_cancelling() {
    for input in [Input::Judged { task: 1, verdict: Verdict::Halt, jitter: 0.0, unkillable: false }, Input::Signal(TERM), Input::Woke] {
        let mut story = Story::begun(Plot { chain_max_time: 50, ..WIDE });
        story.judged(0, Verdict::Retry);
        assert!(matches!(story.chain.phase(), Phase::Draining(_)));
        assert_eq!(story.at(50).step(input), [Action::Cancel], "{input:?}");
        assert!(matches!(story.chain.phase(), Phase::Cancelling(_)));
    }
}

#[rstest]
#[case(Verdict::Ok)]
#[case(Verdict::Skip)]
#[case(Verdict::Cancel)]
fn other_verdicts_change_no_phase_while_draining_or_cancelling(#[case] verdict: Verdict) {
    for begin in [Verdict::Exit, Verdict::Halt] {
        let mut story = Story::begun(WIDE);
        story.judged(0, begin);
        let phase = story.chain.phase();
        assert_eq!(story.ends(1, verdict), []);
        assert_eq!(story.chain.phase(), phase);
    }
}

// ---- Pause, Halting, Ended ----

#[test]
fn a_signal_ends_a_pause_at_once_and_so_does_the_chain_limit() {
    let paused = |limit| {
        let mut story = Story::begun(Plot { chain_max_time: limit, ..PLOT });
        story.ends(0, Verdict::Retry);
        assert!(matches!(story.chain.phase(), Phase::Pause(_)));
        story
    };
    assert_eq!(paused(0).step(Input::Signal(TERM)), [Action::Cancel, Action::End(Outcome::Signalled(TERM))]);
    let mut late = paused(5);
    assert_eq!(late.chain.wake_at(), Some(at(5)));
    assert_eq!(late.at(5).step(Input::Woke), [Action::Cancel, Action::Halt(HaltReason::ChainLimit, None)]);
}

#[test]
fn the_halt_task_is_spared_the_first_signal_and_not_the_second() {
    let mut story = Story::begun(PLOT);
    story.ends(0, Verdict::Halt);
    assert_eq!(story.step(Input::Signal(TERM)), []);
    assert_eq!(story.step(Input::Signal(TERM)), [Action::KillNow]);
    assert_eq!(story.step(Input::HaltEnded), [Action::End(Outcome::Halted(0))], "the exit code stays");
}

#[test]
fn an_ended_chain_does_nothing_more() {
    let mut story = Story::begun(Plot { files: &["1-a"], ..PLOT });
    story.ends(0, Verdict::Ok);
    for input in [Input::Woke, Input::Signal(TERM), Input::LockLost, Input::HaltEnded] {
        assert_eq!(story.step(input), [], "{input:?}");
    }
    assert_eq!(story.chain.wake_at(), None);
}

#[test]
fn a_chain_without_tasks_is_done() {
    assert_eq!(Story::new(Plot { files: &[], ..PLOT }).step(Input::Begin), [Action::End(Outcome::Done)]);
}

// ---- counting ----

#[test]
fn several_failures_in_one_drain_are_one_try_with_the_longest_pause() {
    let mut story = Story::begun(WIDE);
    story.chain.tasks[1].rules.backoff.sleep_time = Duration::from_secs(99);
    for task in 0..3 {
        story.judged(task, Verdict::Retry);
    }
    story.freed(0);
    story.freed(1);
    assert_eq!(story.freed(2), [Action::Pause { wait: Duration::from_secs(99), try_num: 2 }]);
    assert_eq!(story.chain.try_num(), 1);
    assert!(story.chain.tasks.iter().all(|task| task.failures == 1), "one failure each");
}

#[test]
fn from_start_the_own_failures_of_a_task_count_against_its_own_lower_limit() {
    let mut story = Story::begun(Plot { own_tries: &[(1, 2)], ..PLOT });
    story.ends(0, Verdict::Retry);
    assert_eq!(story.at(10).step(Input::Woke), [start(0, 2, 3)]);
    story.ends(0, Verdict::Ok);
    assert_eq!(story.judged(1, Verdict::Retry), [], "its first failure, although the chain is in its second try");
    story.freed(1);
    story.at(20).step(Input::Woke);
    story.ends(0, Verdict::Ok);
    assert_eq!(story.judged(1, Verdict::Retry), [Action::Final { task: 1 }]);
}

#[test]
fn from_failed_each_task_has_its_own_tries() {
    let mut story = Story::begun(Plot { from: RetryFrom::Failed, own_tries: &[(0, 2), (1, 4)], ..WIDE });
    assert_eq!(story.ends(0, Verdict::Retry), [Action::Sleep { task: 0, wait: WAIT }]);
    assert_eq!(story.at(10).step(Input::Woke), [start(0, 2, 2)]);
    assert_eq!(story.ends(1, Verdict::Retry), [Action::Sleep { task: 1, wait: WAIT }]);
    assert_eq!(story.at(20).step(Input::Woke), [start(1, 2, 4)]);
    assert_eq!(story.judged(0, Verdict::Retry), [Action::Final { task: 0 }]);
}

#[rstest]
#[case(9, true)]
#[case(10, false)]
fn no_try_begins_after_the_deadline(
    #[case] deadline: u64,
    #[case] given_up: bool,
    #[values(RetryFrom::Start, RetryFrom::Failed)] from: RetryFrom,
) {
    let mut story = Story::begun(Plot { from, retry_deadline: deadline, ..PLOT });
    let actions = story.judged(0, Verdict::Retry);
    assert_eq!(actions.contains(&Action::Final { task: 0 }), given_up, "the wait of 10 would pass it: give up now");
}

#[test]
fn a_drain_that_takes_too_long_passes_the_deadline_as_well() {
    let mut story = Story::begun(Plot { retry_deadline: 10, ..WIDE });
    assert_eq!(story.ends(0, Verdict::Retry), []);
    story.ends(1, Verdict::Ok);
    assert_eq!(story.at(1).ends(2, Verdict::Ok), [Action::Halt(HaltReason::GaveUp, Some(0))]);
}

#[test]
fn a_task_that_woke_to_no_free_place_is_not_tried_after_the_deadline() {
    let plot = Plot { files: &["1-a", "1-b", "1-c"], width: 2, from: RetryFrom::Failed, retry_deadline: 20, ..PLOT };
    for (freed_at, expected) in [(20, vec![start(0, 2, 3)]), (21, vec![])] {
        let mut story = Story::begun(plot);
        assert_eq!(story.ends(0, Verdict::Retry), [Action::Sleep { task: 0, wait: WAIT }, start(2, 1, 3)]);
        assert_eq!(story.at(10).step(Input::Woke), [], "both places are taken");
        assert_eq!(story.at(freed_at).ends(1, Verdict::Ok), expected, "{freed_at}");
        if freed_at == 21 {
            assert_eq!(story.chain.phase(), Phase::Draining(Why::GiveUp(0, GiveUp::Deadline)));
            assert_eq!(story.ends(2, Verdict::Ok), [Action::Halt(HaltReason::GaveUp, Some(0))]);
        }
    }
}

#[test]
fn the_last_retry_is_final_where_the_pause_of_an_earlier_one_passes_the_deadline() {
    let mut story = Story::begun(Plot { retry_deadline: 100, ..WIDE });
    story.chain.tasks[0].rules.backoff.sleep_time = Duration::from_secs(99);
    assert_eq!(story.ends(0, Verdict::Retry), []);
    assert_eq!(story.at(2).ends(1, Verdict::Retry), [Action::Final { task: 1 }]);
    assert_eq!(story.ends(2, Verdict::Ok), [Action::Halt(HaltReason::GaveUp, Some(1))]);
}

#[test]
fn the_last_to_fail_is_the_last() {
    for deadline in [0, 15] {
        let mut story = Story::begun(Plot { max_tries: if deadline == 0 { 1 } else { 3 }, retry_deadline: deadline, ..WIDE });
        story.ends(2, Verdict::Retry);
        story.at(1).ends(1, Verdict::Retry);
        assert_eq!(story.at(6).ends(0, Verdict::Ok), [Action::Halt(HaltReason::GaveUp, Some(1))], "{deadline}");
    }
}

#[test]
fn what_survives_kill_is_never_retried_beside() {
    let mut story = Story::begun(PLOT);
    story.step(Input::Judged { task: 0, verdict: Verdict::Retry, jitter: 0.0, unkillable: true });
    assert_eq!(story.chain.phase(), Phase::Draining(Why::GiveUp(0, GiveUp::Unkillable)));
}

#[test]
fn dependents_wait_for_their_needs_and_places_are_given_in_order() {
    let mut story = Story::new(Plot { files: &["1-a", "1-b", "1-c", "1-d"], needs: &[(1, 3)], width: 2, ..PLOT });
    // The order of the plan: a, c, d, b.
    assert_eq!(story.step(Input::Begin), [start(0, 1, 3), start(1, 1, 3)]);
    assert_eq!(story.ends(1, Verdict::Ok), [start(2, 1, 3)]);
    assert_eq!(story.ends(0, Verdict::Ok), [], "b waits for d");
    assert_eq!(story.ends(2, Verdict::Ok), [start(3, 1, 3)]);
}

// ---- before and after ----

#[test]
fn a_lost_lock_cancels_and_runs_no_halt_task() {
    let mut story = Story::begun(PLOT);
    assert_eq!(story.step(Input::LockLost), [Action::Cancel]);
    assert_eq!(story.ends(0, Verdict::Cancel), [Action::End(Outcome::LockLost)]);
}

#[test]
fn a_run_that_only_halts_ends_as_done() {
    let mut story = Story::new(PLOT);
    let mut actions = VecDeque::new();
    story.chain.halt_only(&mut actions);
    assert_eq!(actions, [Action::Halt(HaltReason::AfterLast, None)]);
    assert_eq!(story.step(Input::HaltEnded), [Action::End(Outcome::Done)]);
}

#[test]
fn who_is_told_to_stop_before_it_begins_starts_nothing() {
    let mut story = Story::new(PLOT);
    assert_eq!(story.step(Input::Signal(TERM)), [Action::Cancel, Action::End(Outcome::Signalled(TERM))]);
    assert_eq!(story.step(Input::Begin), []);
}
