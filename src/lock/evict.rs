//! What a dead holder left running on this machine: finds it and ends it. Touches processes.
//!
//! A process belongs to the holder's record when it is of a recorded group (whose leader still is the recorded process,
//! or which carries the run id), or carries the marks of a recorded try, or, where the record says so, the run id alone.
//! Whose environment may not be read and whose group's leader is gone is nobody we know.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::owner::{Owner, Place};
use crate::clock::BootTime;
use crate::process::state::UNKILLABLE_AFTER;
use crate::process::tree::{Stat, namespaces};

/// This place: where our process ids mean something.
pub fn here() -> Place {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    Place { host, boot_id, namespaces: namespaces() }
}

/// The record of this process as an owner. `whole_run`: see [`Owner::whole_run`].
pub fn ourselves(whole_run: bool) -> Owner {
    let pid = rustix::process::getpid().as_raw_pid();
    Owner { place: here(), pid, start_time: start_time(pid), whole_run, ..Owner::default() }
}

/// When a process started, in the unit of its record; 0 when it is gone.
pub fn start_time(pid: i32) -> u64 {
    Pid::from_raw(pid).and_then(Stat::of).map_or(0, |stat| stat.start_time)
}

/// Whether the process that holds a lock still lives. Only a holder of this place can be asked; what cannot be told
/// counts as alive.
pub fn is_alive(owner: &Owner) -> bool {
    let Some(pid) = Pid::from_raw(owner.pid) else { return true };
    if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    // /proc may hide processes of others (hidepid): then all we know is that there is one.
    Stat::of(pid).is_none_or(|stat| stat.alive() && stat.start_time == owner.start_time)
}

/// A descriptor that becomes readable when the holder ends; `None` when it has, or where the kernel has no pidfds.
pub fn watch(owner: &Owner) -> Option<OwnedFd> {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(owner.pid)?, PidfdFlags::empty()).ok()?;
    is_alive(owner).then_some(pidfd)
}

/// The variable by which the guard of a lock says whose it is: the process and its start time.
pub const GUARD_OF: &str = "LOCK_GUARD_OF";

/// What the variable says of the guards of a holder.
pub fn guard_of(pid: i32, start_time: u64) -> String {
    format!("{GUARD_OF}={pid}:{start_time}")
}

/// How often those are looked at who are being ended, at the least.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How often we look while there is somebody whose variables cannot be read yet.
const LOOKS: u32 = 3;

/// How far the ending is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing of it is left.
    Gone,
    /// Look again soon.
    Going,
    /// These survived KILL, or may not be ended by us.
    Stuck(Vec<i32>),
}

/// Ends what ran under a dead holder: TERM, its grace, KILL.
#[derive(Debug)]
pub struct Evict {
    owner: Owner,
    kill_at: BootTime,
    told: HashSet<(Pid, u64)>,
    /// The guard of the dead holder is waited for. It was told of each task before that began; the record may be older.
    after_guard: bool,
    looks: u32,
}

impl Evict {
    /// Begins at `now`; KILL follows TERM after `kill_after`.
    pub fn new(owner: Owner, kill_after: Duration, now: BootTime) -> Self {
        Self { owner, kill_at: now + kill_after, told: HashSet::new(), after_guard: false, looks: 0 }
    }

    /// The same for whoever comes next: not before the holder's guards have done what they are there for.
    pub fn after_guard(owner: Owner, kill_after: Duration, now: BootTime) -> Self {
        Self { after_guard: true, ..Self::new(owner, kill_after, now) }
    }

    /// Whose processes are ended.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// How soon to look again: what is killed is gone within a millisecond, what has its grace takes its time.
    pub fn look_again(&self) -> Duration {
        Duration::from_millis(1 << self.looks.saturating_sub(1).min(4)).min(LOOK_AGAIN)
    }

