//! What runner costs beside the least it could cost: the same files, started by a bare C loop.
//!
//! `cargo bench --bench overhead` measures everything in a few minutes; with `-- static memory` only these parts, with
//! `-- --quick` everything with fewer runs. Beside each figure stands what it is to be. A figure that
//! misses its aim fails nothing: times on a shared machine are a reason to look, not a verdict. The counts
//! (instructions, system calls, memory) are the same on every run and can be held.
#![expect(clippy::disallowed_methods, reason = "a benchmark starts programs and reads the clock; no rule of the chain applies to it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot be measured is a surprise for whoever measures, and the figures are the result"
)]

mod measure;
mod parts;

use std::process::ExitCode;

use measure::stage::Stage;

/// A part: its name on the command line, and what measures it.
type Part = (&'static str, fn(&Stage));

const PARTS: [Part; 9] = [
    ("static", parts::chain::static_tasks),
    ("sh", parts::chain::sh_tasks),
    ("empty", parts::chain::empty_run),
    ("memory", parts::count::memory),
    ("instructions", parts::count::instructions),
    ("syscalls", parts::count::system_calls),
    ("parallel", parts::deadline::parallel),
    ("limit", parts::deadline::limit),
    ("plan", parts::deadline::plan),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (flags, wanted): (Vec<_>, Vec<_>) = words.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    if let Some(unknown) = wanted.iter().find(|word| PARTS.iter().all(|(name, _)| name != *word)) {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        println!("there is no part `{unknown}`; there are {}", names.join(", "));
        return ExitCode::from(64);
    }
    // Cargo says --bench when it is asked to measure, and nothing when it runs all targets as tests.
    if !flags.contains(&"--bench") {
        println!("measures only under cargo bench");
        return ExitCode::SUCCESS;
    }
    let stage = Stage::new(flags.contains(&"--quick"));
    println!("{}", stage.describe());
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.contains(&name) {
            println!();
            part(&stage);
        }
    }
    ExitCode::SUCCESS
}
