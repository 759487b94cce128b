//! Who our descendants are, and which try each of them belongs to; read from /proc.
//!
//! We are the subreaper of everything below us (prctl(2), PR_SET_CHILD_SUBREAPER): a process whose parent has ended
//! becomes our child, whatever it did to get away. It belongs to a try when it descends from its leader, or is of its
//! group or session, or carries its RUNNER_RUN_ID, RUNNER_TASK and RUNNER_TRY in the environment. Where a try was
//! alone from its beginning, everything else that is there now belongs to it as well. What cannot be told apart is
//! counted, never killed.

use std::collections::{HashMap, HashSet};
use std::fs;

use rustix::process::Pid;

use super::unix;
use crate::names::{RunId, TaskName};

/// What marks the processes of one try: three variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// RUNNER_RUN_ID.
    pub run: RunId,
    /// RUNNER_TASK.
    pub task: TaskName,
    /// RUNNER_TRY.
    pub try_num: u32,
}

impl Mark {
    /// Whose a process is that was started with `environment` (as /proc/PID/environ has it).
    /// A hook carries the same variables and one more, which says that it is none of the task's.
    fn owner(&self, environment: &[u8]) -> Owner {
        let variables = || environment.split(|byte| *byte == 0);
        let has = |name: &[u8], value: &[u8]| variables().any(|variable| variable.strip_prefix(name) == Some(value));
        let hook = variables().any(|variable| variable.starts_with(b"RUNNER_HOOK="));
        let run = has(b"RUNNER_RUN_ID=", self.run.as_str().as_bytes());
        let this_try =
            has(b"RUNNER_TASK=", self.task.file().as_encoded_bytes()) && has(b"RUNNER_TRY=", self.try_num.to_string().as_bytes());
        match (run, this_try && !hook) {
            (true, true) => Owner::ThisTry,
            (true, false) => Owner::Another,
            (false, _) => Owner::Unknown,
        }
    }
}

/// Whose a process is, by its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It carries the mark of the try.
    ThisTry,
    /// It carries the mark of another try or of a hook of this run.
    Another,
    /// It carries no mark that we know.
    Unknown,
}

/// What /proc/PID/stat says of a process (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The state letter; `Z` and `X` are dead.
    pub state: u8,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// When it started, in clock ticks since boot; with the pid it names a process for ever.
    pub start_time: u64,
}

impl Stat {
    /// Reads the line of a process. The name in it may hold blanks and brackets: the last one closes it.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line[line.rfind(')')? + 1..].split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let mut number = || fields.next()?.parse().ok();
        let (parent, group, session) = (number()?, number()?, number()?);
        // The fields after the session are 7 and on in proc(5); the start time is field 22.
        Some(Self { state, parent, group, session, start_time: fields.nth(15)?.parse().ok()? })
    }

    /// The line of this process; `None` when there is no such process.
    pub fn of(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
    }

    /// Whether it can still do anything. A zombie cannot.
    pub fn alive(self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// The PID and the time namespace we are in: where our number and our start time mean something. Empty where /proc is
/// another PID namespace's and tells nothing of ours.
pub fn namespaces() -> String {
    let own = rustix::process::getpid().as_raw_pid().to_string();
    let ours = fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str());
    let namespace = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).map(|link| link.to_string_lossy().into_owned());
    match namespace("pid") {
        Ok(pid) if ours => format!("{pid} {}", namespace("time").unwrap_or_default()),
        Ok(_) | Err(_) => String::new(),
    }
}

/// The try whose processes are looked for.
#[derive(Debug)]
pub struct Target<'a> {
    /// The process that was started for it.
    pub leader: Pid,
    /// What its processes carry; without one only its group is looked for.
    pub mark: Option<&'a Mark>,
    /// Nothing else was there when it began, and no other try or hook has run since.
    pub alone: bool,
    /// Those who are our children are sent KILL as soon as they are seen.
    pub kill: bool,
    /// Those who were found before and are watched: whose they are is known, and that they end is no news.
    pub known: &'a HashSet<Pid>,
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Living processes of the try, without its leader, each with its start time.
    pub members: Vec<(Pid, u64)>,
    /// Living descendants of ours of which nobody can tell whose they are, with their start times.
    pub strangers: Vec<(Pid, u64)>,
    /// Somebody ended while we looked, and may have handed a child on from where we had not looked yet to where we had:
    /// finding nobody proves nothing then.
    pub in_motion: bool,
    /// One of them was not known: whoever is replaced so quickly has to be looked for again at once.
    pub elusive: bool,
}

