//! The order of tasks: sort key, dependencies, stages. Decides only.
//!
//! The smallest ready task is taken again and again; the result is the same at every width.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::iter::Peekable;

use thiserror::Error;

use crate::names::{TaskName, suggestion};

/// Why no order can be made.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    /// `depends_on` names something that is not there.
    #[error("`{task}` depends on `{word}`, and no task is called so{suggestion}")]
    Unknown {
        /// Who depends.
        task: String,
        /// On what.
        word: String,
        /// "did you mean", or nothing.
        suggestion: String,
    },
    /// `depends_on` names a file that is left out.
    #[error("`{task}` depends on `{word}`, which is left out: {reason}")]
    LeftOut {
        /// Who depends.
        task: String,
        /// On what.
        word: String,
        /// Why that is no task.
        reason: String,
    },
    /// `depends_on` names two files by the name they share.
    #[error("`{task}` depends on `{word}`, and {files} are both called so; write the file name")]
    Ambiguous {
        /// Who depends.
        task: String,
        /// On what.
        word: String,
        /// The files.
        files: String,
    },
    /// The dependencies form a circle.
    #[error("the dependencies form a circle: {path}")]
    Cycle {
        /// All of them, the first one again at the end.
        path: String,
        /// Its first task.
        first: Option<usize>,
    },
}

impl GraphError {
    /// A task whose `depends_on` has a part in it, where that is not said by the caller's own place.
    pub fn task(&self) -> Option<usize> {
        match self {
            Self::Cycle { first, .. } => *first,
            Self::Unknown { .. } | Self::LeftOut { .. } | Self::Ambiguous { .. } => None,
        }
    }
}

/// One task in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its index in the list that was planned.
    pub task: usize,
    /// The places it depends on; each is earlier than its own.
    pub depends_on: Vec<usize>,
    /// Its stage, counted from 0 without gaps. Later places never have an earlier stage.
    pub stage: usize,
}

/// The tasks of a chain in the order in which they are started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The places, in order.
    pub places: Vec<Place>,
}

/// Finds the tasks that the words of `depends_on` mean. File names go before short names.
pub struct Resolver<'a> {
    tasks: &'a [TaskName],
    by_file: HashMap<&'a str, usize>,
    /// Nothing where several tasks are called so.
    by_short: HashMap<&'a str, Option<usize>>,
    left_out: HashMap<&'a str, &'a str>,
}

impl<'a> Resolver<'a> {
    /// A resolver for these tasks; `left_out` are the files that are none, with the reason.
    pub fn new(tasks: &'a [TaskName], left_out: impl IntoIterator<Item = (&'a TaskName, &'a str)>) -> Self {
        let mut by_short = HashMap::with_capacity(tasks.len());
        for (index, task) in tasks.iter().enumerate() {
            by_short.entry(task.short()).and_modify(|known| *known = None).or_insert(Some(index));
        }
        let by_file = tasks.iter().enumerate().map(|(index, task)| (task.text(), index)).collect();
        let left_out = left_out.into_iter().flat_map(|(name, reason)| [(name.short(), reason), (name.text(), reason)]).collect();
        Self { tasks, by_file, by_short, left_out }
    }

    /// The task that `word` in the `depends_on` of `task` means.
    ///
    /// # Errors
    /// The word means no task, a file that is left out, or more than one task.
    pub fn resolve(&self, task: &TaskName, word: &str) -> Result<usize, GraphError> {
        if let Some(index) = self.by_file.get(word) {
            return Ok(*index);
        }
        let (task, word) = (task.to_string(), word.to_owned());
        match self.by_short.get(word.as_str()) {
            Some(Some(index)) => Ok(*index),
            Some(None) => {
                let files: Vec<_> = self.tasks.iter().filter(|task| task.short() == word).map(|task| format!("`{task}`")).collect();
                Err(GraphError::Ambiguous { task, word, files: files.join(" and ") })
            }
            None => match self.left_out.get(word.as_str()) {
                Some(reason) => Err(GraphError::LeftOut { task, word, reason: (*reason).to_owned() }),
                None => {
                    let suggestion = suggestion(&word, self.tasks.iter().flat_map(|task| [task.short(), task.text()]));
                    Err(GraphError::Unknown { task, word, suggestion })
                }
            },
        }
    }
}

