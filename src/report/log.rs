//! The log on stderr or syslog: levels, the three formats, journald's priorities, colours.

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use anstyle::{AnsiColor, Style};
use env_logger::{Builder, Target};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Record};

use super::sink::{self, Stream};
use crate::clock::{Clock, SystemClock};
use crate::names::{digit, printable};
use crate::zone;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// What is logged, how, and where to.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The least grave level.
    pub level: LevelFilter,
    /// How a line is written.
    pub format: LogFormat,
    /// Whether levels are coloured.
    pub color: bool,
    /// Whether stderr is the journal: it takes priorities, and has its own clock.
    pub journal: bool,
    /// To syslog instead of stderr.
    pub syslog: bool,
    /// The value of TZ.
    pub tz: Option<OsString>,
}

/// Starts the log. Where syslog cannot be reached the log goes to stderr, and says so.
pub fn start(settings: LogSettings) {
    if settings.syslog {
        match syslog_logger() {
            Ok(logger) => {
                if log::set_boxed_logger(Box::new(OnlyOurs(OneLine(logger)))).is_ok() {
                    log::set_max_level(settings.level);
                }
            }
            Err(error) => start_stderr(settings, Some(error)),
        }
    } else {
        start_stderr(settings, None);
    }
}

/// The targets of our own records begin so.
const OURS: &str = "runner";

/// Hands on what is ours.
struct OnlyOurs<L>(L);

impl<L: log::Log> log::Log for OnlyOurs<L> {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with(OURS) && self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn syslog_logger() -> Result<syslog::BasicLogger, syslog::Error> {
    let formatter = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_DAEMON,
        hostname: None,
        process: "runner".to_owned(),
        pid: u32::try_from(rustix::process::getpid().as_raw_pid()).unwrap_or(0),
    };
    syslog::unix(formatter).map(syslog::BasicLogger::new)
}

thread_local! {
    /// The memory of the last line: a chain writes thousands.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// Hands messages on with their control characters escaped: some syslog daemons begin a new entry at a line feed.
struct OneLine<L>(L);

impl<L: log::Log> log::Log for OneLine<L> {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args().to_string();
        self.0.log(&record.to_builder().args(format_args!("{}", printable(&message))).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn start_stderr(settings: LogSettings, syslog_error: Option<syslog::Error>) {
    let stamp = Stamp::new(&settings);
    let mut builder = Builder::new();
    // Libraries log what they send: statements, addresses, headers. Some of that is secret, all of it is theirs.
    builder.filter_level(LevelFilter::Off).filter_module(OURS, settings.level).target(Target::Pipe(Box::new(Stderr)));
    builder.format(move |to, record| {
        // Put together here, and handed on in one piece: each step of the way costs as much for a word as for a line.
        let mut line = LINE.take();
        line.clear();
        if settings.journal {
            line.push_str(priority(record.level()));
        }
        match settings.format {
            LogFormat::Text => push_text(&mut line, record, &settings, &stamp),
            LogFormat::Json => line.push_str(&json_line(record, &stamp)),
            LogFormat::Logfmt => line.push_str(&logfmt_line(record, &stamp)),
        }
        line.push('\n');
        let written = to.write_all(line.as_bytes());
        LINE.set(line);
        written
    });
    // A second start keeps the first log.
    let _ = builder.try_init();
    if let Some(error) = syslog_error {
        log::warn!("syslog cannot be reached, the log is here: {error}");
    }
}

/// The date of a line, in the machine's zone. Thousands of lines share a minute: its date is made once. The journal has its
/// own clock, and many calls have nothing to tell: the zone is looked at for the first date.
struct Stamp {
    clock: SystemClock,
    tz: Option<OsString>,
    zone: OnceLock<TimeZone>,
    minute: Mutex<Minute>,
}

/// A minute of the machine's zone and its date: what stands before the seconds, and what stands behind them.
#[derive(Debug, Clone, Default)]
struct Minute {
    number: Option<i64>,
    /// How far the zone is from UTC, in seconds; zones change it at the begin of a minute.
    shift: i64,
    date: String,
    offset: String,
}

impl Stamp {
    fn new(settings: &LogSettings) -> Self {
        Self { clock: SystemClock::new(), tz: settings.tz.clone(), zone: OnceLock::new(), minute: Mutex::default() }
    }

    /// Adds the time `wall` as RFC 3339 with milliseconds.
    fn push(&self, line: &mut String, wall: Timestamp) {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.number != Some((wall.as_second() + minute.shift).div_euclid(60)) {
            let zoned = wall.to_zoned(self.zone.get_or_init(|| zone::local(self.tz.as_deref())).clone());
            let shift = i64::from(zoned.offset().seconds());
            let (date, offset) = (zoned.strftime("%Y-%m-%dT%H:%M:").to_string(), zoned.strftime("%:z").to_string());
            *minute = Minute { number: Some((wall.as_second() + shift).div_euclid(60)), shift, date, offset };
        }
        line.push_str(&minute.date);
        let second = (wall.as_second() + minute.shift).rem_euclid(60);
        // A time before 1970 counts its fraction backwards; a clock that wrong has no use for milliseconds.
        let millis = i64::from(wall.subsec_millisecond().max(0));
        let digits = [digit(second / 10), digit(second), b'.', digit(millis / 100), digit(millis / 10), digit(millis)];
        line.push_str(std::str::from_utf8(&digits).unwrap_or_default());
        line.push_str(&minute.offset);
    }

    /// The time it is, as text.
    fn now(&self) -> String {
        let mut text = String::new();
        self.push(&mut text, self.clock.wall());
        text
    }
}

/// Hands whole lines to the sink, which never fails.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sink::write(Stream::Err, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The prefix by which journald knows the priority of a line (sd-daemon(3)).
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn push_text(line: &mut String, record: &Record<'_>, settings: &LogSettings, stamp: &Stamp) {
    if !settings.journal {
        stamp.push(line, stamp.clock.wall());
        let word = word(record.level());
        // The longest word has seven letters.
        let blanks = &"        "[word.len().min(7)..];
        if settings.color {
            let style = style(record.level());
            let _ = write!(line, " {style}{word}{style:#}{blanks}");
        } else {
            line.push(' ');
            line.push_str(word);
            line.push_str(blanks);
        }
    }
    let message = line.len();
    // Writing to a string cannot fail.
    let _ = line.write_fmt(*record.args());
    escape_controls(line, message);
}

fn style(level: Level) -> Style {
    match level {
        Level::Error => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Level::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Level::Info => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Level::Debug | Level::Trace => Style::new().dimmed(),
    }
}

/// Escapes the control characters of `line` behind `from`: what a task or a file name put into a message must not move
/// the reader's cursor or begin a line of its own.
fn escape_controls(line: &mut String, from: usize) {
    if let Cow::Owned(shown) = printable(&line[from..]) {
        line.truncate(from);
        line.push_str(&shown);
    }
}

fn json_line(record: &Record<'_>, stamp: &Stamp) -> String {
    let mut fields = serde_json::Map::new();
    fields.insert("time".into(), stamp.now().into());
    fields.insert("level".into(), word(record.level()).into());
    fields.insert("message".into(), record.args().to_string().into());
    for (key, value) in pairs(record) {
        fields.insert(key, value);
    }
    without_controls(serde_json::Value::Object(fields).to_string())
}

/// JSON leaves DEL and the second block of control characters as they are; some terminals obey them.
fn without_controls(json: String) -> String {
    if !json.contains(char::is_control) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        let _ = if c.is_control() { write!(escaped, "\\u{:04x}", u32::from(c)) } else { escaped.write_char(c) };
    }
    escaped
}

fn logfmt_line(record: &Record<'_>, stamp: &Stamp) -> String {
    let message = record.args().to_string();
    let mut line = format!("time={} level={} message={}", stamp.now(), word(record.level()), quoted(&message));
    for (key, value) in pairs(record) {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => quoted(&text),
            other => other.to_string(),
        };
        let _ = write!(line, " {key}={text}");
    }
    line
}

/// A value of logfmt: bare when that is unmistakable, else as a JSON string.
fn quoted(text: &str) -> String {
    let bare = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./:+@".contains(c));
    if bare { text.to_owned() } else { without_controls(serde_json::Value::from(text).to_string()) }
}

fn pairs(record: &Record<'_>) -> Vec<(String, serde_json::Value)> {
    let mut pairs = Pairs(Vec::new());
    let _ = record.key_values().visit(&mut pairs);
    pairs.0
}

/// Collects the fields of a record; one that has no value is null.
struct Pairs(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut read = ReadValue(serde_json::Value::Null);
        value.visit(&mut read)?;
        self.0.push((key.to_string(), read.0));
        Ok(())
    }
}

