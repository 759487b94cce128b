//! Those who look at the daemon, and what they see: the board of its runs, the HTTP server, the status as one value. In a program
//! without HTTP `nobody.rs` stands in for it.

use std::os::fd::BorrowedFd;

use jiff::Timestamp;

use super::exit::Failure;
use super::queue_status;
use super::variables::local_zone;
use super::web::Web;
use crate::board::Board;
use crate::board::OfChain;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::config::queues;
use crate::config::settings::ChainSettings;
use crate::config::settings::DaemonSettings;
use crate::daemon::UNREAD;
use crate::daemon::View;
use crate::daemon::book::Booked;
use crate::http::server::Reply;
use crate::http::site::Route;
use crate::names::MAIN_CHAIN;
use crate::push::Push;
use crate::status::{self, Configuration, Date, RefusedConfiguration, Remark, Status};

/// Those who look, and what they see.
pub struct Audience {
    /// The runs.
    pub board: Board,
    /// Those who are told of them.
    pub push: Push,
    /// Where we answer HTTP.
    web: Option<Web>,
    /// Whose slots are shown.
    machine: String,
    since: Timestamp,
    loaded_at: Timestamp,
    refused_at: Option<(String, Timestamp)>,
    clock: SystemClock,
}

impl Audience {
    /// Nobody looks yet. `machine` is whose slots are shown.
    pub fn new(board: Board, machine: &str, push: Push) -> Self {
        let clock = SystemClock::new();
        let now = clock.wall();
        Self { board, push, web: None, machine: machine.to_owned(), since: now, loaded_at: now, refused_at: None, clock }
    }

    /// A new configuration is in force.
    pub fn note_reload(&mut self) {
        self.loaded_at = self.clock.wall();
    }

    /// Begins to answer, if `[daemon] listen` says where.
    ///
    /// # Errors
    /// An address is taken or not ours; the token cannot be read.
    pub fn listen(&mut self, settings: &DaemonSettings) -> Result<(), Failure> {
        self.web = Web::start(settings)?;
        Ok(())
    }

    /// Takes over what `[daemon]` says now.
    ///
    /// # Errors
    /// A new address cannot be listened on; then everything stays as it was.
    pub fn reload(&mut self, settings: &DaemonSettings) -> Result<(), String> {
        self.web.as_mut().map_or(Ok(()), |web| web.reload(settings))
    }

    /// Whether anybody can look.
    pub fn is_open(&self) -> bool {
        self.web.is_some()
    }