    /// Looks, and ends who is found.
    pub fn advance(&mut self, now: BootTime) -> Progress {
        self.looks = self.looks.saturating_add(1);
        let found = Found::by(&self.owner, self.after_guard);
        if found.members.is_empty() {
            if found.unread && self.looks < LOOKS {
                return Progress::Going;
            }
            // A guard that stands still keeps nobody for ever.
            let waits = found.guard && now < self.kill_at + UNKILLABLE_AFTER;
            return if waits { Progress::Going } else { Progress::Gone };
        }
        if now >= self.kill_at + UNKILLABLE_AFTER {
            return Progress::Stuck(found.members.iter().map(|(pid, _)| pid.as_raw_pid()).collect());
        }
        for (pid, start_time) in found.members {
            if now >= self.kill_at {
                send(pid, start_time, &[Signal::KILL]);
            } else if self.told.insert((pid, start_time)) {
                send(pid, start_time, &[Signal::TERM, Signal::CONT]);
            }
        }
        Progress::Going
    }
}

/// Sends to this very process: between the look and the pidfd the number may have passed to another.
fn send(pid: Pid, start_time: u64, signals: &[Signal]) {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    if Stat::of(pid).is_none_or(|stat| stat.start_time != start_time) {
        return;
    }
    for signal in signals {
        let _ = match &pidfd {
            Some(pidfd) => rustix::process::pidfd_send_signal(pidfd, *signal),
            None => rustix::process::kill_process(pid, *signal),
        };
    }
}

/// What of a holder still lives.
#[derive(Default)]
struct Found {
    /// What ran under its lock: each with its start time.
    members: Vec<(Pid, u64)>,
    /// A guard of it.
    guard: bool,
    /// Somebody's variables are empty: between the old program and the new one execve(2) has none to show. It may be one of
    /// those, or a thread of the kernel.
    unread: bool,
}

impl Found {
    /// Looks once at all other processes that live. None of what we look for is older than the holder: of the rest, which on a
    /// busy machine are nearly all, no environment is read.
    fn by(owner: &Owner, with_guard: bool) -> Self {
        let mut found = Self::default();
        let has_members = !owner.groups.is_empty() || owner.whole_run;
        if !has_members && !with_guard {
            return found;
        }
        let (ourselves, guard) = (rustix::process::getpid(), guard_of(owner.pid, owner.start_time));
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
        for pid in pids.filter(|pid| *pid != ourselves) {
            let Some(stat) = Stat::of(pid).filter(|stat| stat.alive() && stat.start_time >= owner.start_time) else { continue };
            let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).ok();
            if has_members && belongs(owner, stat, environment.as_deref()) {
                found.members.push((pid, stat.start_time));
            }
            found.unread |= environment.as_ref().is_some_and(Vec::is_empty);
            found.guard |= with_guard && environment.is_some_and(|text| is_variable(&text, &guard));
        }
        found
    }
}

