//! Supervision: a process, the group it leads, and whatever it starts, from the start to the last of them.
//! Touches processes and nothing else; `state` decides, `tree` looks, `unix` speaks to the kernel.

pub mod leftovers;
pub mod signal;
pub mod state;
pub mod tree;
pub mod unix;
pub mod user;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::clock::Moment;
use crate::config::keys::Sweep;
use crate::outcome::{LimitKind, ProcessEnd};
use state::{Action, Cause, Ending, Input, Phase};
use tree::{Found, Mark, Target};
use unix::{Children, Process, Spec, WaitMethod};

/// How often members that have no pidfd (before Linux 5.3) are looked at while they are being ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How many looks follow one another without a pause while there is always somebody new to kill. A bound, so that a
/// task which forks for ever cannot keep us from the others and from signals.
const MAX_PASSES: usize = 50;

/// Everything we have started and not reaped, and how we hear of it. One for the whole program.
#[derive(Debug)]
pub struct Family {
    method: WaitMethod,
    leaders: RefCell<Vec<Pid>>,
    /// Children we had when we began: somebody started them and then became us (execve(2)), as shells and entry points of
    /// containers do. They and theirs are nobody's here.
    inherited: RefCell<Vec<Pid>>,
    /// Whoever runs now did not begin, or has not stayed, alone.
    crowded: Cell<bool>,
    /// The last look found no child at all, and none was started since.
    known_empty: Cell<bool>,
    started: Cell<u64>,
    /// Processes that were reported as left behind, each by pid and start time: they are told of once.
    left_behind: RefCell<HashSet<(Pid, u64)>>,
}

impl Family {
    /// Makes us the parent of every orphan below us.
    pub fn new(method: WaitMethod) -> Self {
        // Linux has had this since 3.4; without it those who leave their parent are init's, and only the group is ended.
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            log::debug!("not a subreaper, processes that leave their task are not found: {error}");
        }
        if !Path::new("/proc/self").exists() {
            log::warn!("there is no /proc: what a task leaves behind is not found, and lives on (mount -t proc proc /proc)");
        }
        let family = Self {
            method,
            leaders: RefCell::default(),
            inherited: RefCell::default(),
            crowded: Cell::new(false),
            known_empty: Cell::new(false),
            started: Cell::new(0),
            left_behind: RefCell::default(),
        };
        if family.reap_strays() != Children::None {
            *family.inherited.borrow_mut() = tree::children();
        }
        family
    }

    /// Many may run at once: they are not to fail for want of descriptors.
    pub fn expect_many(&self) {
        unix::raise_descriptor_limit();
    }

    /// Reaps adopted processes that have ended, each by its pid; ours are left to who waits for them.
    pub fn reap_strays(&self) -> Children {
        loop {
            match unix::look_at_children() {
                Children::Ended(pid) if !self.leaders.borrow().contains(&pid) => {
                    self.inherited.borrow_mut().retain(|inherited| *inherited != pid);
                    unix::reap(pid);
                }
                children @ (Children::None | Children::Living | Children::Ended(_)) => {
                    self.known_empty.set(children == Children::None);
                    return children;
                }
            }
        }
    }

    /// A new process of ours. It is alone when nothing else is there, and stays so while nothing else begins.
    fn add(&self, pid: Pid, alone: bool) {
        self.leaders.borrow_mut().push(pid);
        self.crowded.set(!alone);
        self.known_empty.set(false);
        self.started.set(self.started.get() + 1);
    }

    fn remove(&self, pid: Pid) {
        self.leaders.borrow_mut().retain(|leader| *leader != pid);
    }

    /// Notes who is left behind; tells those who were not known before.
    fn take_note_of(&self, found: Found) -> Vec<Pid> {
        let mut known = self.left_behind.borrow_mut();
        let all = found.members.into_iter().chain(found.strangers);
        all.filter(|process| known.insert(*process)).map(|(pid, _)| pid).collect()
    }

    fn has_only_expected_children(&self) -> bool {
        let (leaders, inherited) = (self.leaders.borrow(), self.inherited.borrow());
        tree::has_only(|pid| leaders.contains(&pid) || inherited.contains(&pid))
    }

    /// How many processes were started so far.
    pub fn started(&self) -> u64 {
        self.started.get()
    }

    /// Whether nothing of ours runs.
    pub fn is_idle(&self) -> bool {
        self.leaders.borrow().is_empty()
    }

    fn is_empty(&self) -> bool {
        self.is_idle() && (self.known_empty.get() || self.reap_strays() == Children::None)
    }
}

