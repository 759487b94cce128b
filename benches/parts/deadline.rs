//! Punctuality: many at once, a limit that passes, and how long thinking takes before the first task.

use std::io::Read;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::measure::Sample;
use crate::measure::stage::{Kind, NAP_MS, Stage};
use crate::measure::table::{Aim, Table};

/// Tasks that sleep, in rows of sixteen: the rows should follow each other at once.
pub fn parallel(stage: &Stage) {
    const TASKS: usize = 160;
    const WIDTH: usize = 16;
    let ideal = f64::from(NAP_MS) / 1e3 * (TASKS / WIDTH) as f64;
    let title = format!("parallel: {TASKS} tasks of {NAP_MS} ms, {WIDTH} at once; ideal {:.0} ms, median (min-max)", ideal * 1e3);
    let mut table = Table::new(title, &["run by", "runs", "ms", "beside the ideal", "beside the C loop", "aim"]);
    let dir = stage.unnumbered_tasks(Kind::Nap, TASKS);
    let config = |output: &str| stage.config(&dir, output, &format!("max_parallel = {WIDTH}\noutput = {output}\n"));
    let mut subjects: Vec<_> = [("auto", "runner"), ("inherit", "runner, output = inherit"), ("capture", "runner, output = capture")]
        .map(|(output, name)| (name, stage.runner(&config(output), &[]), Sample::default()))
        .into();
    subjects.push(("C loop, as wide", stage.limit("wide", &dir), Sample::default()));
    for _ in 0..if stage.quick { 3 } else { 5 } {
        for (_, command, passed) in &mut subjects {
            passed.add(stage.measure(command).passed / ideal);
        }
    }
    // Where even the C loop is far from the ideal, the machine is, and not the runner.
    let limit = subjects.last().map_or(f64::NAN, |(_, _, ratio)| ratio.median());
    for (name, _, ratio) in subjects {
        let aim = Aim::at_most(1.02);
        let judged = match name.starts_with("runner") {
            true if limit <= aim.at_most => aim.judge(ratio.median(), " of the ideal"),
            true => aim.judge(ratio.median() / limit, " of the C loop"),
            false => String::new(),
        };
        let (median, beside) = (ratio.median(), format!("{:.3}", ratio.median() / limit));
        let cells = [name.to_owned(), ratio.len().to_string(), format!("{:.0}", median * ideal * 1e3), format!("{ratio:.3}"), beside];
        table.row(cells.into_iter().chain([judged]));
    }
    table.print();
}

/// A task that would sleep on, and a limit of one second: how long after it is everything gone?
pub fn limit(stage: &Stage) {
    let columns = ["task", "runs", "ms after the limit", "aim"];
    let mut table =
        Table::new("limit: max_time = 1; from the start of runner to the end of all it started, less 1 s, median (min-max)", &columns);
    for (kind, name) in [(Kind::Sleep, "obeys TERM"), (Kind::Grandchild, "and a grandchild in its own session")] {
        let config = stage.config(&stage.tasks(kind, 1), "limit", "max_time = 1\nmax_tries = 1\nhalt_on_give_up = no\n");
        let mut late = Sample::default();
        for _ in 0..if stage.quick { 2 } else { 5 } {
            let mut command = stage.runner(&config, &[]);
            let began = Instant::now();
            let mut child = command.stdout(Stdio::piped()).spawn().expect("runner does not start");
            // All that runner starts holds this pipe open: its end is the end of the last of them.
            let mut pipe = child.stdout.take().expect("no pipe");
            let (sender, ended) = mpsc::channel();
            std::thread::spawn(move || {
                let _ = pipe.read_to_end(&mut Vec::new());
                let _ = sender.send(Instant::now());
            });
            let status = child.wait().expect("runner does not end");
            assert_eq!(status.code(), Some(1), "runner should have given up");
            let ended = ended.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| panic!("{name}: something of it lives on"));
            late.add(((ended - began).as_secs_f64() - 1.0) * 1e3);
        }
        let judged = Aim::at_most(15.0).judge(late.median(), " ms");
        table.row([name.to_owned(), late.len().to_string(), format!("{late:.1}"), judged]);
    }
    table.print();
}

/// Many tasks and many dependencies: reading, ordering and printing them, without running one.
pub fn plan(stage: &Stage) {
    const TASKS: usize = 10_000;
    let dir = stage.tasks(Kind::Static, TASKS);
    let name = |at: usize| format!("{at:05}-t");
    // Each waits for the next in order, so the whole order is turned round.
    let chained: String = (1..TASKS).map(|at| format!("[task:{}]\ndepends_on = {}\n", name(at), name(at + 1))).collect();
    let fan: String = (2..=TASKS).map(|at| format!("[task:{}]\ndepends_on = {}\n", name(at), name(1))).collect();
    let no_needs: String = (1..TASKS).map(|at| format!("[task:{}]\nmax_tries = 5\n", name(at))).collect();
    let configs = [("no section", String::new()), ("a section each", no_needs), ("each on the next", chained), ("all on the first", fan)];
    let configs: Vec<_> =
        configs.iter().zip(0..).map(|((name, text), at)| (*name, stage.config(&dir, &format!("plan{at}"), text))).collect();
    let runs = if stage.quick { 3 } else { 5 };
    for (title, options) in [("runner --dry-run", ["--dry-run"]), ("runner check", ["check"])] {
        let columns = ["depends_on", "runs", "ms", "more than no section, ms", "more than listing, ms", "aim"];
        let mut table = Table::new(format!("plan: {title} of {TASKS} tasks, median (min-max)"), &columns);
        let mut listing = Sample::default();
        let mut samples = vec![Sample::default(); configs.len()];
        for _ in 0..runs {
            listing.add(stage.measure(&stage.limit("list", &dir)).passed * 1e3);
            for ((_, config), sample) in configs.iter().zip(&mut samples) {
                sample.add(stage.measure(&stage.runner(config, &options)).passed * 1e3);
            }
        }
        table.row(["(C, listing only)".to_owned(), listing.len().to_string(), format!("{listing:.1}")]);
        for ((name, _), sample) in configs.iter().zip(&samples) {
            let more = sample.median() - listing.median();
            let judged = Aim::at_most(100.0).judge(more, " ms");
            let base = samples[0].median();
            let cells = [format!("{:.1}", sample.median() - base), format!("{more:.1}"), judged];
            table.row([(*name).to_owned(), sample.len().to_string(), format!("{sample:.1}")].into_iter().chain(cells));
        }
        table.print();
    }
}
