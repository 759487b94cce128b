//! What the daemon and a tick need of files, variables and the command line: chains made ready, hooks of runs that do not
//! begin, the mark of a chain that runs, the configuration read again.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::audience::Audience;
use super::exit::Failure;
#[cfg(feature = "http")]
use super::going;
#[cfg(feature = "http")]
use super::lock_view;
use super::prepare::{Fit, make_fit};
use super::refused::{Refusal, start_hook};
use super::run::tell_findings;
use super::settings::{Loaded, Settings, find_task_dir, part_findings, without_repeats};
use super::state::marks_of;
use super::strangers;
use super::variables::local_zone;
#[cfg(feature = "http")]
use super::waiting;
#[cfg(feature = "http")]
use super::web::answer_tick;
use super::work::{TaskFinder, telling};
use crate::chain::Driver;
use crate::chain::fleet::{Opened, Ready};
use crate::clock::{Clock, SystemClock};
use crate::config::load::include_dir;
use crate::config::queues::{self, QueueSettings};
use crate::config::settings::DaemonSettings;
use crate::config::{Config, Finding, Severity, chains};
use crate::daemon::book::{Booked, read_schedules};
use crate::daemon::trouble::{News, Troubles};
use crate::daemon::{Kept, Outside, Refused, TickAnswer, View};
use crate::event::RunRef;
use crate::hook::HookRun;
#[cfg(feature = "http")]
use crate::http::site::Route;
#[cfg(feature = "http")]
use crate::lock::look::Looker;
use crate::mark::{self, Mark, Room};
use crate::names::{RunId, counted};
use crate::notify::inbox::Socket;
use crate::notify::systemd;
use crate::store::Owner;
use crate::store::open::Place;
use crate::store::past::Known;
use crate::store::wake::Alarm;

use crate::worker::{self, Orders, Worker};

/// Files, variables, the configuration in force, and those who look at us.
pub struct Surroundings<'a> {
    settings: &'a Settings,
    config: Config,
    /// The state that was named when we began: it stays until the end.
    place: Place,
    /// Where its runs leave their marks.
    marks: Option<Room>,
    stamp: Stamp,
    managed: bool,
    shown: String,
    #[cfg(feature = "http")]
    looker: Looker,
    stop_time: Duration,
    /// The manager knows that we stop, and how long that may take.
    told_stopping: bool,
    /// Chains of which something was not trusted when they were made ready last: nothing of them is executed, no hook either.
    untrusted: HashSet<String>,
    troubles: Troubles,
    /// What may be shown to others.
    pub audience: Audience,
}

/// What the files of a configuration look like.
pub type Stamp = Vec<(PathBuf, Option<Seen>)>;
/// What a file or directory looks like: its number, its size, when it was changed last in any way, its owner and mode too.
type Seen = (u64, u64, i64, i64);

impl<'a> Surroundings<'a> {
    /// Those of this configuration, which has looked like `stamp`. `managed` is whether a service manager listens.
    pub fn new(settings: &'a Settings, (config, stamp): (Config, Stamp), place: Place, managed: bool, audience: Audience) -> Self {
        let stop_time = DaemonSettings::new(&config, &mut Vec::new()).stop_time;
        Self {
            stamp,
            settings,
            config,
            marks: marks_of(&place),
            place,
            managed,
            shown: String::new(),
            #[cfg(feature = "http")]
            looker: Looker::default(),
            stop_time,
            told_stopping: false,
            untrusted: HashSet::new(),
            troubles: Troubles::default(),
            audience,
        }
    }
}

/// The chains of a configuration with their schedules, in the machine's zone where they name none. What is wrong with
/// them goes to `findings`.
pub fn book_of(config: &Config, findings: &mut Vec<Finding>) -> Vec<Booked> {
    let chains = chains::read_all(config, findings);
    read_schedules(chains, &local_zone(), findings)
}

/// What is wrong with `[daemon]`, as far as the configuration itself tells.
pub fn judge_daemon(config: &Config, findings: &mut Vec<Finding>) -> DaemonSettings {
    let settings = DaemonSettings::new(config, findings);
    queues::of_daemon(config, findings);
    #[cfg(feature = "http")]
    super::web::judge(&settings, findings);
    settings
}

