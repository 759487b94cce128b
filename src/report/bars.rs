//! Progress bars on a terminal that nobody else writes to: one for each running task, or one for each run.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::Screen;
use super::{shown, sink};
use crate::clock::Seconds;
use crate::event::{Event, Reader, RunRef};
use crate::names::{RunId, TaskName, printable};
use crate::outcome::Verdict;

/// How often the bars are drawn at most, in a second.
const DRAWINGS: u8 = 20;
/// How long a bar is where there is room for it, and where there is not.
const BAR: (usize, usize) = (20, 5);
/// What else stands in a line beside a bar, and how much of what a task says is worth more than a longer bar.
const BESIDE_BAR: usize = 39;
const WORDS: usize = 24;
/// How many tasks a brief bar names.
const NAMED: usize = 2;

/// What is drawn on a terminal while tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// Full, or brief where more tasks may run at once than half the screen has lines.
    Auto,
    /// A bar for each running task.
    Full,
    /// A bar for each running chain.
    Brief,
    /// Nothing: what tasks say of themselves is in the log, as it is elsewhere.
    Off,
}

impl Progress {
    /// The form for so many tasks at once on a screen of so many lines; none where nothing is drawn.
    fn form(self, at_once: usize, lines: u16) -> Option<Form> {
        match self {
            Self::Auto if at_once > usize::from(lines / 2) => Some(Form::Brief),
            Self::Auto | Self::Full => Some(Form::Full),
            Self::Brief => Some(Form::Brief),
            Self::Off => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Full,
    Brief,
}

/// The bars on the screen.
#[derive(Debug)]
pub struct Bars {
    screen: MultiProgress,
    form: Form,
    /// By run and task: tasks of several chains may have one name.
    tasks: HashMap<(RunId, String), ProgressBar>,
    runs: HashMap<RunId, OfRun>,
}

/// The one bar of a run.
#[derive(Debug)]
struct OfRun {
    bar: ProgressBar,
    tasks: usize,
    done: usize,
    /// What runs, and what it says of itself.
    running: Vec<(TaskName, u8, String)>,
    /// The try that it waits for, in words.
    waits: Option<String>,
}

impl Bars {
    /// Draws on stderr from now on, if that is wanted; log lines step around the bars. `at_once` is how many tasks may run
    /// side by side.
    pub fn new(progress: Progress, at_once: usize) -> Option<Self> {
        let form = progress.form(at_once, Screen::lines())?;
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(Screen::default()), DRAWINGS));
        sink::make_way_for(screen.clone());
        Some(Self { screen, form, tasks: HashMap::new(), runs: HashMap::new() })
    }

    /// Whether there is a bar.
    pub fn is_animated(&self) -> bool {
        !self.tasks.is_empty() || !self.runs.is_empty()
    }

    /// Redraws the elapsed times.
    pub fn tick(&self) {
        self.tasks.values().chain(self.runs.values().map(|run| &run.bar)).for_each(ProgressBar::tick);
    }

    fn add(&self, length: usize, name: &str, style: &str) -> ProgressBar {
        let bar = self.screen.add(ProgressBar::new(length as u64));
        set_style(&bar, style);
        bar.set_prefix(printable(name).into_owned());
        bar.tick();
        bar
    }

    fn take_away(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.screen.remove(bar);
    }