/// Who waits for each task: all of them in one list, since most chains have thousands of tasks and few dependencies.
#[derive(Debug, Clone, Default)]
pub struct Dependents {
    /// Where those of each task end; nothing where nobody waits for anybody.
    ends: Vec<usize>,
    all: Vec<usize>,
}

impl Dependents {
    /// Turns round what each task waits for.
    pub fn of<'a>(needs: impl Iterator<Item = &'a [usize]> + Clone) -> Self {
        let total = needs.clone().map(<[usize]>::len).sum();
        if total == 0 {
            return Self::default();
        }
        let mut ends = vec![0; needs.clone().count()];
        needs.clone().flatten().for_each(|need| ends[*need] += 1);
        let mut sum = 0;
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        // They are begins by now, and each goes on to its end as its list is filled.
        let mut all = vec![0; total];
        for (task, needed) in needs.enumerate() {
            for need in needed {
                all[ends[*need]] = task;
                ends[*need] += 1;
            }
        }
        Self { ends, all }
    }

    /// Those who wait for this one, in their order.
    pub fn of_task(&self, task: usize) -> &[usize] {
        let Some(end) = self.ends.get(task) else { return &[] };
        &self.all[task.checked_sub(1).map_or(0, |before| self.ends[before])..*end]
    }
}

impl Plan {
    /// Puts `tasks` in order. `tasks` stand in their sort order; `depends_on[i]` are the indices that task
    /// `i` waits for. At width 1 each task is a stage of its own; above it a task's stage is its number, or the
    /// stage of its latest dependency if that is later, and tasks without a number are the last stage.
    ///
    /// # Errors
    /// A circle, printed whole.
    pub fn new(tasks: &[TaskName], depends_on: &[Vec<usize>], width: usize) -> Result<Self, GraphError> {
        let mut unmet: Vec<usize> = depends_on.iter().map(Vec::len).collect();
        let dependents = Dependents::of(depends_on.iter().map(Vec::as_slice));
        // Those that wait for nobody are in order already; who waited for somebody takes its place among them.
        let mut at_once = (0..tasks.len()).filter(|task| depends_on[*task].is_empty()).peekable();
        let mut freed: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
        let mut place_of = vec![usize::MAX; tasks.len()];
        let mut places: Vec<Place> = Vec::with_capacity(tasks.len());
        // The key of the stage that was reached: a number, or "no number", which is later than all of them.
        let mut reached: Option<(bool, u128)> = None;
        while let Some(task) = next_ready(&mut at_once, &mut freed) {
            // Places come in the order of their stages (the smallest ready task has the earliest stage that is
            // left), so a task belongs to the stage reached last, unless its own number is later.
            let own = (tasks[task].number().is_none(), tasks[task].number().unwrap_or(0));
            let begins_stage = width == 1 || reached.is_none_or(|reached| own > reached);
            if begins_stage {
                reached = Some(own);
            }
            let stage = places.last().map_or(0, |last| last.stage + usize::from(begins_stage));
            place_of[task] = places.len();
            let depends_on = depends_on[task].iter().map(|need| place_of[*need]).collect();
            places.push(Place { task, depends_on, stage });
            for dependent in dependents.of_task(task) {
                unmet[*dependent] -= 1;
                if unmet[*dependent] == 0 {
                    freed.push(Reverse(*dependent));
                }
            }
        }
        if places.len() == tasks.len() { Ok(Self { places }) } else { Err(describe_cycle(tasks, depends_on, &unmet)) }
    }