struct ReadValue(serde_json::Value);

impl<'kvs> VisitValue<'kvs> for ReadValue {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = serde_json::Value::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::Log;

    use super::*;

    #[test]
    fn a_time_is_printed_with_the_second_of_its_own_minute() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let stamp = Stamp { clock: SystemClock::new(), tz: None, zone: OnceLock::from(zone), minute: Mutex::default() };
        let text = |millis: i64| {
            let mut text = String::new();
            stamp.push(&mut text, Timestamp::from_millisecond(millis).unwrap());
            text
        };
        // The last second of winter and the first of summer, and what comes before and after them.
        assert_eq!(text(1_774_745_999_007), "2026-03-29T01:59:59.007+01:00");
        assert_eq!(text(1_774_746_000_000), "2026-03-29T03:00:00.000+02:00");
        assert_eq!(text(1_774_746_059_999), "2026-03-29T03:00:59.999+02:00");
        assert_eq!(text(1_774_746_060_120), "2026-03-29T03:01:00.120+02:00");
        assert_eq!(text(-1_000), "1970-01-01T00:59:59.000+01:00");
    }

    #[test]
    fn control_characters_of_a_message_are_escaped_and_others_stay() {
        let text = |message: &str| {
            let mut line = format!("\u{1b}[1mhead {message}");
            escape_controls(&mut line, "\u{1b}[1mhead ".len());
            line
        };
        assert_eq!(text("plain \u{e4}\u{b5}"), "\u{1b}[1mhead plain \u{e4}\u{b5}");
        assert_eq!(text("a\u{202e}b\u{2066}\u{61c}\u{2014}"), "\u{1b}[1mhead a\\u{202e}b\\u{2066}\\u{61c}\u{2014}");
        assert_eq!(text("a\nb\u{1b}[2J\u{85}\u{7f}\u{a0}"), "\u{1b}[1mhead a\\nb\\u{1b}[2J\\u{85}\\u{7f}\u{a0}");
    }

    struct Collector(Mutex<Vec<String>>);

    impl Log for Collector {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_message_to_syslog_is_one_line() {
        let logger = OneLine(Collector(Mutex::default()));
        logger.log(&Record::builder().args(format_args!("10-a\nforged: {}", "\u{1b}[31m")).build());
        logger.log(&Record::builder().args(format_args!("10-a: ok")).build());
        assert_eq!(*logger.0.0.lock().unwrap(), ["10-a\\nforged: \\u{1b}[31m", "10-a: ok"]);
    }
}