    fn tell_tasks(&mut self, run: &RunRef, event: &Event<'_>) {
        match event {
            Event::TaskStarted { task, .. } => {
                let bar = self.add(100, &shown(run, task.text()), "  {spinner} {prefix:20!} {elapsed:>4}  {wide_msg}");
                self.tasks.insert(key(run, task), bar);
            }
            Event::TaskProgress { task, percent, status, .. } => {
                let Some(bar) = self.tasks.get(&key(run, task)) else { return };
                if let Some(percent) = percent {
                    let length = bar_length(Screen::columns());
                    set_style(bar, &format!("  {{spinner}} {{prefix:20!}} {{elapsed:>4}} [{{bar:{length}}}] {{pos:>3}}%  {{wide_msg}}"));
                    bar.set_position(u64::from(*percent));
                }
                if let Some(status) = status {
                    bar.set_message((*status).to_owned());
                }
            }
            Event::TaskEnded(end) => {
                if let Some(bar) = self.tasks.remove(&key(run, &end.task)) {
                    self.take_away(&bar);
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

    fn tell_runs(&mut self, run: &RunRef, event: &Event<'_>) {
        if let Event::RunStarted { tasks } = event {
            let length = bar_length(Screen::columns());
            let style = format!("  {{spinner}} {{prefix:20!}} {{elapsed:>4}} [{{bar:{length}}}] {{wide_msg}}");
            let bar = self.add(tasks * 100, &run.chain, &style);
            let mut of_run = OfRun { bar, tasks: *tasks, done: 0, running: Vec::new(), waits: None };
            of_run.show();
            self.runs.insert(run.id.clone(), of_run);
            return;
        }
        let Some(of_run) = self.runs.get_mut(&run.id) else { return };
        match event {
            Event::TaskStarted { task, .. } => {
                of_run.waits = None;
                of_run.running.push(((*task).clone(), 0, String::new()));
            }
            Event::TaskProgress { task, percent, status, .. } => of_run.note(task, *percent, *status),
            Event::TaskEnded(end) => {
                of_run.running.retain(|(task, ..)| *task != end.task);
                of_run.done += usize::from(matches!(end.verdict, Verdict::Ok | Verdict::Skip));
            }
            Event::RunRetry { wait, try_num, .. } => of_run.begin_again(*wait, *try_num),
            Event::RunEnded { .. } => {
                if let Some(of_run) = self.runs.remove(&run.id) {
                    self.take_away(&of_run.bar);
                }
                return;
            }
            Event::RunStarted { .. }
            | Event::TaskEnding { .. }
            | Event::TaskSleeping { .. }
            | Event::HaltStarted { .. }
            | Event::HaltEnded { .. }
            | Event::HookFailed { .. }
            | Event::Stopping { .. }
            | Event::RunRefused { .. } => return,
        }
        of_run.show();
    }
}

impl OfRun {
    fn note(&mut self, task: &TaskName, percent: Option<u8>, status: Option<&str>) {
        if let Some((_, part, words)) = self.running.iter_mut().find(|(running, ..)| running == task) {
            *part = percent.unwrap_or(*part);
            if let Some(status) = status {
                status.clone_into(words);
            }
        }
    }

    fn begin_again(&mut self, wait: Duration, try_num: u32) {
        (self.done, self.waits) = (0, Some(format!("try {try_num} in {}", Seconds(wait))));
    }

    fn show(&mut self) {
        let parts: usize = self.running.iter().map(|(_, part, _)| usize::from(*part)).sum();
        self.bar.set_position((self.done * 100 + parts) as u64);
        let named = self.running.iter().take(NAMED).map(|(task, part, words)| {
            let percent = if *part > 0 { format!(" {part}%") } else { String::new() };
            let words = if words.is_empty() { String::new() } else { format!(" {words}") };
            format!("{}{percent}{words}", printable(task.text()))
        });
        let mut words: Vec<String> = self.waits.iter().cloned().chain(named).collect();
        if self.running.len() > NAMED {
            words.push(format!("and {} more", self.running.len() - NAMED));
        }
        self.bar.set_message(format!("{}/{}  {}", self.done, self.tasks, words.join(", ")));
    }
}

/// On a narrow screen the words are worth more than the bar.
fn bar_length(columns: u16) -> usize {
    usize::from(columns).saturating_sub(BESIDE_BAR + WORDS).clamp(BAR.1, BAR.0)
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

fn key(run: &RunRef, task: &TaskName) -> (RunId, String) {
    (run.id.clone(), task.text().to_owned())
}

impl Reader for Bars {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        match self.form {
            Form::Full => self.tell_tasks(run, event),
            Form::Brief => self.tell_runs(run, event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_leaves_room_for_the_words() {
        assert_eq!([40, 60, 80, 83, 100].map(bar_length), [5, 5, 17, 20, 20]);
    }

    #[test]
    fn what_is_drawn_fits_the_screen() {
        let form = |progress: Progress, at_once| progress.form(at_once, 24);
        assert_eq!((form(Progress::Auto, 12), form(Progress::Auto, 13)), (Some(Form::Full), Some(Form::Brief)));
        assert_eq!(
            (form(Progress::Full, 100), form(Progress::Brief, 1), form(Progress::Off, 1)),
            (Some(Form::Full), Some(Form::Brief), None)
        );
    }
}