    /// Keeps the places that `keep` wants; what they depended on and is gone counts as met.
    /// Tells which dependencies were lost, as (task, dependency).
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
        let mut new_place = vec![None; self.places.len()];
        let (mut lost, mut kept) = (Vec::new(), Vec::new());
        let mut last_stage = None;
        for (old, place) in self.places.iter().enumerate().filter(|(_, place)| keep(place.task)) {
            let (met, gone): (Vec<usize>, Vec<usize>) = place.depends_on.iter().copied().partition(|need| new_place[*need].is_some());
            lost.extend(gone.into_iter().map(|need| (place.task, self.places[need].task)));
            let stage = match last_stage {
                None => 0,
                Some((before, stage)) => stage + usize::from(before != place.stage),
            };
            last_stage = Some((place.stage, stage));
            new_place[old] = Some(kept.len());
            kept.push(Place { task: place.task, depends_on: met.into_iter().filter_map(|need| new_place[need]).collect(), stage });
        }
        self.places = kept;
        lost
    }
}

/// The smallest of those that are ready.
fn next_ready(at_once: &mut Peekable<impl Iterator<Item = usize>>, freed: &mut BinaryHeap<Reverse<usize>>) -> Option<usize> {
    match freed.peek() {
        Some(Reverse(task)) if at_once.peek().is_none_or(|next| task < next) => freed.pop().map(|Reverse(task)| task),
        Some(_) | None => at_once.next(),
    }
}

