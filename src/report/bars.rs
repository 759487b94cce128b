//! One bar for each running task, on a terminal that nobody else writes to.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::Screen;
use super::{shown, sink};
use crate::event::{Event, Reader, RunRef};
use crate::names::{RunId, TaskName, printable};

/// How often the bars are drawn at most, in a second.
const DRAWINGS: u8 = 20;

/// The bars on the screen.
#[derive(Debug)]
pub struct Bars {
    screen: MultiProgress,
    /// By run and task: tasks of several chains may have one name.
    running: HashMap<(RunId, String), ProgressBar>,
}

impl Bars {
    /// Draws on stderr from now on; log lines step around the bars.
    pub fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(Screen::default()), DRAWINGS));
        sink::make_way_for(screen.clone());
        Self { screen, running: HashMap::new() }
    }

    /// Whether there is a bar.
    pub fn is_animated(&self) -> bool {
        !self.running.is_empty()
    }

    /// Redraws the elapsed times.
    pub fn tick(&self) {
        for bar in self.running.values() {
            bar.tick();
        }
    }
}

fn key(run: &RunRef, task: &TaskName) -> (RunId, String) {
    (run.id.clone(), task.text().to_owned())
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for Bars {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        match event {
            Event::TaskStarted { task, .. } => {
                let bar = self.screen.add(ProgressBar::new(100));
                if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix:20!} {elapsed:>4}  {wide_msg}") {
                    bar.set_style(style);
                }
                bar.set_prefix(printable(&shown(run, task.text())).into_owned());
                bar.tick();
                self.running.insert(key(run, task), bar);
            }
            Event::TaskProgress { task, percent, status, .. } => {
                let Some(bar) = self.running.get(&key(run, task)) else { return };
                if let Some(percent) = percent {
                    if let Ok(style) =
                        ProgressStyle::with_template("  {spinner} {prefix:20!} {elapsed:>4} [{bar:20}] {pos:>3}%  {wide_msg}")
                    {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_position(u64::from(*percent));
                }
                if let Some(status) = status {
                    bar.set_message((*status).to_owned());
                }
            }
            Event::TaskEnded(end) => {
                if let Some(bar) = self.running.remove(&key(run, &end.task)) {
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                }
            }
            Event::RunStarted { .. }
            | Event::TaskEnding { .. }
            | Event::TaskSleeping { .. }
            | Event::RunRetry { .. }
            | Event::HaltStarted { .. }
            | Event::HaltEnded { .. }
            | Event::HookFailed { .. }
            | Event::Stopping { .. }
            | Event::RunRefused { .. }
            | Event::RunEnded { .. } => {}
        }
    }
}
