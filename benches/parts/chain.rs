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

/// Static programs that do nothing: nearly all of the time is the start of a process.
pub fn static_tasks(stage: &Stage) {
    let mut ways = vec![Way::quiet(stage)];
    ways.extend(Way::fuller_limits(stage));
    ways.extend([Way::run_parts(), Way::dash(), Way::make(stage)].into_iter().flatten());
    let title = "static: tasks are static programs that do nothing";
    let rounds = [(10, 50, 20), (100, 21, 7), (1_000, 7, 2), (5_000, 3, 1)];
    compare(stage, Kind::Static, title, &ways, &rounds, Aim { wanted: 1.15, at_most: 1.6 });
}

/// Shell scripts that do nothing: the start of a shell is in it.
pub fn sh_tasks(stage: &Stage) {
    let ways: Vec<_> = [Way::run_parts(), Way::dash(), Way::make(stage)].into_iter().flatten().collect();
    let title = "sh: tasks are `#!/bin/sh` with `exit 0`";
    let rounds = [(10, 30, 10), (100, 11, 4), (1_000, 5, 1), (5_000, 2, 1)];
    compare(stage, Kind::Sh, title, &ways, &rounds, Aim { wanted: 1.03, at_most: 1.11 });
}

fn compare(stage: &Stage, kind: Kind, title: &str, others: &[Way<'_>], rounds: &[(usize, usize, usize)], aim: Aim) {
    let title = format!("{title}; beside the C loop of the same round, median (min-max)");
    let mut table = Table::new(title, &["tasks", "run by", "pairs", "a task, us", "time", "fastest", "processors", "aim"]);
    let mut ratios = Vec::new();
    for (tasks, ours, others_rounds) in rounds.iter().copied() {
        let part = if stage.quick { 3 } else { 1 };
        let rounds = Rounds { tasks, ours: ours.div_ceil(part), others: others_rounds.div_ceil(part) };
        let (runner, pairs) = alternate(stage, kind, others, &rounds);
        let per_task = |sample: &Sample| format!("{:.0}", sample.median() * 1e6 / tasks as f64);
        let limit = &runner.reference;
        table.row([tasks.to_string(), "C loop (the limit)".into(), limit.len().to_string(), per_task(limit), "1".into()]);
        let judged = aim.judge(runner.ratio.median(), "");
        let named = others.iter().map(|way| way.name).zip(&pairs).map(|(name, pairs)| (name, pairs, String::new()));
        for (name, pairs, judged) in [("runner", &runner, judged)].into_iter().chain(named) {
            let ratio = &pairs.ratio;
            let figures = [format!("{ratio:.3}"), format!("{:.3}", pairs.fastest()), format!("{:.3}", pairs.cpu_ratio.median()), judged];
            let cells = [String::new(), name.to_owned(), ratio.len().to_string(), per_task(&pairs.other)];
            table.row(cells.into_iter().chain(figures));
        }
        ratios.push((tasks, runner.ratio.median()));
    }
    table.print();
    let ratio = |wanted: usize| ratios.iter().find(|(tasks, _)| *tasks == wanted).map_or(f64::NAN, |(_, ratio)| *ratio);
    let growth = ratio(5_000) / ratio(1_000);
    let judged = Aim { wanted: 1.0, at_most: 1.05 }.judge(growth, "");
    println!("  a task among 5,000 costs {growth:.3} times one among 1,000, both beside the C loop (aim {judged})");
}

/// Runs the limit and each of the others in turns.
fn alternate(stage: &Stage, kind: Kind, others: &[Way<'_>], rounds: &Rounds) -> (Pairs, Vec<Pairs>) {
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
            let reference = measure(&limit);
            others.iter().zip(&mut pairs).for_each(|(way, pairs)| pairs.add(reference, measure(way)));
        }
    }
    (runner, pairs)
}

/// A chain without tasks: start-up and end, and nothing between.
pub fn empty_run(stage: &Stage) {
    let dir = stage.tasks(Kind::Static, 0);
    let columns = ["beside", "pairs", "it, ms", "runner, ms", "ratio", "aim"];
    let mut table = Table::new("empty: runner and a directory without tasks, median (min-max)", &columns);
    let ours = Way::runner(stage);
    let mut measure = |name: &str, reference: &dyn Fn() -> std::process::Command| {
        let mut pairs = Pairs::default();
        for _ in 0..if stage.quick { 30 } else { 100 } {
            pairs.add(stage.measure(&reference()), stage.measure(&ours.command(&dir)));
        }
        let ms = |sample: &Sample| format!("{:.2}", sample.scaled(1e3));
        let judged = Aim::at_most(2.0).judge(pairs.other.median() * 1e3, " ms");
        let Pairs { reference, other, ratio, .. } = &pairs;
        table.row([name.to_owned(), ratio.len().to_string(), ms(reference), ms(other), format!("{ratio:.2}"), judged]);
    };
    measure("a static C program", &|| command(stage.program(Kind::Static)));
    for way in [Some(Way::limit(stage)), Way::run_parts()].iter().flatten() {
        measure(way.name, &|| way.command(&dir));
    }
    table.print();
}