/// A panic must not leave tasks behind that nobody watches: their groups are ended, and so is the program then.
impl Drop for Family {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for signal in [Signal::TERM, Signal::CONT, Signal::KILL] {
                for leader in self.leaders.borrow().iter() {
                    let _ = rustix::process::kill_process_group(*leader, signal);
                }
                if signal == Signal::CONT {
                    // TERM has this long to work before KILL.
                    let _ = rustix::event::poll(&mut [], Some(&rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 }));
                }
            }
        }
    }
}

/// A process, and all that belongs to it, from its start to its end.
#[derive(Debug)]
pub struct Supervised {
    leader: Process,
    end: Option<ProcessEnd>,
    ending: Ending,
    mark: Option<Mark>,
    members: Vec<Member>,
    /// Ends at which time alone makes us look again, where the kernel cannot tell us.
    look_at: Option<Moment>,
    left_behind: Vec<Pid>,
}

/// A process beside the leader that is being ended. The pidfd makes sure that it is still the same one.
#[derive(Debug)]
struct Member {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

/// How it all ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// What the kernel said of the leader; `None` when it survived KILL.
    pub end: Option<ProcessEnd>,
    /// Why we ended it; `None` when it ended by itself.
    pub cause: Option<Cause>,
    /// Processes of it that live on.
    pub left_behind: Vec<Pid>,
    /// Something of it survived KILL.
    pub unkillable: bool,
}

impl Supervised {
    /// Starts a process. `mark` is what its descendants carry; without one only its process group counts as its own.
    ///
    /// # Errors
    /// The system's word for why it does not start; [`explain_start`] says it for people.
    pub fn start(spec: &Spec<'_>, family: &Family, mark: Option<Mark>, kill_after: Duration, sweep: Sweep) -> io::Result<Self> {
        let alone = family.is_empty();
        let leader = Process::spawn(spec, family.method)?;
        family.add(leader.pid(), alone);
        Ok(Self {
            leader,
            end: None,
            ending: Ending::new(kill_after, sweep),
            mark,
            members: Vec::new(),
            look_at: None,
            left_behind: Vec::new(),
        })
    }

    /// The process id of the leader.
    pub fn pid(&self) -> Pid {
        self.leader.pid()
    }

    /// Whether nobody has asked for its end yet.
    pub fn is_running(&self) -> bool {
        self.ending.phase() == Phase::Running
    }

    /// The descriptors that become readable when something has ended.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let leader = self.end.is_none().then(|| self.leader.fd());
        leader.into_iter().chain(self.members.iter().filter_map(|member| member.pidfd.as_ref()).map(AsFd::as_fd))
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<Moment> {
        self.ending.wake_at().into_iter().chain(self.look_at).min()
    }

    /// A limit passed: TERM, grace, KILL.
    pub fn limit(&mut self, limit: LimitKind, family: &Family, now: Moment) {
        self.end_for(Input::Limit(limit), family, now);
    }

    /// It is to stop: TERM, grace, KILL.
    pub fn stop(&mut self, family: &Family, now: Moment) {
        self.end_for(Input::Stop, family, now);
    }

    /// It is to be gone: KILL.
    pub fn kill_now(&mut self, family: &Family, now: Moment) {
        self.end_for(Input::KillNow, family, now);
    }

    fn end_for(&mut self, input: Input, family: &Family, now: Moment) {
        // It may have ended in this very moment, and then that is how it ended.
        if self.end.is_none() && self.leader.try_reap().is_some() {
            return;
        }
        self.perform(input, family, now);
    }