fn is_variable(environment: &[u8], wanted: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// Whether a process is one that ran under the owner's lock; its environment may be hidden from us.
fn belongs(owner: &Owner, stat: Stat, environment: Option<&[u8]>) -> bool {
    let group = owner.groups.iter().find(|group| group.pid == stat.group);
    let leader = group.and_then(|group| Pid::from_raw(group.pid)).and_then(Stat::of);
    if let (Some(group), Some(leader)) = (group, leader)
        && leader.start_time == group.start_time
    {
        return true;
    }
    environment.is_some_and(|environment| carries(owner, environment, group.is_some()))
}

/// Whether a process that was started with this environment is the owner's.
fn carries(owner: &Owner, environment: &[u8], in_group: bool) -> bool {
    let has = |name: &[u8], value: &[u8]| environment.split(|byte| *byte == 0).any(|variable| variable.strip_prefix(name) == Some(value));
    if owner.run_id.is_empty() || !has(b"RUNNER_RUN_ID=", owner.run_id.as_bytes()) {
        return false;
    }
    let hook = environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(b"RUNNER_HOOK="));
    let mut tries = owner.groups.iter();
    owner.whole_run
        || in_group
        || !hook
            && tries.any(|group| has(b"RUNNER_TASK=", group.task.as_bytes()) && has(b"RUNNER_TRY=", group.try_num.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::owner::TaskGroup;

    fn owner() -> Owner {
        let group = TaskGroup { pid: 9, start_time: 1, task: "a.sh".into(), try_num: 2 };
        Owner { run_id: "r-1".into(), groups: vec![group], ..Owner::default() }
    }

    #[test]
    fn what_a_good_task_left_running_is_not_the_holders() {
        let carries = |environment: &str, in_group| carries(&owner(), environment.replace(' ', "\0").as_bytes(), in_group);
        assert!(carries("RUNNER_RUN_ID=r-1 RUNNER_TASK=a.sh RUNNER_TRY=2", false));
        assert!(!carries("RUNNER_RUN_ID=r-1 RUNNER_TASK=a.sh RUNNER_TRY=1", false));
        assert!(!carries("RUNNER_RUN_ID=r-1 RUNNER_TASK=a.sh RUNNER_TRY=2 RUNNER_HOOK=task", false));
        assert!(carries("RUNNER_RUN_ID=r-1", true) && !carries("RUNNER_RUN_ID=r-11", true) && !carries("", true));
    }

    #[test]
    fn whoever_comes_next_waits_for_the_guard_of_the_dead_and_not_for_ever() {
        let ours = rustix::process::getpid().as_raw_pid();
        let dead = Owner { pid: ours, start_time: 1, ..Owner::default() };
        assert!(is_variable(b"A=b\0LOCK_GUARD_OF=7:9\0", &guard_of(7, 9)) && !is_variable(b"LOCK_GUARD_OF=7:91\0", &guard_of(7, 9)));
        let now = BootTime::now();
        let looked = |mut evict: Evict, now| (0..LOOKS).map(|_| evict.advance(now)).last();
        assert_eq!(looked(Evict::after_guard(dead.clone(), Duration::ZERO, now), now), Some(Progress::Gone), "there is none");
        let mut command = std::process::Command::new("sleep");
        #[expect(clippy::disallowed_methods, reason = "a test that plays a guard")]
        let mut guard = command.arg("1000").env(GUARD_OF, format!("{ours}:1")).spawn().unwrap();
        // A parent goes on a moment before the variables of its child can be read.
        while fs::read(format!("/proc/{}/environ", guard.id())).unwrap().is_empty() {}
        let evict = || Evict::after_guard(dead.clone(), Duration::ZERO, now);
        let seen =
            [looked(evict(), now), looked(Evict::new(dead.clone(), Duration::ZERO, now), now), looked(evict(), now + UNKILLABLE_AFTER)];
        guard.kill().unwrap();
        guard.wait().unwrap();
        assert_eq!(seen, [Some(Progress::Going), Some(Progress::Gone), Some(Progress::Gone)]);
        assert_eq!(looked(evict(), now), Some(Progress::Gone));
    }

    #[test]
    fn a_whole_run_is_known_by_its_id() {
        let owner = Owner { whole_run: true, ..owner() };
        assert!(carries(&owner, b"A=b\0RUNNER_RUN_ID=r-1\0", false));
        assert!(!carries(&Owner { run_id: String::new(), ..owner }, b"RUNNER_RUN_ID=\0", true));
    }

    #[test]
    fn we_live_and_a_number_that_passed_on_does_not() {
        let pid = rustix::process::getpid().as_raw_pid();
        let ours = Owner { pid, start_time: start_time(pid), place: here(), ..Owner::default() };
        assert!(is_alive(&ours) && watch(&ours).is_some() && ours.place.is_same(&here()));
        assert!(!is_alive(&Owner { start_time: 1, ..ours }));
    }
}
