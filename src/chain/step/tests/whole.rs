//! What holds of every chain, whatever its tasks do: random chains, random verdicts.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Random chains and random verdicts: it always ends, nothing runs twice at once, no more run than may,
    /// every dependency is done before its dependent starts, `try <= tries`, and "done" is said only of all.
    #[test]
    fn promises_of_the_whole(
        count in 1..7usize,
        width in 1..4usize,
        from_failed in any::<bool>(),
        max_tries in 1..4u32,
        edges in proptest::collection::vec((0..7usize, 0..7usize), 0..6),
        verdicts in proptest::collection::vec(0..20u8, 200),
        signal_at in proptest::option::of(0..30usize),
    ) {
        let files: Vec<String> = (0..count).map(|task| format!("{}-t{task}", task / 2)).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let needs: Vec<_> = edges.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| b < a).collect();
        let from = if from_failed { RetryFrom::Failed } else { RetryFrom::Start };
        let mut story = Story::new(Plot { files: &files, needs: &needs, width, from, max_tries, ..PLOT });
        let mut running: Vec<usize> = Vec::new();
        let mut actions = story.step(Input::Begin);
        let mut outcome = None;
        for (round, verdict) in verdicts.iter().enumerate() {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Start { task, try_num, max_tries } => {
                        prop_assert!(!running.contains(&task), "a second copy");
                        prop_assert!(try_num >= 1 && try_num <= max_tries);
                        let mut needed = (0..count).filter(|need| story.chain.dependents.of_task(*need).contains(&task));
                        prop_assert!(needed.all(|need| story.chain.task_state(need) == TaskState::Done));
                        running.push(task);
                        prop_assert!(running.len() <= width);
                    }
                    Action::Halt(..) => { prop_assert!(running.is_empty()); actions.extend(story.step(Input::HaltEnded)); }
                    Action::End(end) => outcome = Some(end),
                    Action::Final { .. } | Action::Sleep { .. } | Action::Pause { .. } | Action::Cancel | Action::KillNow => {}
                }
            }
            if actions.iter().any(|action| matches!(action, Action::End(_))) { continue; }
            if outcome.is_some() { break; }
            if signal_at == Some(round) {
                actions.extend(story.step(Input::Signal(TERM)));
                continue;
            }
            match running.first().copied() {
                Some(_) => {
                    let task = running.remove(usize::from(*verdict) % running.len());
                    let cancelled = matches!(story.chain.phase(), Phase::Cancelling(_));
                    let verdict = match verdict {
                        _ if cancelled => Verdict::Cancel,
                        0 => Verdict::Halt,
                        1 => Verdict::Exit,
                        2..8 => Verdict::Retry,
                        8 => Verdict::Skip,
                        _ => Verdict::Ok,
                    };
                    actions.extend(story.ends(task, verdict));
                }
                None => {
                    let wake = story.chain.wake_at();
                    prop_assert!(wake.is_some(), "nothing runs and nothing will: {:?}", story.chain.phase());
                    story.now = wake.unwrap();
                    actions.extend(story.step(Input::Woke));
                }
            }
        }
        prop_assert!(outcome.is_some() || !running.is_empty() || story.chain.wake_at().is_some());
        if outcome == Some(Outcome::Done) {
            prop_assert!((0..count).all(|task| story.chain.task_state(task) == TaskState::Done), "reported as done and not run");
        }
    }
}