    /// Looks what has ended and what time it is. `failed` judges an end for the sweep. Tells when all is over.
    pub fn advance(&mut self, family: &Family, now: Moment, failed: impl Fn(ProcessEnd) -> bool) -> Option<Gone> {
        if self.end.is_none()
            && let Some(end) = self.leader.try_reap()
        {
            self.end = Some(end);
            family.remove(self.leader.pid());
            self.perform(Input::LeaderGone { failed: failed(end) }, family, now);
        }
        let before = self.members.len();
        self.members.retain(|member| !member.has_ended());
        let look_due = self.look_at.is_some_and(|at| now >= at);
        if (before > 0 && self.members.is_empty()) || look_due {
            self.look(family, now);
        }
        self.perform(Input::Woke, family, now);
        match self.ending.phase() {
            Phase::Gone { unkillable } => Some(self.gone(unkillable, family)),
            Phase::Running | Phase::Terminating { .. } | Phase::Killing { .. } => None,
        }
    }

    fn gone(&mut self, unkillable: bool, family: &Family) -> Gone {
        // A leader that survived KILL stays in the family: it is still ours to tell from a stranger, and whoever waits
        // for it (wait-timeout's thread) must be the one that reaps it.
        // The usual case costs one system call: no children at all, so nothing can be left.
        // Whoever was left behind has come to us, or has a parent who did: where we have no child but leaders, as many of
        // them as there may be, nobody has to be looked for in the whole of /proc.
        if self.mark.is_some() && family.reap_strays() != Children::None && !family.has_only_expected_children() {
            self.left_behind = family.take_note_of(self.find(family, Whom::All));
        }
        Gone { end: self.end, cause: self.ending.cause(), left_behind: std::mem::take(&mut self.left_behind), unkillable }
    }

    fn perform(&mut self, input: Input, family: &Family, now: Moment) {
        match self.ending.step(input, now) {
            None => {}
            Some(Action::Look) => self.look(family, now),
            Some(Action::Terminate) => {
                self.leader.signal_group(Signal::TERM);
                self.leader.signal_group(Signal::CONT);
                if self.ending.sweeps() {
                    for (pid, start_time) in self.find(family, Whom::All).members {
                        if let Some(outsider) = Member::catch(pid, start_time, |stat| stat.group != self.leader.pid().as_raw_pid()) {
                            outsider.send(Signal::TERM);
                            outsider.send(Signal::CONT);
                        }
                    }
                }
            }
            Some(Action::Kill) => {
                self.leader.signal_group(Signal::KILL);
                self.look(family, now);
            }
        }
    }

    /// Ends what is found beside the leader as the phase says, and watches it; or finds nothing left.
    fn look(&mut self, family: &Family, now: Moment) {
        self.look_at = None;
        let whom = if self.ending.sweeps() { Whom::All } else { Whom::Group };
        let killing = matches!(self.ending.phase(), Phase::Killing { .. });
        let mut settled = false;
        for _ in 0..MAX_PASSES {
            let found = self.find(family, whom);
            if found.members.is_empty() && !found.in_motion {
                return self.perform(Input::NoneLeft, family, now);
            }
            // Whoever was ended forks no more, so passes without a pause outrun whoever forks while it is being found. That
            // those who are watched end is no reason for another: a thousand of them would be a thousand walks.
            settled = self.take_hold(&found, killing) == 0 && !found.elusive;
            if settled {
                break;
            }
        }
        // Those who are watched tell when they end, and the last of them lets us look once more.
        if !settled || self.members.is_empty() || self.members.iter().any(|member| member.pidfd.is_none()) {
            self.look_at = Some(now + LOOK_AGAIN);
        }
    }

    /// Ends each of the found as the phase says and watches it. Tells how many were not known before.
    fn take_hold(&mut self, found: &Found, killing: bool) -> usize {
        let before = self.members.len();
        for (pid, start_time) in &found.members {
            if let Some(known) = self.members.iter().find(|member| member.pid == *pid) {
                if killing {
                    known.send(Signal::KILL);
                }
                continue;
            }
            let Some(member) = Member::catch(*pid, *start_time, |_| true) else { continue };
            if killing {
                member.send(Signal::KILL);
            } else if self.end.is_some() {
                member.send(Signal::TERM);
                member.send(Signal::CONT);
            }
            self.members.push(member);
        }
        self.members.len() - before
    }

    fn find(&self, family: &Family, whom: Whom) -> Found {
        // The dead first: a task may have orphaned thousands, and each would be looked at.
        family.reap_strays();
        let leaders = family.leaders.borrow();
        let alone = !family.crowded.get() && leaders.iter().all(|leader| *leader == self.leader.pid());
        let mark = self.mark.as_ref().filter(|_| whom == Whom::All);
        let kill = matches!(self.ending.phase(), Phase::Killing { .. });
        let known = self.members.iter().map(|member| member.pid).collect();
        let others: Vec<Pid> = leaders.iter().chain(family.inherited.borrow().iter()).copied().collect();
        tree::look(&Target { leader: self.leader.pid(), mark, alone: alone && mark.is_some(), kill, known: &known }, &others)
    }
}

