//! Time: what a task costs in a chain, and what a chain without tasks does.

use crate::measure::stage::{Kind, Stage, command};
use crate::measure::table::{Aim, Table};
use crate::measure::way::Way;
use crate::measure::{Pairs, Sample};

/// How often a chain is run: by runner, and by the others, which are only there for comparison.
struct Rounds {
    tasks: usize,
    ours: usize,
    others: usize,
}

/// What is compared.
struct Comparison<'a> {
    title: &'static str,
    kind: Kind,
    /// What people use, then what explains our own figure; the latter is left out where a run takes seconds.
    usual: Vec<Way<'a>>,
    explaining: Vec<Way<'a>>,
    /// Tasks, runs of ours, runs of each other.
    rounds: [(usize, usize, usize); 4],
    aim: Aim,
}

/// Static programs that do nothing: nearly all of the time is the start of a process.
pub fn static_tasks(stage: &Stage) {
    let comparison = Comparison {
        title: "static: tasks are static programs that do nothing",
        kind: Kind::Static,
        usual: usual_ways(stage),
        explaining: [Way::quiet(stage)].into_iter().chain(Way::fuller_limits(stage)).collect(),
        rounds: [(10, 50, 20), (100, 21, 7), (1_000, 7, 2), (5_000, 2, 1)],
        aim: Aim { wanted: 1.15, at_most: 1.6 },
    };
    comparison.run(stage);
}

/// Shell scripts that do nothing: the start of a shell is in it.
pub fn sh_tasks(stage: &Stage) {
    let comparison = Comparison {
        title: "sh: tasks are `#!/bin/sh` with `exit 0`",
        kind: Kind::Sh,
        usual: usual_ways(stage),
        explaining: Vec::new(),
        rounds: [(10, 30, 10), (100, 11, 4), (1_000, 5, 1), (5_000, 2, 1)],
        aim: Aim { wanted: 1.03, at_most: 1.11 },
    };
    comparison.run(stage);
}

fn usual_ways(stage: &Stage) -> Vec<Way<'_>> {
    [Way::run_parts(), Way::dash(), Way::make(stage)].into_iter().flatten().collect()
}

impl Comparison<'_> {
    fn run(&self, stage: &Stage) {
        let title = format!("{}; beside the run of the C loop just before, median (min-max)", self.title);
        let mut table = Table::new(title, &["tasks", "run by", "pairs", "a task, us", "time", "fastest", "processors", "aim"]);
        let mut ratios = Vec::new();
        for (tasks, ours, others) in self.rounds {
            let part = if stage.quick { 3 } else { 1 };
            let rounds = Rounds { tasks, ours: ours.div_ceil(part), others: others.div_ceil(part) };
            let shown = if tasks > 1_000 { 0 } else { self.explaining.len() };
            let others: Vec<&Way<'_>> = self.usual.iter().chain(&self.explaining[..shown]).collect();
            let (runner, pairs) = alternate(stage, self.kind, &others, &rounds);
            let per_task = |sample: &Sample| format!("{:.0}", sample.median() * 1e6 / tasks as f64);
            let limit = &runner.reference;
            table.row([tasks.to_string(), "C loop (the limit)".into(), limit.len().to_string(), per_task(limit), "1".into()]);
            let judged = self.aim.judge(runner.ratio.median(), "");
            let named = others.iter().zip(&pairs).map(|(way, pairs)| (way.name, pairs, String::new()));
            for (name, pairs, judged) in [("runner", &runner, judged)].into_iter().chain(named) {
                let figures =
                    [format!("{:.3}", pairs.ratio), format!("{:.3}", pairs.fastest()), format!("{:.3}", pairs.cpu_ratio.median())];
                let cells = [String::new(), name.to_owned(), pairs.ratio.len().to_string(), per_task(&pairs.other)];
                table.row(cells.into_iter().chain(figures).chain([judged]));
            }
            ratios.push((runner.ratio.median(), runner.cpu_ratio.median()));
        }
        table.print();
        let [_, _, at_1000, at_5000] = ratios.as_slice() else { return };
        let (time, cpu) = (at_5000.0 / at_1000.0, at_5000.1 / at_1000.1);
        let judged = Aim { wanted: 1.0, at_most: 1.05 }.judge(cpu, "");
        println!(
            "  a task among 5,000 costs {time:.3} times one among 1,000, {cpu:.3} by the processors, both beside the C loop (aim {judged})"
        );
    }
}

/// Runs the limit and each of the others in turns.
fn alternate(stage: &Stage, kind: Kind, others: &[&Way<'_>], rounds: &Rounds) -> (Pairs, Vec<Pairs>) {
    let (dir, limit, ours) = (stage.tasks(kind, rounds.tasks), Way::limit(stage), Way::runner(stage));
    let (mut runner, mut pairs) = (Pairs::default(), Vec::new());
    pairs.resize_with(others.len(), Pairs::default);
    let measure = |way: &Way<'_>| stage.measure(&way.command(&dir));
    // Once for the caches.
    measure(&limit);
    for round in 0..rounds.ours.max(rounds.others) {
        if round < rounds.ours {
            runner.add(measure(&limit), measure(&ours));
        }
        if round < rounds.others {
            others.iter().zip(&mut pairs).for_each(|(way, pairs)| pairs.add(measure(&limit), measure(way)));
        }
    }
    (runner, pairs)
}

/// What an empty run may take, in milliseconds, on a machine where a static C program takes [`STATIC_MS`].
const EMPTY_MS: f64 = 2.0;
const STATIC_MS: f64 = 0.45;
const STATIC: &str = "a static C program";

/// A chain without tasks: start-up and end, and nothing between.
pub fn empty_run(stage: &Stage) {
    let dir = stage.tasks(Kind::Static, 0);
    let columns = ["beside", "pairs", "it, ms", "runner, ms", "ratio", "aim"];
    let mut table = Table::new("empty: runner and a directory without tasks, median (min-max)", &columns);
    let ours = Way::runner(stage);
    let mut measure = |name: &str, reference: &dyn Fn() -> std::process::Command| {
        let mut pairs = Pairs::default();
        for _ in 0..if stage.quick { 30 } else { 60 } {
            pairs.add(stage.measure(&reference()), stage.measure(&ours.command(&dir)));
        }
        let ms = |sample: &Sample| format!("{:.2}", sample.scaled(1e3));
        let judged = Aim::at_most(EMPTY_MS).judge(pairs.other.median() * 1e3, " ms");
        let Pairs { reference, other, ratio, .. } = &pairs;
        // On a slower machine the same program takes longer, and so may runner.
        let judged = match Aim::at_most((EMPTY_MS / STATIC_MS * 100.0).round() / 100.0).judge(ratio.median(), "") {
            scaled if name == STATIC => format!("{judged}; ratio {scaled}"),
            _ => judged,
        };
        table.row([name.to_owned(), ratio.len().to_string(), ms(reference), ms(other), format!("{ratio:.2}"), judged]);
    };
    measure(STATIC, &|| command(stage.program(Kind::Static)));
    for way in [Some(Way::limit(stage)), Way::run_parts()].iter().flatten() {
        measure(way.name, &|| way.command(&dir));
    }
    table.print();
}
