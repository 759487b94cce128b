//! `runner import crontab`: the jobs of a crontab as chains. Prints the sections; writes scripts only where it is told to,
//! and over nothing that is there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde_json::json;

use super::crontab::{Doubt, Job, parse};
use super::exit::{Exit, Failure};
use super::print;
use super::settings::Settings;
use crate::config::value;
use crate::process::user::{Identity, UserError};
use crate::schedule::Schedule;

/// The word that ends the input of a command in its script.
const END_OF_INPUT: &str = "END_OF_INPUT";
/// The word that stands for standard input among file names.
const STDIN: &str = "-";

/// What was typed.
#[derive(Debug)]
pub struct Question {
    /// The crontab; `-` is standard input.
    pub file: PathBuf,
    /// It has no column for the user.
    pub of_user: bool,
    /// Where the scripts go; without it they are shown as comments.
    pub into: Option<PathBuf>,
}

impl Question {
    /// The crontab, in words.
    fn shown(&self) -> String {
        if self.file == Path::new(STDIN) { "standard input".to_owned() } else { self.file.display().to_string() }
    }
}

/// Prints the chains of a crontab.
///
/// # Errors
/// It cannot be read; one of the scripts is there already, or cannot be written; the result cannot be written.
pub fn crontab(settings: &Settings, question: &Question) -> Result<Exit, Failure> {
    let shown = question.shown();
    let text = read(&question.file).map_err(|error| Failure::NotThere(format!("the crontab {shown} cannot be read: {error}")))?;
    let (chains, doubts) = parse(&text, question.of_user, judge);
    let into = question.into.as_deref().map(std::path::absolute).transpose().map_err(|error| Failure::Usage(format!("--into: {error}")))?;
    if let Some(dir) = &into {
        write_all(dir, &chains, question)?;
    }
    doubts.iter().for_each(|doubt| log::warn!("{shown}:{}: not translated: {}", doubt.line, doubt.why));
    for job in &chains {
        if let Some(Err(error @ UserError::Unknown(_))) = job.user.as_deref().filter(|user| *user != "root").map(Identity::look_up) {
            log::warn!("{shown}:{}: {error}: with it in chain {} the whole configuration is refused (78)", job.line, job.name);
        }
    }
    let config = sections(&chains, &doubts, into.as_deref(), &shown);
    if settings.json {
        let list: Vec<_> = chains.iter().map(|job| json!({ "name": job.name, "line": job.line, "schedule": job.schedule, "user": job.user, "script": script(job, &shown) })).collect();
        let not: Vec<_> = doubts.iter().map(|doubt| json!({ "line": doubt.line, "text": doubt.text, "why": doubt.why })).collect();
        print::json(&json!({ "version": 1, "config": config, "chains": list, "not_translated": not }))?;
    } else {
        print::text(&config)?;
    }
    Ok(Exit::Done)
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new(STDIN) {
        io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = fs::read(file)?;
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Whether runner can do what the line asks for.
fn judge(job: &Job) -> Result<(), String> {
    Schedule::parse(&job.schedule, TimeZone::UTC).map_err(|error| error.to_string())?;
    if let Some(zone) = job.variable("CRON_TZ") {
        value::time_zone(zone).map_err(|expected| format!("CRON_TZ = {zone}: {expected}"))?;
    }
    Ok(())
}

// ---- the sections ----------------------------------------------------------------------------------

fn sections(chains: &[Job], doubts: &[Doubt], into: Option<&Path>, shown: &str) -> String {
    let mut text = format!(
        "# The jobs of {shown}. Each runs once at its time, as with cron: missed slots are not caught up, failures not\n# tried again. docs/coming-from-cron.md tells what is different.\n"
    );
    let mut mail_to: Vec<&str> = chains.iter().filter_map(|job| job.variable("MAILTO")).filter(|value| !value.is_empty()).collect();
    mail_to.sort_unstable();
    mail_to.dedup();
    for value in mail_to {
        text.push_str(&format!("# MAILTO was {value}: runner sends no mail by itself; docs/hooks.md has a chain_hook that does.\n"));
    }
    for doubt in doubts {
        text.push_str(&format!("\n# {shown}:{} is not translated: {}\n# {}\n", doubt.line, doubt.why, doubt.text));
    }
    for job in chains {
        text.push_str(&section(job, into, shown));
    }
    text
}

fn section(job: &Job, into: Option<&Path>, shown: &str) -> String {
    let dir = into.map_or_else(|| PathBuf::from(format!("{}.d", job.name)), |into| into.join(&job.name));
    let mut text = format!("\n# {shown}:{}\n[chain:{}]\ntask_dir = {}\nschedule = {}\n", job.line, job.name, dir.display(), job.schedule);
    if let Some(zone) = job.variable("CRON_TZ") {
        text.push_str(&format!("timezone = {zone}\n"));
    }
    // cronie: minutes.
    if let Some(minutes) = job.variable("RANDOM_DELAY").and_then(|text| text.parse::<u32>().ok()).filter(|minutes| *minutes > 0) {
        text.push_str(&format!("random_delay = {minutes}min\n"));
    }
    // Whoever runs this as root runs the jobs of root without changing anything.
    // Also of root: it gives HOME and its kin, which no service of the system has by itself (systemd.exec(5)).
    if let Some(user) = &job.user {
        text.push_str(&format!("user = {user}\n"));
    }
    text.push_str("missed = skip\nmax_tries = 1\nmax_time = 0\nhalt_codes =\n");
    if into.is_none() {
        text.push_str(&format!("# {}/{}:\n", dir.display(), file_of(job)));
        text.extend(script(job, shown).lines().map(|line| format!("#   {line}\n")));
    }
    text
}

// ---- the scripts -----------------------------------------------------------------------------------

fn file_of(job: &Job) -> String {
    format!("10-{}.sh", job.name)
}

/// What cron did with the line: the shell, the variables, the home directory, the input.
fn script(job: &Job, shown: &str) -> String {
    let mut text = format!("#!{}\n# {shown}:{}\n", job.variable("SHELL").unwrap_or("/bin/sh"), job.line);
    for (name, value) in &job.variables {
        match name.as_str() {
            "MAILTO" | "MAILFROM" | "CONTENT_TYPE" | "CONTENT_TRANSFER_ENCODING" | "CRON_TZ" | "RANDOM_DELAY" => {}
            name => text.push_str(&format!("export {name}={}\n", quoted(value))),
        }
    }
    text.push_str("cd \"${HOME:-/}\" 2>/dev/null || cd /\n");
    if let Some(input) = &job.input {
        let mut end = END_OF_INPUT.to_owned();
        while input.lines().any(|line| line == end) {
            end.push('_');
        }
        text.push_str(&format!("exec <<'{end}'\n{input}\n{end}\n"));
    }
    text.push_str(&format!("{}\n", job.command));
    text
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// Writes every script; looks first whether one of them is there.
fn write_all(dir: &Path, chains: &[Job], question: &Question) -> Result<(), Failure> {
    if let Some(there) = chains.iter().map(|job| dir.join(&job.name)).find(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::NotThere(format!(
            "{} is there already, and nothing is overwritten: name another directory with --into",
            there.display()
        )));
    }
    // What only its owner could read stays so: there may be a password in it.
    let mode = if question.of_user { 0o700 } else { 0o755 };
    let shown = question.shown();
    let write = |job: &Job| -> io::Result<()> {
        let own = dir.join(&job.name);
        DirBuilder::new().recursive(true).mode(mode).create(&own)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(own.join(file_of(job)))?;
        file.write_all(script(job, &shown).as_bytes())?;
        // Whatever the umask is: a task has to be executable.
        file.set_permissions(fs::Permissions::from_mode(mode))
    };
    chains
        .iter()
        .try_for_each(write)
        .map_err(|error| Failure::State(format!("the scripts cannot be written into {}: {error}", dir.display())))
}