/// Who is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Everybody who belongs to it.
    All,
    /// Only those of its process group.
    Group,
}

impl Member {
    /// Takes hold of the process that a look has seen, if it is still there and `wanted`. Between the look and the
    /// pidfd the number may have passed to another process: the start time tells.
    fn catch(pid: Pid, start_time: u64, wanted: impl Fn(tree::Stat) -> bool) -> Option<Self> {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let same = tree::Stat::of(pid).is_some_and(|stat| stat.start_time == start_time && wanted(stat));
        same.then_some(Self { pid, pidfd })
    }

    fn send(&self, signal: Signal) {
        let _ = match &self.pidfd {
            Some(pidfd) => rustix::process::pidfd_send_signal(pidfd, signal),
            None => rustix::process::kill_process(self.pid, signal),
        };
    }

    fn has_ended(&self) -> bool {
        let ended = match &self.pidfd {
            Some(pidfd) => is_readable(pidfd.as_fd()),
            None => tree::Stat::of(self.pid).is_none_or(|stat| !stat.alive()),
        };
        if ended {
            // Ours to bury if it was adopted by then; its parent's otherwise, and then this does nothing.
            unix::reap(self.pid);
        }
        ended
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Makes /dev/null our standard input, and so that of everything we start. Where there is none (an initramfs before its /dev), or a
/// file that somebody's `>/dev/null` has made, an empty pipe nobody writes to stands in: whoever reads finds the end there, too.
///
/// # Errors
/// The kernel gives no descriptor.
pub fn close_stdin() -> io::Result<()> {
    const NULL: &str = "/dev/null";
    // Looked at before it is opened: who opens a pipe waits for its other end.
    let null = std::fs::metadata(NULL)
        .and_then(|null| if null.file_type().is_char_device() { File::open(NULL) } else { Err(io::Error::other("it is no device")) });
    match null {
        Ok(null) => rustix::stdio::dup2_stdin(null)?,
        Err(error) => {
            log::warn!(
                "/dev/null cannot be used: {error}; what is started reads from an empty pipe instead, and has no /dev/null to write to \
                 (mount -t devtmpfs devtmpfs /dev, or mknod -m 666 /dev/null c 1 3)"
            );
            let (reader, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            rustix::stdio::dup2_stdin(reader)?;
        }
    }
    Ok(())
}

/// Finds the file that a command's first word means: itself when it holds a `/`, else the first executable of that
/// name in `search` (the value of PATH).
pub fn find_program(word: &OsStr, search: Option<&OsStr>) -> Option<PathBuf> {
    const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    if word.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(word));
    }
    let executable = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(search.unwrap_or(OsStr::new(DEFAULT_PATH))).map(|dir| dir.join(word)).find(executable)
}

/// Why a program did not start, in words that say what to do.
pub fn explain_start(program: &Path, working_dir: Option<&Path>, error: &io::Error) -> String {
    let name = program.display();
    if let Some(dir) = working_dir.filter(|dir| !dir.is_dir()) {
        return format!("its working_dir {} is no directory", dir.display());
    }
    match error.kind() {
        io::ErrorKind::NotFound if !program.exists() => format!("{name} is not there"),
        io::ErrorKind::NotFound => match hashbang(program) {
            Some(interpreter) => {
                format!("the interpreter `{interpreter}` in the first line of {name} is not there{}", dos_end(&interpreter))
            }
            None => format!("{name} needs a program loader that is not there"),
        },
        io::ErrorKind::PermissionDenied => format!("{name} may not be executed: make it executable (chmod +x), or set an interpreter"),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => format!("{name} {}", explain_format(program)),
        _ => format!("{name}: {error}"),
    }
}

/// Why a file would not start, as far as its first bytes tell: what execve(2) would refuse, and a first line whose program cannot
/// be found or is given a carriage return. `None` where nothing speaks against it. Starts nothing.
///
/// `working_dir` is where the task runs, for an interpreter that is no absolute path; `search` its PATH, for `env`.
pub fn explain_content(program: &Path, working_dir: Option<&Path>, search: Option<&OsStr>) -> Option<String> {
    let name = program.display();
    let line = first_line(program)?;
    let Some(script) = line.strip_prefix(b"#!") else {
        // What is no text may be a program of a kind that only the kernel knows (binfmt_misc).
        return (!line.contains(&0)).then(|| format!("{name} {}", explain_format(program)));
    };
    let script = script.trim_ascii_start();
    let end = script.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(script.len());
    let (word, rest) = script.split_at(end);
    if word.is_empty() || (rest.is_empty() && line.len() == FIRST_LINE) {
        return Some(format!("{name} {}", explain_format(program)));
    }
    let shown = String::from_utf8_lossy(word).replace('\r', "\\r");
    let interpreter = working_dir.unwrap_or(Path::new("")).join(OsStr::from_bytes(word));
    let Ok(file) = interpreter.metadata() else {
        return Some(format!("the interpreter `{shown}` in the first line of {name} is not there{}", dos_end(&shown)));
    };
    if !file.is_file() || file.permissions().mode() & 0o111 == 0 {
        return Some(format!("the interpreter `{shown}` in the first line of {name} may not be executed"));
    }
    if rest.ends_with(b"\r") {
        return Some(format!(
            "the first line of {name} ends with a carriage return, which `{shown}` takes for a part of its argument: save it with Unix line ends"
        ));
    }
    let argument = String::from_utf8_lossy(rest).into_owned();
    let wanted = argument.split_ascii_whitespace().find(|word| *word != "-S" && !word.contains('='));
    // Whoever takes other options knows what env does.
    let wanted = wanted.filter(|word| interpreter.file_name() == Some(OsStr::new("env")) && !word.starts_with('-'))?;
    let found = find_program(OsStr::new(wanted), search).is_some_and(|path| working_dir.unwrap_or(Path::new("")).join(path).is_file());
    (!found).then(|| format!("`{wanted}`, which the first line of {name} names, is not found through PATH"))
}

/// Why the kernel does not take the content of a file for a program (execve(2)).
fn explain_format(program: &Path) -> &'static str {
    match first_line(program).as_deref() {
        Some([0x7f, b'E', b'L', b'F', ..]) => "is a program for another kind of machine, or is damaged",
        Some([0xef, 0xbb, 0xbf, b'#', b'!', ..]) => "begins with a byte order mark, which hides its #!: save it without one",
        Some([b'#', b'!', ..]) => "has a first line that names no interpreter, or is too long: write one such as #!/bin/sh",
        Some([]) if program.metadata().is_ok_and(|file| file.len() == 0) => "is empty: begin it with a line such as #!/bin/sh",
        Some([] | [b'\r']) => "begins with an empty line: its very first line has to be one such as #!/bin/sh",
        Some(_) | None => "is no program: begin it with a line such as #!/bin/sh, or set an interpreter",
    }
}