/// What is wrong anywhere in the configuration, as a daemon or a worker would find it, apart from tasks. Whoever only looks need
/// not be the user of the daemon, who alone may read its token.
pub fn judge_all(config: &Config, findings: &mut Vec<Finding>) -> Vec<Booked> {
    let chains = book_of(config, findings);
    let daemon = judge_daemon(config, findings);
    judge_daemon_files(&daemon, Severity::Note, findings);
    queues::read_all(config, findings);
    chains
}

/// What is wrong with the files that `[daemon]` names. `unreadable` is how grave it is that this user may not read one.
#[cfg_attr(not(feature = "http"), expect(unused_variables, reason = "nobody reads a token in this program"))]
pub fn judge_daemon_files(settings: &DaemonSettings, unreadable: Severity, findings: &mut Vec<Finding>) {
    #[cfg(feature = "http")]
    super::web::judge_token(settings, unreadable, findings);
    #[cfg(not(feature = "http"))]
    if let Some((_, origin)) = &settings.listen {
        findings.push(Finding::error(origin, "listen: this program was built without the feature `http`"));
    }
}

/// The files of a configuration, and the directory of its drop-ins: one that is new changes its directory.
fn paths(config: &Config) -> impl Iterator<Item = PathBuf> {
    config.files().iter().map(|file| file.to_path_buf()).chain(include_dir(config).map(|(dir, _)| dir))
}

fn has_paths_of(stamp: &Stamp, config: &Config) -> bool {
    stamp.iter().map(|(path, _)| path).eq(paths(config).collect::<Vec<_>>().iter())
}

fn stamp(paths: impl Iterator<Item = PathBuf>) -> Stamp {
    let look = |path: PathBuf| {
        let seen = seen_of(&path);
        (path, seen)
    };
    paths.map(look).collect()
}

/// Reads the configuration, and what its files looked like before they were read: what changes meanwhile is seen the next
/// time. `known` are the paths that it is believed to have; where it has others, it is read again.
///
/// # Errors
/// It cannot be read.
fn load_seen(settings: &Settings, known: Stamp) -> Result<(Loaded, Stamp), Failure> {
    let loaded = settings.load()?;
    if has_paths_of(&known, &loaded.config) {
        return Ok((loaded, known));
    }
    let seen = stamp(paths(&loaded.config));
    Ok((settings.load()?, seen))
}

/// The same for the first time.
///
/// # Errors
/// It cannot be read.
pub fn load_first(settings: &Settings) -> Result<(Loaded, Stamp), Failure> {
    let file = settings.config_file.iter().filter_map(|file| std::path::absolute(file).ok());
    load_seen(settings, stamp(file))
}

