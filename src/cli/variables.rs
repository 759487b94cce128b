//! Variables: those that runner was started with, and those by which tasks find the configuration.

use std::env;
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::tz::TimeZone;

use crate::config::Config;
use crate::config::load::Override;
use crate::config::sections::Sections;
use crate::environment::{Environment, variable};
use crate::names::MAIN_CHAIN;
use crate::process::find_program;
use crate::zone;

/// Our own variables, without what is private. Where the path of runner-config cannot stand in RUNNER_CONFIG_CMD, its
/// directory is the last of PATH, so that the bare name is found.
/// Looked at once: nobody changes them while we run.
pub fn own_environment() -> &'static Environment {
    static OWN: OnceLock<Environment> = OnceLock::new();
    let extra = || config_program().filter(|program| !is_one_word(program)).and_then(|program| program.parent().map(Path::to_owned));
    OWN.get_or_init(|| variables_of_ours(extra()))
}

#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
fn variables_of_ours(extra: Option<PathBuf>) -> Environment {
    Environment::new(env::vars_os().map(|(name, value)| match &extra {
        Some(dir) if name == "PATH" => {
            let path = env::join_paths(env::split_paths(&value).chain([dir.clone()])).unwrap_or(value);
            (name, path)
        }
        Some(_) | None => (name, value),
    }))
}

/// The value of PATH by which the programs of this configuration are found: `[env]` may set it.
pub fn program_search(config: &Config) -> Option<OsString> {
    own_environment().variables(Sections::for_chain(config, MAIN_CHAIN).variables(None), &[]).search
}

/// The program that answers `-g`: the runner-config beside us; where there is none (only `runner` was built), the one
/// in PATH; where there is none either, ourselves.
fn config_program() -> Option<PathBuf> {
    let exe = env::current_exe().ok()?;
    let beside = exe.parent().map(|dir| dir.join("runner-config")).filter(|path| path.exists());
    let in_path = || find_program("runner-config".as_ref(), own_variable("PATH").as_deref());
    beside.or_else(in_path).or(Some(exe))
}

/// Whether `sh` takes a path without quotes as one word, and as it is.
pub fn is_one_word(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains(|c: char| c.is_whitespace() || "*?[]\\'\"`$&|;<>(){}~#!".contains(c)))
}

/// All our variables, as they are.
#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
pub fn inherited_variables() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os()
}

/// The value of one of our variables.
#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
pub fn own_variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// The zone of the machine.
pub fn local_zone() -> TimeZone {
    zone::local(own_variable("TZ").as_deref())
}

/// The variables by which tasks find the configuration, the same in every run.
///
/// RUNNER_CONFIG_CMD is used without quotes in `sh`, so no word of it may hold a blank or a glob character: what
/// does is handed on in RUNNER_CONFIG and PATH instead.
pub fn of_programs(config_file: Option<&Path>, overrides: &[Override], dir: &Path) -> Vec<CString> {
    // Without a configuration an empty one answers: nothing is there.
    let file = config_file.unwrap_or(Path::new("/dev/null"));
    let word = config_program().filter(|path| is_one_word(path)).unwrap_or_else(|| PathBuf::from("runner-config"));
    let mut command = word.into_os_string();
    if is_one_word(file) {
        command.push(" -c ");
        command.push(file);
    }
    let overrides: Vec<String> = overrides.iter().map(Override::text).collect();
    let mut variables = vec![
        variable(b"RUNNER_CONFIG_CMD", command.as_encoded_bytes()),
        variable(b"RUNNER_CONFIG", file.as_os_str().as_encoded_bytes()),
        variable(b"RUNNER_TASK_DIR", dir.as_os_str().as_encoded_bytes()),
    ];
    if !overrides.is_empty() {
        variables.push(variable(b"RUNNER_OVERRIDES", serde_json::json!(overrides).to_string().as_bytes()));
    }
    variables.into_iter().flatten().collect()
}