/// Walks from a task that never became ready along dependencies that never did, until one comes again.
fn describe_cycle(tasks: &[TaskName], depends_on: &[Vec<usize>], unmet: &[usize]) -> GraphError {
    let mut seen = vec![usize::MAX; tasks.len()];
    let mut path = Vec::new();
    let mut next = unmet.iter().position(|count| *count > 0);
    while let Some(task) = next {
        if seen[task] != usize::MAX {
            let names: Vec<_> = path[seen[task]..].iter().chain([&task]).map(|task: &usize| tasks[*task].text()).collect();
            return GraphError::Cycle { path: names.join(" -> "), first: Some(task) };
        }
        seen[task] = path.len();
        path.push(task);
        next = depends_on[task].iter().copied().find(|need| unmet[*need] > 0);
    }
    GraphError::Cycle { path: String::new(), first: None }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    fn names(files: &[&str]) -> Vec<TaskName> {
        files.iter().map(|file| TaskName::parse(OsStr::new(file))).collect()
    }

    fn order(files: &[&str], needs: &[(usize, usize)], width: usize) -> Vec<(String, usize)> {
        let tasks = names(files);
        let mut depends_on = vec![Vec::new(); tasks.len()];
        for (task, need) in needs {
            depends_on[*task].push(*need);
        }
        let plan = Plan::new(&tasks, &depends_on, width).unwrap();
        plan.places.iter().map(|place| (tasks[place.task].to_string(), place.stage)).collect()
    }

    #[test]
    fn a_stage_is_the_number_or_that_of_the_latest_dependency() {
        let files = ["10-a", "20-b", "30-c", "30-d", "40-e", "x", "y"];
        let stages = order(&files, &[(0, 2), (4, 5)], 2);
        let expected = [("20-b", 0), ("30-c", 1), ("10-a", 1), ("30-d", 1), ("x", 2), ("40-e", 2), ("y", 2)];
        assert_eq!(stages, expected.map(|(name, stage)| (name.to_owned(), stage)));
    }

    #[test]
    fn at_width_one_each_task_is_its_own_stage() {
        assert_eq!(order(&["1-a", "1-b"], &[], 1), [("1-a".to_owned(), 0), ("1-b".to_owned(), 1)]);
    }

    #[test]
    fn a_circle_is_printed_whole() {
        let tasks = names(&["1-a", "2-b", "3-c", "4-d"]);
        let error = Plan::new(&tasks, &[vec![], vec![3], vec![1], vec![2]], 1).unwrap_err();
        assert_eq!(error.to_string(), "the dependencies form a circle: 2-b -> 4-d -> 3-c -> 2-b");
        let itself = Plan::new(&tasks, &[vec![0], vec![], vec![], vec![]], 1).unwrap_err();
        assert_eq!(itself, GraphError::Cycle { path: "1-a -> 1-a".into(), first: Some(0) });
    }

    #[test]
    fn who_waits_for_a_task_is_who_depends_on_it() {
        let of = |needs: &[Vec<usize>]| {
            let dependents = Dependents::of(needs.iter().map(Vec::as_slice));
            (0..needs.len()).map(|task| dependents.of_task(task).to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[vec![2], vec![2, 3], vec![3], vec![]]), [vec![], vec![], vec![0, 1], vec![1, 2]]);
        assert_eq!(of(&[vec![], vec![]]), [vec![], Vec::<usize>::new()]);
        assert_eq!(of(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn words_mean_files_first_and_tell_what_they_could_have_meant() {
        let tasks = names(&["1-a.sh", "2-a.sh", "3-setup.py", "b"]);
        let out = names(&["4-old.bak"]);
        let resolver = Resolver::new(&tasks, [(&out[0], "a backup file")]);
        let resolve = |word| resolver.resolve(&tasks[0], word);
        assert_eq!((resolve("2-a.sh"), resolve("setup"), resolve("b")), (Ok(1), Ok(2), Ok(3)));
        let told = |word| resolve(word).unwrap_err().to_string();
        assert_eq!(told("a"), "`1-a.sh` depends on `a`, and `1-a.sh` and `2-a.sh` are both called so; write the file name");
        assert_eq!(told("old"), "`1-a.sh` depends on `old`, which is left out: a backup file");
        assert_eq!(told("setpu"), "`1-a.sh` depends on `setpu`, and no task is called so; did you mean `setup`?");
    }

    #[test]
    fn a_filter_keeps_the_order_and_tells_what_was_lost() {
        let tasks = names(&["1-a", "2-b", "3-c"]);
        let mut plan = Plan::new(&tasks, &[vec![], vec![0], vec![1]], 1).unwrap();
        assert_eq!(plan.retain(|task| task > 0), [(1, 0)]);
        let expected = vec![Place { task: 1, depends_on: vec![], stage: 0 }, Place { task: 2, depends_on: vec![0], stage: 1 }];
        assert_eq!(plan.places, expected);
    }

    proptest! {
        #[test]
        fn order_respects_needs_and_stages_and_is_the_same_at_every_width(numbers in proptest::collection::vec(proptest::option::of(0..5u8), 1..20), edges in proptest::collection::vec((0..20usize, 0..20usize), 0..30)) {
            let files: Vec<_> = numbers.iter().enumerate().map(|(i, n)| n.map_or(format!("t{i:02}"), |n| format!("{n}-t{i:02}"))).collect();
            let mut tasks: Vec<_> = files.iter().map(|file| TaskName::parse(OsStr::new(file))).collect();
            tasks.sort_by(TaskName::sort_order);
            let mut depends_on = vec![Vec::new(); tasks.len()];
            // Edges along a fixed shuffle of the indices never form a circle.
            for (a, b) in edges {
                let (a, b) = (a % tasks.len(), b % tasks.len());
                let rank = |i: usize| (i * 7 + 3) % 23;
                if rank(a) > rank(b) { depends_on[a].push(b); }
            }
            let narrow = Plan::new(&tasks, &depends_on, 1).unwrap();
            let wide = Plan::new(&tasks, &depends_on, 4).unwrap();
            let order = |plan: &Plan| plan.places.iter().map(|p| p.task).collect::<Vec<_>>();
            prop_assert_eq!(order(&narrow), order(&wide));
            for (at, place) in wide.places.iter().enumerate() {
                prop_assert!(place.depends_on.iter().all(|need| *need < at));
                prop_assert!(at == 0 || wide.places[at - 1].stage <= place.stage);
            }
        }
    }
}