fn seen_of(path: &Path) -> Option<Seen> {
    fs::metadata(path).ok().map(|found| (found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

impl Outside for Surroundings<'_> {
    fn prepare(&mut self, chain: &Booked) -> Result<Ready, String> {
        let (ready, told) = self.make_ready(chain)?;
        self.tell_news(chain.name(), &told);
        Ok(ready)
    }

    fn prepare_ahead(&mut self, chain: &Booked, run: &RunId) -> Option<Kept> {
        let dir = find_task_dir(None, &chain.named.chain).ok()?;
        let place = mark::open_place(self.marks.as_ref(), chain.name(), run, self.place.config_file.as_deref());
        let seen = seen_of(&dir);
        let (mut ready, told) = self.make_ready(chain).ok()?;
        self.tell_news(chain.name(), &told);
        ready.opened = Opened { place, socket: Socket::new().ok() };
        Some(Box::new(move || (seen.is_some() && seen_of(&dir) == seen).then_some(ready)))
    }

    fn refused(&mut self, chain: &Booked, run: &RunRef, why: Refused<'_>, driver: &mut Driver<'_>) -> Option<HookRun> {
        let Refused { reason, message } = why;
        self.audience.board.not_begun(run, reason, message);
        self.audience.push.refused(chain.name(), reason);
        if self.untrusted.contains(chain.name()) {
            return None;
        }
        let dir = find_task_dir(None, &chain.named.chain).ok()?;
        let variables = self.settings.program_variables(&dir);
        let refusal = Refusal { chain: &chain.named.chain, reason, message };
        match start_hook(&self.config, &refusal, &variables, driver.world.family, driver.world.clock)? {
            Ok(hook) => {
                self.troubles.hear(chain.name(), "chain_hook", None);
                Some(hook)
            }
            Err(why) => {
                let level = self.troubles.hear(chain.name(), "chain_hook", Some(&why)).level(log::Level::Warn);
                log::log!(level, "chain {}: chain_hook: {why}", chain.name());
                None
            }
        }
    }

    fn mark(&mut self, chain: &str, run: &RunId, place: Option<mark::Place>) -> Result<Mark, String> {
        let (mark, trouble) = mark::take_at(place, self.marks.as_ref(), chain, run, self.place.config_file.as_deref())?;
        match (self.troubles.hear(chain, "mark", trouble.as_deref()), trouble) {
            (news, Some(trouble)) => log::log!(news.level(log::Level::Warn), "chain {chain}: {trouble}"),
            (News::Passed, None) => log::info!("chain {chain}: is well again, other programs can see that it runs"),
            (News::Trouble | News::Same | News::Well, None) => {}
        }
        Ok(mark)
    }

    fn has_changed(&mut self) -> bool {
        stamp(paths(&self.config)) != self.stamp
    }

    fn reload(&mut self) -> Result<Vec<Booked>, String> {
        systemd::reloading(self.managed);
        let read = self.read_again();
        systemd::ready(self.managed);
        read
    }

    fn ears(&self) -> Option<BorrowedFd<'_>> {
        self.audience.fd()
    }

    #[cfg(feature = "http")]
    fn asked(&mut self, view: &View<'_>) -> Vec<TickAnswer> {
        let (mut ticks, mut views) = (Vec::new(), Vec::new());
        for (route, reply) in self.audience.questions() {
            match route {
                Route::Tick => ticks.push(Box::new(move |begun: Result<&[RunRef], &str>| reply.send(answer_tick(begun))) as TickAnswer),
                Route::View(view) => views.push((view, reply)),
            }
        }
        if !views.is_empty() {
            self.audience.note(view);
            let file = self.settings.config_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
            let locks = lock_view::of_all(&self.config, view.book.chains().iter().map(|chain| &chain.named.chain));
            let mut status = self.audience.status(view, &file, &self.config);
            going::show_closing(view.runs, &mut status);
            waiting::show(&view.slots.slots(), &mut status);
            if let Some(why) = view.no_clock {
                status.without_clock(why);
            }
            lock_view::show(status, locks, &self.looker, views);
        }
        ticks
    }

    #[cfg(not(feature = "http"))]
    fn asked(&mut self, _: &View<'_>) -> Vec<TickAnswer> {
        Vec::new()
    }

    fn orders(&mut self) -> Option<Orders> {
        let queues = queues::of_daemon(&self.config, &mut Vec::new());
        let names = queues.iter().map(|queue| queue.name.clone()).collect();
        let tasks = Box::new(TaskFinder::new(self.settings, &self.config));
        Some(Orders { queues, tasks, telling: telling(&self.audience.push, names) })
    }

    fn bell(&mut self) -> Option<Alarm> {
        let unheard = |error: &io::Error| log::info!("new jobs are not heard of at once, only looked for: {error}");
        Alarm::new(&self.place).inspect_err(unheard).ok()
    }

    fn jobs(&mut self, queues: &[QueueSettings]) -> Result<worker::State, String> {
        let place = self.place.clone();
        let open = move || place.open(SystemClock::new().wall());
        worker::State::new(open, Owner::look(), queues).map_err(|error| format!("the thread of the store cannot be started: {error}"))
    }

    #[cfg(feature = "http")]
    fn shows_queues(&self) -> bool {
        queues::names(&self.config).next().is_some()
    }

    fn shows_runs(&self) -> bool {
        self.audience.is_open()
    }

    fn remember(&mut self, known: &[(String, Known)]) {
        let zone = local_zone();
        self.audience.board.remember(known.iter().map(|(chain, known)| (chain.clone(), known.shown(&zone))).collect());
    }

    fn stop_time(&self) -> Duration {
        self.stop_time
    }

    fn tell(&mut self, view: &View<'_>) {
        self.audience.note(view);
        if view.stopping && !self.told_stopping {
            self.told_stopping = true;
            systemd::stopping_within(self.managed, longest_stop(self.stop_time, view));
        }
        let text = summary(view);
        if text != self.shown {
            systemd::status(self.managed, &text);
            self.shown = text;
        }
    }
}

impl Surroundings<'_> {
    /// A chain as it is now, and what is to be told of it. Remembers whether it is trusted: nothing of one that is not may run.
    fn make_ready(&mut self, chain: &Booked) -> Result<(Ready, Vec<Finding>), String> {
        let settings = chain.named.chain.clone();
        let dir = find_task_dir(None, &settings).map_err(|failure| failure.to_string())?;
        let fit = make_fit(self.settings, &self.config, settings, Vec::new(), &dir);
        if fit.as_ref().is_err_and(|unfit| unfit.untrusted) {
            self.untrusted.insert(chain.name().to_owned());
        } else {
            self.untrusted.remove(chain.name());
        }
        let Fit { mut setup, lock, told } = fit.map_err(|unfit| unfit.message())?;
        setup.beside_others = true;
        let variables = self.settings.program_variables(&dir);
        Ok((Ready { setup: Rc::new(setup), variables, lock, opened: Opened::default() }, told))
    }

    /// What was found in a chain that is made ready at every slot: told when it is news.
    fn tell_news(&mut self, chain: &str, findings: &[Finding]) {
        let all = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        match self.troubles.hear(chain, "findings", Some(all.as_str()).filter(|all| !all.is_empty())) {
            News::Trouble => tell_findings(findings),
            News::Passed => log::info!("chain {chain}: is well again, nothing is found in it"),
            News::Same | News::Well => {}
        }
    }

    fn read_again(&mut self) -> Result<Vec<Booked>, String> {
        // Whatever comes of it: the same files are not read twice.
        self.stamp = stamp(paths(&self.config));
        let (loaded, seen) = load_seen(self.settings, self.stamp.clone()).map_err(|failure| failure.to_string())?;
        let Loaded { config, mut findings, push, .. } = loaded;
        let chains = book_of(&config, &mut findings);
        let daemon = judge_daemon(&config, &mut findings);
        judge_daemon_files(&daemon, Severity::Error, &mut findings);
        findings.extend(strangers::find(&config, None));
        findings.extend(strangers::lost(&config));
        let (errors, told) = part_findings(without_repeats(findings), self.settings.strict);
        if !errors.is_empty() {
            return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        tell_findings(&told);
        self.audience.reload(&daemon)?;
        self.audience.push.reload(push);
        self.audience.note_reload();
        self.stop_time = daemon.stop_time;
        self.stamp = seen;
        self.config = config;
        Ok(chains)
    }
}

/// How long the newest records may take to be written at the end.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a stop may take: what runs, chains and jobs, may go on for, is then ended, and is written down.
fn longest_stop(stop_time: Duration, view: &View<'_>) -> Duration {
    let runs = view.runs.iter().map(|run| run.setup().longest_stop());
    let jobs = view.crew.worker().into_iter().flat_map(Worker::jobs).map(|job| job.longest_stop());
    let ending = runs.chain(jobs).max();
    ending.map_or(LAST_WORDS, |ending| LAST_WORDS.saturating_add(stop_time).saturating_add(ending))
}

/// One line for `systemctl status`.
fn summary(view: &View<'_>) -> String {
    let scheduled = view.book.chains().iter().filter(|chain| chain.named.enabled && chain.schedule.is_some()).count();
    let mut parts = vec![format!("{} on schedule", counted(scheduled, "chain"))];
    if !view.runs.is_empty() {
        let names: Vec<&str> = view.runs.iter().map(|run| run.run_ref().chain.as_str()).take(5).collect();
        parts.push(format!("{} going on ({})", counted(view.runs.len(), "run"), names.join(", ")));
    }
    if !view.waits.is_empty() {
        let names: Vec<&str> = view.waits.iter().map(|(chain, _)| *chain).take(5).collect();
        parts.push(format!(
            "{} for a lock ({})",
            if names.len() == 1 { "1 waits".to_owned() } else { format!("{} wait", view.waits.len()) },
            names.join(", ")
        ));
    }
    if let Some(worker) = view.crew.worker() {
        parts.push(format!("works {}", counted(worker.queues().len(), "queue")));
    }
    if view.crew.trouble().is_some() {
        parts.push("the queues are not worked just now".to_owned());
    }
    if view.stopping {
        parts.push("stopping".to_owned());
    }
    if view.refused_config.is_some() {
        parts.push("the newest configuration is wrong and not used".to_owned());
    }
    if view.no_clock.is_some() {
        parts.push("the clock is not believed".to_owned());
    }
    parts.join(", ")
}