/// So many bytes the kernel looks at (BINPRM_BUF_SIZE).
const FIRST_LINE: usize = 256;

fn first_line(program: &Path) -> Option<Vec<u8>> {
    let mut start = [0; FIRST_LINE];
    let read = File::open(program).and_then(|mut file| file.read(&mut start)).ok()?;
    start[..read].split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec)
}

/// The way out where a first line ends as in DOS: the tail of a message. `shown` is the interpreter as it is shown.
fn dos_end(shown: &str) -> &'static str {
    if shown.ends_with("\\r") { ": the file has DOS line ends (\\r\\n), save it with Unix ones (\\n)" } else { "" }
}

fn hashbang(program: &Path) -> Option<String> {
    let start = first_line(program)?;
    let line = start.strip_prefix(b"#!")?;
    let line = String::from_utf8_lossy(line).into_owned();
    // A carriage return at the end is the usual reason, and cannot be seen: say it.
    line.trim_start().split([' ', '\t']).next().map(|word| word.replace('\r', "\\r"))
}

/// A word of a command or a variable as the kernel takes it; `None` when it holds a NUL byte.
pub fn c_string(text: impl Into<Vec<u8>>) -> Option<CString> {
    CString::new(text).ok()
}

#[cfg(test)]
mod tests;
