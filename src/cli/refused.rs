//! The hook of a chain whose run does not begin.

use std::ffi::CString;

use super::trusted::refuse_hooks;
use super::variables::own_environment;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::keys::CHAIN_HOOK;
use crate::config::sections::Sections;
use crate::config::settings::ChainSettings;
use crate::environment::{Block, variable};
use crate::hook::{self, HookRun, HookStart};
use crate::process::Family;

/// The reason of a chain whose tasks cannot be run.
pub const TASK_DIR: &str = "task_dir";

/// A run that does not begin.
pub struct Refusal<'a> {
    /// Of which chain.
    pub chain: &'a ChainSettings,
    /// Why, in a word.
    pub reason: &'a str,
    /// Why, in words.
    pub message: &'a str,
}

/// Starts the hook of the chain, if it has one that root may run.
pub fn start_hook(
    config: &Config,
    refusal: &Refusal<'_>,
    variables: &[CString],
    family: &Family,
    clock: &dyn Clock,
) -> Option<Result<HookRun, String>> {
    let chain = refusal.chain;
    let command = chain.chain_hook.as_ref()?;
    if let Some(why) = refuse_hooks(config, chain) {
        return Some(Err(why));
    }
    let own_variables = own_environment().variables(Sections::new(config, &chain.name).variables(None), &[]);
    let marks: Block =
        [variable(b"RUNNER_CHAIN", chain.name.as_bytes()), variable(b"RUNNER_HOOK", b"chain")].into_iter().flatten().collect();
    let start = HookStart {
        key: CHAIN_HOOK.info.name,
        command,
        message: &hook::run_refused(&chain.name, refusal.reason, refusal.message),
        env: &[&own_variables.block, &variables.iter().cloned().collect(), &marks],
        search: own_variables.search.as_deref(),
        max_time: chain.hook_max_time,
        kill_after: chain.task.kill_after,
    };
    Some(HookRun::start(&start, family, clock.now()))
}