    /// Readable when somebody asks.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.web.as_ref().map(Web::fd)
    }

    /// What was asked since the last time.
    pub fn questions(&mut self) -> Vec<(Route, Reply)> {
        self.web.as_mut().map(Web::questions).unwrap_or_default()
    }

    /// Notes since when a configuration is refused.
    pub fn note(&mut self, view: &View<'_>) {
        match (view.refused_config, &self.refused_at) {
            (None, _) => self.refused_at = None,
            (Some(why), Some((known, _))) if why == known => {}
            (Some(why), Some(_) | None) => self.refused_at = Some((why.to_owned(), self.clock.wall())),
        }
    }

    /// How things stand, for the page, the metrics and `/status.json`.
    pub fn status(&self, view: &View<'_>, file: &str, config: &Config) -> Status {
        let zone = local_zone();
        let date = |at: Timestamp| Date::new(at, &zone);
        let now = self.clock.wall();
        let refused = self.refused_at.as_ref().map(|(message, at)| {
            let (file, line) = place_in(message);
            RefusedConfiguration { at: date(*at), message: message.clone(), file, line }
        });
        let mut chains: Vec<status::Chain> = view.book.chains().iter().map(|chain| self.of_chain(chain, view, now)).collect();
        chains.extend(self.of_main(config));
        chains.sort_by(|one, other| one.name.cmp(&other.name));
        Status {
            version: status::VERSION,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            time: date(now),
            since: Some(date(self.since)),
            configuration: Configuration { file: file.to_owned(), loaded_at: date(self.loaded_at), refused },
            chains,
            queues: Self::of_queues(view, config, now),
            locks: Vec::new(),
            remarks: self.remarks(),
        }
    }

    fn remarks(&self) -> Vec<Remark> {
        let of_token = self.web.as_ref().and_then(Web::trouble).map(of_token);
        of_token.into_iter().chain((!self.board.remembers()).then(unknown)).collect()
    }

    /// The main chain, whose runs are those of other programs: where there are any.
    fn of_main(&self, config: &Config) -> Option<status::Chain> {
        let OfChain { running, ended, last_success, totals, given_up } = self.board.of_chain(MAIN_CHAIN);
        // What is wrong with its keys is told when they are read to run it.
        let settings = || ChainSettings::of_chain(config, MAIN_CHAIN, &mut Vec::new());
        (!running.is_empty() || !ended.is_empty()).then(settings).map(|settings| status::Chain {
            name: MAIN_CHAIN.to_owned(),
            enabled: true,
            schedule: Vec::new(),
            timezone: None,
            next: Vec::new(),
            waits_because: None,
            running: with_tries(running, &settings),
            runs: with_tries(ended, &settings),
            last_success,
            totals,
            given_up,
        })
    }

    /// All queues of the configuration, whoever works them.
    fn of_queues(view: &View<'_>, config: &Config, now: Timestamp) -> Vec<status::Queue> {
        let zone = local_zone();
        let of_queue = |name: &str| {
            let depths = queue_status::depths(name, view.depths.counts(), &zone);
            let queue = status::Queue { uncounted: view.depths.failed().map(str::to_owned), ..depths };
            let Some(worker) = view.crew.worker() else { return queue };
            let queue = queue_status::with_worker(queue, worker, &zone, now);
            let trouble = view.crew.trouble().filter(|_| queue.places.is_some());
            status::Queue { trouble, ..queue }
        };
        let mut names: Vec<&str> = queues::names(config).collect();
        names.sort_unstable();
        names.into_iter().map(of_queue).collect()
    }

    fn of_chain(&self, chain: &Booked, view: &View<'_>, now: Timestamp) -> status::Chain {
        let known = self.board.of_chain(chain.name());
        let zone = chain.schedule.as_ref().map(|schedule| schedule.zone().clone()).unwrap_or_else(local_zone);
        let enabled = chain.named.enabled;
        let next = if enabled { view.book.next_of(chain, now, &self.machine) } else { None };
        let for_lock = view.waits.iter().find(|(waiting, _)| *waiting == chain.name());
        let waits_because = match (enabled, &chain.schedule, view.no_clock) {
            _ if for_lock.is_some() => for_lock.map(|(_, why)| format!("a run of it waits: {why}")),
            (false, ..) => Some("it is not enabled".to_owned()),
            (true, None, _) => Some("it has no schedule".to_owned()),
            (true, Some(_), _) if view.unread => Some(UNREAD.to_owned()),
            // A chain of @boot alone waits for no clock.
            (true, Some(_), why) => why.filter(|_| next.is_some()).map(str::to_owned),
        };
        status::Chain {
            name: chain.name().to_owned(),
            enabled,
            schedule: chain.schedule.iter().flat_map(|schedule| schedule.text().lines().map(str::to_owned)).collect(),
            timezone: chain.named.timezone.clone(),
            next: next.map(|at| Date::new(at, &zone)).into_iter().collect(),
            waits_because,
            running: with_tries(known.running, &chain.named.chain),
            runs: with_tries(known.ended, &chain.named.chain),
            last_success: known.last_success,
            totals: known.totals,
            given_up: known.given_up,
        }
    }
}

/// Runs of a chain with these settings: neither the board nor the history knows how many tries it has.
fn with_tries(runs: Vec<status::Run>, chain: &ChainSettings) -> Vec<status::Run> {
    runs.into_iter().map(|run| run.with_tries(chain.task.max_tries.count())).collect()
}

/// What those who look should know of the token.
fn of_token(trouble: String) -> Remark {
    Remark { kind: "token_refused".to_owned(), since: None, queue: None, text: format!("[daemon] token_file: {trouble}") }
}

fn unknown() -> Remark {
    let text = "what ran before this daemon began, and in other programs, is not known yet: the database has not answered";
    Remark { kind: status::HISTORY_UNKNOWN.to_owned(), since: None, queue: None, text: text.to_owned() }
}

/// The file and the line that a message begins with.
fn place_in(message: &str) -> (Option<String>, Option<u32>) {
    let mut parts = message.splitn(3, ':');
    match (parts.next(), parts.next().and_then(|line| line.parse().ok())) {
        (Some(file), Some(line)) if file.starts_with('/') => (Some(file.to_owned()), Some(line)),
        (Some(_) | None, _) => (None, None),
    }
}
