//! The programs that run the files of a directory: ours, the limit, and those that people use for it.

use std::path::Path;
use std::process::Command;

use super::stage::{Stage, command, find};

/// A way to run the files of a directory.
pub struct Way<'a> {
    /// What it is called in the tables.
    pub name: &'static str,
    start: Box<dyn Fn(&Path) -> Command + 'a>,
}

impl<'a> Way<'a> {
    fn new(name: &'static str, start: impl Fn(&Path) -> Command + 'a) -> Self {
        Self { name, start: Box::new(start) }
    }

    /// What is measured.
    pub fn runner(stage: &'a Stage) -> Self {
        Self::new("runner", |dir| stage.runner(&stage.config(dir, "chain", ""), &[]))
    }

    /// The same, telling only what went wrong.
    pub fn quiet(stage: &'a Stage) -> Self {
        Self::new("runner -q", |dir| stage.runner(&stage.config(dir, "chain", ""), &["-q"]))
    }

    /// The least it can cost.
    pub fn limit(stage: &'a Stage) -> Self {
        Self::new("C loop", |dir| stage.limit("bare", dir))
    }

    /// The limit, with what runner cannot do without: a process group for each task, a word about each.
    pub fn fuller_limits(stage: &'a Stage) -> [Self; 2] {
        [
            Self::new("C loop, own groups", |dir| stage.limit("group", dir)),
            Self::new("C loop, two lines a task", |dir| stage.limit("print", dir)),
        ]
    }

    /// run-parts, if it is installed.
    pub fn run_parts() -> Option<Self> {
        let program = find("run-parts")?;
        Some(Self::new("run-parts", move |dir| with(&program, &[dir])))
    }

    /// A loop of the shell, if dash is installed.
    pub fn dash() -> Option<Self> {
        let program = find("dash")?;
        let script = Path::new("for f in \"$1\"/*; do \"$f\"; done");
        Some(Self::new("dash, a loop", move |dir| with(&program, &[Path::new("-c"), script, Path::new("dash"), dir])))
    }

    /// A Makefile with one target, if make is installed.
    pub fn make(stage: &'a Stage) -> Option<Self> {
        let program = find("make")?;
        Some(Self::new("make, one target", move |dir| with(&program, &[Path::new("-s"), Path::new("-f"), &stage.makefile(dir)])))
    }

    /// The command for a directory.
    pub fn command(&self, dir: &Path) -> Command {
        (self.start)(dir)
    }
}

fn with(program: &Path, words: &[&Path]) -> Command {
    let mut command = command(program);
    command.args(words);
    command
}
