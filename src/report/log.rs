//! The log on stderr or syslog: levels, the three formats, journald's priorities, colours.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use env_logger::{Builder, Target};
use jiff::tz::TimeZone;
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Record};

use super::sink::{self, Stream};
use crate::clock::{Clock, SystemClock};
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
                if log::set_boxed_logger(Box::new(OnlyOurs(logger))).is_ok() {
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

fn start_stderr(settings: LogSettings, syslog_error: Option<syslog::Error>) {
    let stamp = Stamp::new(&settings);
    let mut builder = Builder::new();
    // Libraries log what they send: statements, addresses, headers. Some of that is secret, all of it is theirs.
    builder.filter_level(LevelFilter::Off).filter_module(OURS, settings.level).target(Target::Pipe(Box::new(Stderr)));
    builder.format(move |line, record| {
        if settings.journal {
            line.write_all(priority(record.level()).as_bytes())?;
        }
        match settings.format {
            LogFormat::Text => text_line(line, record, &settings, &stamp)?,
            LogFormat::Json => line.write_all(json_line(record, &stamp).as_bytes())?,
            LogFormat::Logfmt => line.write_all(logfmt_line(record, &stamp).as_bytes())?,
        }
        line.write_all(b"\n")
    });
    // A second start keeps the first log.
    let _ = builder.try_init();
    if let Some(error) = syslog_error {
        log::warn!("syslog cannot be reached, the log is here: {error}");
    }
}

/// The date of a line, in the machine's zone. Thousands of lines share a second: its date is made once.
struct Stamp {
    clock: SystemClock,
    zone: TimeZone,
    second: Mutex<Second>,
}

/// A second and its date: what stands before the milliseconds, and what stands behind them.
#[derive(Debug, Clone, Default)]
struct Second {
    number: Option<i64>,
    date: String,
    offset: String,
}

impl Stamp {
    fn new(settings: &LogSettings) -> Self {
        // The journal has its own clock; then the zone is not even looked at.
        let dated = !(settings.journal && settings.format == LogFormat::Text);
        let zone = if dated { zone::local(settings.tz.as_deref()) } else { TimeZone::UTC };
        Self { clock: SystemClock::new(), zone, second: Mutex::default() }
    }

    /// Writes the time as RFC 3339 with milliseconds.
    fn write(&self, line: &mut impl Write) -> io::Result<()> {
        let wall = self.clock.wall();
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != Some(wall.as_second()) {
            let zoned = wall.to_zoned(self.zone.clone());
            let date = zoned.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            *second = Second { number: Some(wall.as_second()), date, offset: zoned.strftime("%:z").to_string() };
        }
        line.write_all(second.date.as_bytes())?;
        // A time before 1970 counts its fraction backwards; a clock that wrong has no use for milliseconds.
        write!(line, ".{:03}", wall.subsec_millisecond().max(0))?;
        line.write_all(second.offset.as_bytes())
    }

    /// The same as text.
    fn now(&self) -> String {
        let mut text = Vec::new();
        let _ = self.write(&mut text);
        String::from_utf8(text).unwrap_or_default()
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

fn text_line(line: &mut impl Write, record: &Record<'_>, settings: &LogSettings, stamp: &Stamp) -> io::Result<()> {
    if !settings.journal {
        stamp.write(line)?;
        let word = word(record.level());
        if settings.color {
            let style = style(record.level());
            write!(line, " {style}{word:<7}{style:#} ")?;
        } else {
            write!(line, " {word:<7} ")?;
        }
    }
    let mut plain = Plain { line, result: Ok(()) };
    let _ = plain.write_fmt(*record.args());
    plain.result
}

fn style(level: Level) -> Style {
    match level {
        Level::Error => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Level::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Level::Info => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Level::Debug | Level::Trace => Style::new().dimmed(),
    }
}

/// Passes text on with its control characters escaped: what a task or a file name put into a message must not move the
/// reader's cursor or begin a line of its own.
struct Plain<'a, W> {
    line: &'a mut W,
    result: io::Result<()>,
}

impl<W: Write> fmt::Write for Plain<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // 0xC2 begins the encodings of the second block of control characters, among others.
        let harmless = text.bytes().all(|byte| byte >= b' ' && byte != 0x7f && byte != 0xc2);
        self.result = if harmless {
            self.line.write_all(text.as_bytes())
        } else {
            text.chars()
                .try_for_each(|c| if c.is_control() { write!(self.line, "{}", c.escape_default()) } else { write!(self.line, "{c}") })
        };
        if self.result.is_ok() { Ok(()) } else { Err(fmt::Error) }
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
    serde_json::Value::Object(fields).to_string()
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
    if bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
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
