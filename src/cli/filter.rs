//! `--only`, `--skip`, `--from`, `--until`: which of the planned tasks are run.

use super::args::RunArgs;
use super::exit::Failure;
use crate::chain::setup::Setup;

/// Takes away from the plan what the options leave out.
///
/// # Errors
/// A name that no task has; nothing left.
pub fn apply(setup: &mut Setup, args: &RunArgs) -> Result<(), Failure> {
    let find = |word: &String| setup.find(word).map_err(Failure::Usage);
    let only: Vec<usize> = args.only.iter().map(find).collect::<Result<_, _>>()?;
    let skip: Vec<usize> = args.skip.iter().map(find).collect::<Result<_, _>>()?;
    let from = args.from.as_ref().map(find).transpose()?;
    let until = args.until.as_ref().map(find).transpose()?;
    let filtered = !only.is_empty() || !skip.is_empty() || from.is_some() || until.is_some();
    if !filtered {
        return Ok(());
    }
    let place_of = |task: usize| setup.plan.places.iter().position(|place| place.task == task);
    let (first, last) = (from.and_then(place_of).unwrap_or(0), until.and_then(place_of).unwrap_or(usize::MAX));
    let mut keep = vec![false; setup.tasks.len()];
    for (at, place) in setup.plan.places.iter().enumerate() {
        let task = place.task;
        keep[task] = (first..=last).contains(&at) && (only.is_empty() || only.contains(&task)) && !skip.contains(&task);
    }
    for (task, needed) in setup.plan.retain(|task| keep[task]) {
        let (task, needed) = (&setup.tasks[task].name, &setup.tasks[needed].name);
        log::warn!("{task} depends on {needed}, which is left out here and counts as done");
    }
    if setup.plan.places.is_empty() {
        return Err(Failure::NothingLeft("--only, --skip, --from and --until leave no task".to_owned()));
    }
    Ok(())
}
