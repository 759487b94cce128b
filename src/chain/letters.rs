//! Hands what tasks and those who ask have written to a run on: to the try that it comes from, or to whoever has the answer. Touches
//! the inbox of the run, and no process.

use rustix::net::SocketAddrUnix;

use super::attempt::{Attempt, Kit};
use super::setup::Setup;
use crate::event::{Closing, Doing, Reader};
use crate::names::TaskName;
use crate::notify::inbox::{Inbox, leader_of};
use crate::process::Supervised;

/// How many letters of tasks are read before the rest of the world has its turn.
const LETTERS_AT_ONCE: usize = 100;

/// Hands letters to the tasks whose processes they came from. One that comes from elsewhere is dropped. There is a
/// limit to how many are read at once: a task that never stops talking must not keep us from the others. Those who want
/// the run to stop are handed back.
pub fn deliver(
    inbox: &Inbox,
    attempts: &mut [Attempt],
    kit: &Kit<'_>,
    closing: Option<&Closing>,
    reader: &mut dyn Reader,
) -> Vec<SocketAddrUnix> {
    let mut stops = Vec::new();
    let pid = |attempt: &Attempt| attempt.process().map(Supervised::pid);
    for letter in std::iter::from_fn(|| inbox.next_letter()).take(LETTERS_AT_ONCE) {
        if let Some(asker) = letter.asker {
            if letter.stops {
                stops.push(asker);
            } else {
                let processes = processes(attempts, kit.setup);
                let doing = Doing { processes: &processes, closing };
                // Nothing is an answer, too: nobody has to wait for another.
                inbox.answer(&asker, &reader.describe(kit.run, &doing).unwrap_or_default());
            }
            continue;
        }
        let leaders: Vec<_> = attempts.iter().filter_map(pid).collect();
        let leader = leader_of(letter.sender, &leaders);
        match attempts.iter_mut().find(|attempt| leader.is_some() && pid(attempt) == leader) {
            Some(attempt) => attempt.hear(kit, &letter.messages, reader),
            // The empty letter is BARRIER=1: systemd-notify asks whether the one before has been read.
            None if letter.messages.is_empty() => {}
            None => log::debug!("a message from process {} is of no running task", letter.sender.as_raw_pid()),
        }
    }
    stops
}

/// The tasks whose processes run, each with the one that leads it.
fn processes<'a>(attempts: &[Attempt], setup: &'a Setup) -> Vec<(i32, &'a TaskName)> {
    let of = |attempt: &Attempt| Some((attempt.process()?.pid().as_raw_pid(), &setup.task_at(attempt.place).name));
    attempts.iter().filter_map(of).collect()
}
