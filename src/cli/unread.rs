//! The chains of a configuration that could not be read to its end: known by the runs that go on and by those of the past. What is
//! asked of the state at night does not depend on a slip in a file.

use std::collections::BTreeSet;

use super::exit::Failure;
use super::state::Reading;
use crate::config::Config;
use crate::config::settings::ChainSettings;
use crate::daemon::book::Booked;
use crate::names::MAIN_CHAIN;
use crate::status::Going;
use crate::store::HistoryQuery;

/// Those that the state or a run that goes on (`told`) knows and the configuration, as far as it was read, does not; none where it
/// was read to its end.
///
/// # Errors
/// The database does not answer.
pub fn chains(
    whole: bool,
    config: &Config,
    booked: &[Booked],
    told: &[Going],
    reading: &mut Reading,
) -> Result<Vec<ChainSettings>, Failure> {
    if whole {
        return Ok(Vec::new());
    }
    let all = HistoryQuery { chain: None, failed: false, limit: u32::MAX };
    let mut names: BTreeSet<String> = reading.history(&all)?.into_iter().map(|run| run.chain).collect();
    names.extend(told.iter().map(|going| going.chain.clone()));
    names.retain(|name| name != MAIN_CHAIN && booked.iter().all(|chain| chain.name() != name));
    Ok(names.iter().map(|name| ChainSettings::of_chain(config, name, &mut Vec::new())).collect())
}
