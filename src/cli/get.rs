//! `runner-config`, and `runner -g`: values of the configuration for tasks and people.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::{ConfigCli, ValueType};
use super::exit::{Exit, Failure};
use super::print;
use super::settings::{find_config, parse_overrides, unreadable};
use super::variables::own_variable;
use crate::config::load::{Override, load};
use crate::config::value::{self, mask_secrets};
use crate::config::{Config, Entry, Origin, Section};

/// `runner-config`.
///
/// # Errors
/// The command line or the configuration is wrong, a value is not of its type, the result cannot be written.
pub fn config(args: &ConfigCli) -> Result<Exit, Failure> {
    let overrides = parse_overrides(&args.set)?;
    let file = find_config(args.config.as_deref(), true)?;
    let config = read(file.as_deref(), &overrides)?;
    match (&args.get, &args.list) {
        (Some(name), _) => get(&config, name, args),
        (None, Some(section)) => list(&config, Some(section.as_str()).filter(|section| !section.is_empty()), args),
        (None, None) => Err(Failure::Usage("say what to print: -g SECTION.KEY, or -l".to_owned())),
    }
}

/// `runner -g SECTION.KEY`.
///
/// # Errors
/// As for [`config`].
pub fn value_of(file: Option<&Path>, overrides: &[Override], name: &str, json: bool) -> Result<Exit, Failure> {
    let args =
        ConfigCli { get: Some(name.to_owned()), default: None, kind: None, list: None, json, origin: false, config: None, set: Vec::new() };
    get(&read(file, overrides)?, name, &args)
}

/// Reads the configuration; a line that cannot be read is an error, whatever else may be wrong with a value is not
/// this program's to judge. Inside a run, what the run's `--set` said holds here, too, and is said again by our own.
fn read(file: Option<&Path>, overrides: &[Override]) -> Result<Config, Failure> {
    let mut findings = Vec::new();
    let same_file = own_variable("RUNNER_CONFIG").is_some_and(|own| file.is_some_and(|file| file.as_os_str() == own));
    let inherited = own_variable("RUNNER_OVERRIDES").filter(|_| same_file);
    let texts: Vec<String> = inherited.and_then(|text| serde_json::from_str(text.to_str()?).ok()).unwrap_or_default();
    let all: Vec<Override> = parse_overrides(&texts)?.into_iter().chain(overrides.iter().cloned()).collect();
    let config = load(file, &all, &mut findings).map_err(unreadable)?;
    findings.retain(|finding| finding.severity == crate::config::Severity::Error);
    if findings.is_empty() { Ok(config) } else { Err(Failure::Config(findings)) }
}

fn get(config: &Config, name: &str, args: &ConfigCli) -> Result<Exit, Failure> {
    if !name.contains('.') {
        return Err(Failure::Usage(format!("-g {name}: expected SECTION.KEY")));
    }
    let default = args.default.as_ref().map(|value| Entry { key: name.to_owned(), value: value.clone(), origin: Origin::Default });
    let Some(entry) = config.lookup(name).cloned().or(default) else {
        return Ok(Exit::GaveUp);
    };
    let value = match args.kind {
        Some(kind) => typed(&entry, kind)
            .map_err(|expected| Failure::config(format!("{}: {name} = {}: {expected}", entry.origin, mask_secrets(&entry.value))))?,
        None => json!(entry.value),
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (args.json, args.origin) {
        (true, _) => print::json(&json!({ "version": 1, "name": name, "value": value, "origin": entry.origin.to_string() }))?,
        (false, true) => print::text(&format!("{text}\t{}\n", entry.origin))?,
        (false, false) => print::text(&format!("{text}\n"))?,
    }
    Ok(Exit::Done)
}

/// The value as what it has to be. A duration is a number of seconds, whole where it is, or `infinity`.
fn typed(entry: &Entry, kind: ValueType) -> value::Parsed<Value> {
    let text = entry.value.as_str();
    match kind {
        ValueType::Str => Ok(json!(text)),
        ValueType::Int => text.parse::<i64>().map(|number| json!(number)).map_err(|_| "expected a whole number".to_owned()),
        ValueType::Bool => value::boolean(text).map(|yes| json!(yes)),
        ValueType::Duration => value::duration(text).map(|duration| match duration {
            Duration::MAX => json!("infinity"),
            _ if duration.subsec_nanos() == 0 => json!(duration.as_secs()),
            _ => json!(duration.as_secs_f64()),
        }),
        ValueType::Path => {
            let path = value::path(text, entry.origin.base().unwrap_or(Path::new("")))?;
            std::path::absolute(path).map(|path| json!(path.display().to_string())).map_err(|error| error.to_string())
        }
    }
}

fn list(config: &Config, wanted: Option<&str>, args: &ConfigCli) -> Result<Exit, Failure> {
    let sections: Vec<&Section> = config.sections().filter(|section| wanted.is_none_or(|wanted| section.name == wanted)).collect();
    if sections.is_empty() && wanted.is_some() {
        return Ok(Exit::GaveUp);
    }
    if args.json {
        let all: Map<String, Value> =
            sections.iter().map(|section| (section.name.clone(), section_json(config, section, args.origin))).collect();
        print::json(&json!({ "version": 1, "sections": all }))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for section in sections {
        text.push_str(&format!("[{}]\n", section.name));
        for entry in config.items(&section.name) {
            let origin = if args.origin { format!("    # {}", entry.origin) } else { String::new() };
            text.push_str(&format!("{} = {}{origin}\n", entry.key, mask_secrets(&entry.value).replace('\n', "\n    ")));
        }
    }
    print::text(&text)?;
    Ok(Exit::Done)
}

fn section_json(config: &Config, section: &Section, origin: bool) -> Value {
    let value = |entry: &Entry| {
        let text = mask_secrets(&entry.value);
        if origin { json!({ "value": text, "origin": entry.origin.to_string() }) } else { json!(text) }
    };
    Value::Object(config.items(&section.name).map(|entry| (entry.key.clone(), value(entry))).collect())
}