/// Looks for the living processes of a try. `others` are those we have started for something else and not reaped, and those
/// who were there before us; what descends from them is theirs.
pub fn look(target: &Target<'_>, others: &[Pid]) -> Found {
    let mut found = Found::default();
    let tree = Children::read();
    let direct: HashSet<Pid> = tree.of(rustix::process::getpid()).into_iter().collect();
    let mut pending: Vec<(Pid, bool)> = direct.iter().map(|pid| (*pid, false)).collect();
    let mut sessions: Vec<i32> = vec![target.leader.as_raw_pid()];
    // Adopted processes that carry nothing, with their sessions: decided when the whole tree is known.
    let mut unknown: Vec<(Pid, Stat)> = Vec::new();
    while let Some((pid, ours)) = pending.pop() {
        if others.contains(&pid) && pid != target.leader {
            continue;
        }
        let is_leader = pid == target.leader;
        let is_known = target.known.contains(&pid);
        let Some(stat) = Stat::of(pid) else {
            found.in_motion = true;
            found.elusive |= !is_known;
            continue;
        };
        if !stat.alive() && !is_leader && direct.contains(&pid) {
            // A dead child of ours was alive a moment ago: all that were dead before are buried. It is buried here, since
            // `reap_strays` comes no further than a dead leader. Others may stay unburied.
            unix::reap(pid);
            found.in_motion = true;
            found.elusive |= !is_known;
        }
        let in_group = is_leader || stat.group == target.leader.as_raw_pid();
        let owner = match target.mark {
            _ if in_group => Owner::ThisTry,
            None => Owner::Another,
            Some(_) if ours || is_known || target.alone || sessions.contains(&stat.session) => Owner::ThisTry,
            Some(mark) => owner_of(pid, mark),
        };
        let mine = owner == Owner::ThisTry;
        if target.kill && mine && !is_leader && !is_known && stat.alive() && direct.contains(&pid) {
            // Whoever forks and ends in turn is another process by the time the whole tree is known. A child that only
            // we reap cannot become somebody else, so it needs no pidfd; what it leaves comes to us: look again.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            (found.in_motion, found.elusive) = (true, true);
        }
        pending.extend(tree.of(pid).into_iter().map(|child| (child, mine)));
        if !stat.alive() || is_leader {
            continue;
        }
        if mine {
            if stat.session == pid.as_raw_pid() {
                sessions.push(stat.session);
            }
            found.members.push((pid, stat.start_time));
        } else if owner == Owner::Unknown {
            unknown.push((pid, stat));
        }
    }
    for (pid, stat) in unknown {
        if sessions.contains(&stat.session) {
            found.members.push((pid, stat.start_time));
        } else {
            found.strangers.push((pid, stat.start_time));
        }
    }
    found
}

fn owner_of(pid: Pid, mark: &Mark) -> Owner {
    fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).map_or(Owner::Unknown, |environment| mark.owner(&environment))
}

/// The children we have, by whichever of our threads.
pub fn children() -> Vec<Pid> {
    Children::read().of(rustix::process::getpid())
}

/// Whether all who are known to be children of ours are expected; false where the kernel does not tell (CONFIG_PROC_CHILDREN). Asked at
/// the end of each of many runs, so it reads one file: whoever is adopted comes to the first thread of ours (find_new_reaper in
/// the kernel), and what other threads have started is a leader.
pub fn has_only(expected: impl Fn(Pid) -> bool) -> bool {
    let own = rustix::process::getpid().as_raw_pid();
    let children = fs::read_to_string(format!("/proc/self/task/{own}/children"));
    children.is_ok_and(|list| pids(&list).all(expected))
}

/// The process ids in a list of children.
fn pids(list: &str) -> impl Iterator<Item = Pid> {
    list.split_ascii_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?))
}

/// How the children of a process are found.
enum Children {
    /// /proc/PID/task/TID/children, where the kernel has it (CONFIG_PROC_CHILDREN).
    Files,
    /// Elsewhere from the parents of all processes.
    Scan(HashMap<i32, Vec<Pid>>),
}

impl Children {
    fn read() -> Self {
        // The files are exact for children that only we reap, as long as we are one thread: children of a thread that
        // ends move to another one's file, and a look can miss them on the way.
        let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        if threads == 1 && fs::exists("/proc/thread-self/children").unwrap_or(false) {
            return Self::Files;
        }
        let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, Stat::of(pid)?))) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        Self::Scan(children)
    }

    fn of(&self, pid: Pid) -> Vec<Pid> {
        match self {
            Self::Scan(children) => children.get(&pid.as_raw_pid()).cloned().unwrap_or_default(),
            Self::Files => {
                let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).into_iter().flatten().flatten();
                let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
                lists.flat_map(|list| pids(&list).collect::<Vec<_>>()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let stat = Stat::parse("42 (a) Z (b) S 7 42 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9").unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: 7, group: 42, session: 40, start_time: 777 });
        assert!(stat.alive() && Stat::parse("junk").is_none());
    }

    #[test]
    fn a_mark_is_whole_variables() {
        let mark = Mark { run: RunId::new("", 0, 1), task: TaskName::parse("10-a.sh"), try_num: 2 };
        let owner = |environment: &[u8]| mark.owner(environment);
        assert_eq!(owner(b"RUNNER_TRY=2\0A=b\0RUNNER_TASK=10-a.sh\0RUNNER_RUN_ID=00000000-0-0000000000000001\0"), Owner::ThisTry);
        assert_eq!(owner(b"RUNNER_TRY=22\0RUNNER_TASK=10-a.sh\0RUNNER_RUN_ID=00000000-0-0000000000000001\0"), Owner::Another);
        assert_eq!(
            owner(b"RUNNER_TRY=2\0RUNNER_TASK=10-a.sh\0RUNNER_RUN_ID=00000000-0-0000000000000001\0RUNNER_HOOK=task\0"),
            Owner::Another
        );
        assert_eq!(owner(b"RUNNER_TRY=2\0RUNNER_TASK=10-a.sh\0XRUNNER_RUN_ID=00000000-0-0000000000000001\0"), Owner::Unknown);
    }
}
