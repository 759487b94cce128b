//! The one file that speaks to the kernel where no safe library does: starting a process, hearing of its end,
//! the signals we were born with, and the one we die of. The only `unsafe` code of the program stands here.
//!
//! Two ways to start a process, one contract. The quick one is `posix_spawn(3)` with an environment that was
//! prepared once; std's `Command` builds a map of all variables for every child, which costs several times as much
//! as the start itself. The other is `Command`, where the child must do something between fork and exec (user,
//! umask, niceness), or where the kernel has no pidfds (before Linux 5.3) and wait-timeout hears of the end instead.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit};
use wait_timeout::ChildExt;

use super::user::Identity;
use crate::environment::{Block, OwnVariables};
use crate::outcome::ProcessEnd;

/// What to start, and with what around it. Its process group is its own, its signals are at their defaults.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The words of the command; the first is the file to execute, with a `/` in it.
    pub argv: &'a [CString],
    /// The variables, as `NAME=value`, in parts; no name comes twice.
    pub env: &'a [&'a Block],
    /// Further variables, which only this process has.
    pub own_env: &'a OwnVariables,
    /// Standard input; ours (which is /dev/null) when `None`.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Standard output; ours when `None`.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error; ours when `None`.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Where it starts; our working directory when `None`.
    pub working_dir: Option<&'a CStr>,
    /// Who it runs as; ourselves when `None`.
    pub identity: Option<&'a Identity>,
    /// Its file mode creation mask; ours when `None`.
    pub umask: Option<u32>,
    /// Its niceness; ours when `None`.
    pub nice: Option<i32>,
    /// What `identity` has to be able to read, or the process does not start: an interpreter that cannot might end
    /// with a code that means something.
    pub reads: Option<&'a CStr>,
}

/// How the end of a process is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitMethod {
    /// A pidfd that becomes readable (Linux 5.3).
    Pidfd,
    /// A thread for each child, in wait-timeout; a pipe becomes readable.
    Thread,
}

impl WaitMethod {
    /// The best method this kernel has.
    pub fn detect() -> Self {
        match rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) {
            Ok(_) => Self::Pidfd,
            Err(_) => Self::Thread,
        }
    }
}

/// A child of ours that has not been reaped yet, or whose end is known.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    watch: Watch,
    end: Option<ProcessEnd>,
}

#[derive(Debug)]
enum Watch {
    Pidfd(OwnedFd),
    Thread { ended: OwnedFd, status: mpsc::Receiver<io::Result<ExitStatus>> },
}

impl Process {
    /// Starts a process.
    ///
    /// # Errors
    /// What posix_spawn or execve say: the file is not there, may not be executed, is no program.
    pub fn spawn(spec: &Spec<'_>, method: WaitMethod) -> io::Result<Self> {
        let simple = spec.identity.is_none() && spec.umask.is_none() && spec.nice.is_none();
        if simple && method == WaitMethod::Pidfd {
            return Self::watch_pid(spawn_posix(spec)?);
        }
        let child = spawn_std(spec)?;
        let pid = Pid::from_child(&child);
        match method {
            WaitMethod::Pidfd => Self::watch_pid(pid),
            WaitMethod::Thread => Self::watch_child(pid, child),
        }
    }

    fn watch_pid(pid: Pid) -> io::Result<Self> {
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, watch: Watch::Pidfd(pidfd), end: None }),
            Err(error) => {
                // A child that cannot be watched (no descriptor is free) must not run unwatched.
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
                let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
                Err(error.into())
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this file owns the threads that wait where there are no pidfds")]
    fn watch_child(pid: Pid, mut child: Child) -> io::Result<Self> {
        let (ended, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (sender, status) = mpsc::channel();
        // wait-timeout counts in milliseconds of an i32; a day at a time is safe.
        let waiter = move || {
            let result = loop {
                match child.wait_timeout(Duration::from_secs(86_400)) {
                    Ok(None) => {}
                    Ok(Some(status)) => break Ok(status),
                    Err(error) => break Err(error),
                }
            };
            let _ = sender.send(result);
            drop(writer);
        };
        std::thread::Builder::new().name(format!("wait-{}", pid.as_raw_pid())).spawn(waiter)?;
        Ok(Self { pid, watch: Watch::Thread { ended, status }, end: None })
    }

    /// Its process id, which is its process group's, too.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Becomes readable when it has ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.watch {
            Watch::Pidfd(fd) => fd.as_fd(),
            Watch::Thread { ended, .. } => ended.as_fd(),
        }
    }

    /// How it ended, if it has; it is reaped then, and its pid is free for others.
    pub fn try_reap(&mut self) -> Option<ProcessEnd> {
        if self.end.is_none() {
            self.end = match &self.watch {
                Watch::Pidfd(_) => reap(self.pid),
                Watch::Thread { status, .. } => status.try_recv().ok().map(|status| match status {
                    Ok(status) => end_of(status.code(), status.signal()),
                    // Somebody else has reaped it; that it is gone is all we know.
                    Err(_) => ProcessEnd::Code(u8::MAX),
                }),
            };
        }
        self.end
    }

    /// Sends a signal to its process group. Does nothing once it is reaped: the number may be another's by then.
    pub fn signal_group(&self, signal: rustix::process::Signal) {
        if self.end.is_none() {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }
}

/// Reaps one child by its pid, if it has ended.
pub fn reap(pid: Pid) -> Option<ProcessEnd> {
    let status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
    Some(end_of(status.exit_status(), status.terminating_signal()))
}

fn end_of(code: Option<i32>, signal: Option<i32>) -> ProcessEnd {
    match (code, signal) {
        (Some(code), _) => ProcessEnd::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, Some(signal)) => ProcessEnd::Signal(signal),
        (None, None) => ProcessEnd::Code(u8::MAX),
    }
}

/// What a look at our children says, without reaping any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// There are none at all.
    None,
    /// There are some, and all of them live.
    Living,
    /// This one has ended and waits to be reaped.
    Ended(Pid),
}

/// Looks at our children, adopted ones included, with one system call.
pub fn look_at_children() -> Children {
    // SAFETY: an all-zero siginfo_t is a valid value of that plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a valid, writable siginfo_t for the length of the call.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    if result != 0 {
        return Children::None;
    }
    // SAFETY: waitid has filled in the SIGCHLD fields, or left them zero.
    match Pid::from_raw(unsafe { info.si_pid() }) {
        Some(pid) => Children::Ended(pid),
        None => Children::Living,
    }
}

/// The signals that were ignored when we were started. Children get all of them at default again.
static IGNORED: OnceLock<Vec<i32>> = OnceLock::new();

/// The signals that were ignored when we were started, without SIGPIPE, which Rust ignores itself.
pub fn inherited_ignored() -> &'static [i32] {
    IGNORED.get().map_or(&[], Vec::as_slice)
}

/// First thing in `main`: nothing that our parent blocked or ignored may change what we see of our children,
/// and no descriptor but 0-2 may reach them.
pub fn begin_process() {
    // SAFETY: an all-zero sigset_t is a valid value for sigemptyset to initialise.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is valid and writable; both calls only touch this process's own signal state, and there is
    // no other thread yet.
    unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
    let ignored = (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE && is_ignored(*signal)).collect();
    let _ = IGNORED.set(ignored);
    // A log that grows over RLIMIT_FSIZE is a full disk to us: lines are lost, and nothing else (setrlimit(2)).
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: SIG_DFL is a valid disposition for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    close_on_exec_from(3);
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid value of that plain C structure; sigaction only writes to it.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `old` is valid and writable, and a null new action changes nothing.
    let known = unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) } == 0;
    known && old.sa_sigaction == libc::SIG_IGN
}

/// Marks every descriptor from `first` on as not for children.
fn close_on_exec_from(first: i32) {
    // SAFETY: close_range with CLOEXEC closes nothing; it sets a flag on descriptors of this process.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0;
    if done {
        return;
    }
    // Before Linux 5.11: one by one.
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).filter(|fd| *fd >= first) {
            // SAFETY: F_SETFD on a number that may be closed by now fails with EBADF and does nothing.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// The limit of descriptors that we were started with, where it was raised.
static DESCRIPTORS: OnceLock<Rlimit> = OnceLock::new();

/// Lets us have as many descriptors as we may: a run takes five, and the usual soft limit of 1,024 is there for programs that
/// call select(2), which knows no more (getrlimit(2)). Children are started with the limit that we were started with.
pub fn raise_descriptor_limit() {
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: found.maximum, ..found };
    if raised != found && setrlimit(Resource::Nofile, raised).is_ok() {
        let _ = DESCRIPTORS.set(found);
    }
}

/// While it is there the limit of descriptors is the one that we were started with: a child inherits what holds in the moment
/// of its start, and posix_spawn(3) can change nothing of it. What is open stays open.
struct AsBefore(Option<Rlimit>);

impl AsBefore {
    fn enter() -> Self {
        let Some(before) = DESCRIPTORS.get() else { return Self(None) };
        let raised = getrlimit(Resource::Nofile);
        Self(setrlimit(Resource::Nofile, *before).is_ok().then_some(raised))
    }
}

impl Drop for AsBefore {
    fn drop(&mut self) {
        if let Some(raised) = self.0.take() {
            let _ = setrlimit(Resource::Nofile, raised);
        }
    }
}

/// Ends this program by `signal`, as whoever sent it expects. As PID 1, where that has no effect, returns.
pub fn die_of(signal: i32) {
    // SAFETY: restoring a default disposition and raising a signal touch only this process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// What is the same for every posix_spawn: a process group of its own, and its signals at their defaults.
struct Attributes(libc::posix_spawnattr_t);

/// Made at the first start, and kept.
static ATTRIBUTES: OnceLock<Box<Attributes>> = OnceLock::new();

impl Attributes {
    fn get() -> io::Result<&'static Self> {
        match ATTRIBUTES.get() {
            Some(attributes) => Ok(attributes),
            None => {
                let made = Self::new()?;
                Ok(ATTRIBUTES.get_or_init(|| made))
            }
        }
    }

    fn new() -> io::Result<Box<Self>> {
        // SAFETY: a plain C structure, which the init function fills in before anything reads it. Its box keeps it in
        // its place from then on.
        let mut made: Box<Self> = Box::new(Self(unsafe { std::mem::zeroed() }));
        // SAFETY: a sigset_t is an array of bits, of which every value is valid.
        let mut defaults: libc::sigset_t = unsafe { std::mem::zeroed() };
        let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: the attribute object is writable and initialised first, and the set is valid and ours.
        unsafe {
            check(libc::posix_spawnattr_init(&raw mut made.0))?;
            // All of them: of each that is not in the set glibc's child asks first how it stands, one call more. Not by
            // sigfillset(3): it leaves out the two that glibc keeps for itself, and tasks would begin with these ignored.
            (&raw mut defaults).write_bytes(0xff, 1);
            check(libc::posix_spawnattr_setpgroup(&raw mut made.0, 0))?;
            check(libc::posix_spawnattr_setsigdefault(&raw mut made.0, &raw const defaults))?;
            check(libc::posix_spawnattr_setflags(&raw mut made.0, libc::c_short::try_from(flags).unwrap_or(0)))?;
        }
        Ok(made)
    }
}

/// What a child does before it executes: redirections, a change of directory. Freed when dropped.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    /// The actions that `spec` asks for; most ask for none.
    fn of(spec: &Spec<'_>) -> io::Result<Option<Box<Self>>> {
        let redirections = [(spec.stdin, 0), (spec.stdout, 1), (spec.stderr, 2)];
        if spec.working_dir.is_none() && redirections.iter().all(|(from, _)| from.is_none()) {
            return Ok(None);
        }
        // SAFETY: a plain C structure, which the init function fills in before anything reads it.
        let mut actions: Box<Self> = Box::new(Self(unsafe { std::mem::zeroed() }));
        // SAFETY: the structure is valid and writable; it is initialised once and destroyed once, in drop.
        check(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions.0) })?;
        for (from, to) in redirections {
            actions.redirect(from, to)?;
        }
        actions.change_dir(spec.working_dir)?;
        Ok(Some(actions))
    }

    fn redirect(&mut self, from: Option<BorrowedFd<'_>>, to: i32) -> io::Result<()> {
        match from {
            // SAFETY: the actions object is initialised, and `from` is open for longer than the spawn.
            Some(from) => check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from.as_raw_fd(), to) }),
            None => Ok(()),
        }
    }

    fn change_dir(&mut self, dir: Option<&CStr>) -> io::Result<()> {
        match dir {
            // SAFETY: the actions object is initialised, and it copies the path.
            Some(dir) => check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, dir.as_ptr()) }),
            None => Ok(()),
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: it is initialised, or all zero, which is how an initialised one without actions begins; this is its
        // one end.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

fn spawn_posix(spec: &Spec<'_>) -> io::Result<Pid> {
    let attributes = Attributes::get()?;
    let actions = Actions::of(spec)?;
    let actions = actions.as_ref().map_or(ptr::null(), |actions| &raw const actions.0);
    let pointers = pointers(spec);
    // The words, a null pointer, the variables, a null pointer.
    let (argv, envp) = pointers.split_at(spec.argv.len() + 1);
    let mut pid: libc::pid_t = 0;
    let as_before = AsBefore::enter();
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call; posix_spawn does not
    // write to them, its parameter types only date from before const. The attributes are initialised, and so are the
    // actions unless they are null, which means that there are none.
    let code = unsafe { libc::posix_spawn(&raw mut pid, argv[0], actions, &raw const attributes.0, argv.as_ptr(), envp.as_ptr()) };
    drop(as_before);
    check(code)?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no pid"))
}

/// The arrays that C wants of the words and of the variables, one behind the other: their addresses, and a null pointer at
/// the end of each.
fn pointers(spec: &Spec<'_>) -> Vec<*mut libc::c_char> {
    let prepared: usize = spec.env.iter().map(|part| part.addresses().len()).sum();
    let mut pointers = Vec::with_capacity(spec.argv.len() + prepared + spec.own_env.len() + 2);
    pointers.extend(spec.argv.iter().map(|word| word.as_ptr().cast_mut()));
    pointers.push(ptr::null_mut());
    for part in spec.env {
        pointers.extend_from_slice(part.addresses());
    }
    // Each ends in its NUL.
    pointers.extend(spec.own_env.iter().map(|variable| variable.as_ptr().cast_mut().cast()));
    pointers.push(ptr::null_mut());
    pointers
}

fn stdio(fd: Option<BorrowedFd<'_>>) -> io::Result<Stdio> {
    Ok(match fd {
        Some(fd) => Stdio::from(fd.try_clone_to_owned()?),
        None => Stdio::inherit(),
    })
}

#[expect(clippy::disallowed_methods, reason = "this file owns the starting of processes")]
fn spawn_std(spec: &Spec<'_>) -> io::Result<Child> {
    let mut words: VecDeque<&OsStr> = spec.argv.iter().map(|word| OsStr::from_bytes(word.as_bytes())).collect();
    let Some(program) = words.pop_front() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut command = Command::new(program);
    command.args(words).env_clear().process_group(0);
    let prepared = spec.env.iter().flat_map(|part| part.strings()).map(|variable| variable.as_bytes());
    for bytes in prepared.chain(spec.own_env.iter().filter_map(|variable| variable.strip_suffix(b"\0"))) {
        if let Some(equals) = bytes.iter().position(|byte| *byte == b'=') {
            command.env(OsStr::from_bytes(&bytes[..equals]), OsStr::from_bytes(&bytes[equals + 1..]));
        }
    }
    command.stdin(stdio(spec.stdin)?).stdout(stdio(spec.stdout)?).stderr(stdio(spec.stderr)?);
    if let Some(dir) = spec.working_dir {
        command.current_dir(OsStr::from_bytes(dir.to_bytes()));
    }
    let identity = spec.identity.map(|identity| (identity.uid, identity.gid, identity.groups.clone()));
    let (umask, nice, reads) = (spec.umask, spec.nice, spec.reads.map(CStr::to_owned));
    let prepare = move || {
        // SAFETY: these run in the child between fork and exec and are async-signal-safe system calls that touch
        // only the child; the memory they read was allocated before the fork.
        unsafe {
            if let Some(before) = DESCRIPTORS.get() {
                setrlimit(Resource::Nofile, *before)?;
            }
            libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
            for signal in inherited_ignored() {
                libc::signal(*signal, libc::SIG_DFL);
            }
            if let Some(nice) = nice {
                ok(libc::setpriority(libc::PRIO_PROCESS, 0, nice))?;
            }
            if let Some(umask) = umask {
                libc::umask(umask);
            }
            if let Some((uid, gid, groups)) = &identity {
                ok(libc::setgroups(groups.len(), groups.as_ptr()))?;
                ok(libc::setgid(*gid))?;
                ok(libc::setuid(*uid))?;
                if let Some(file) = &reads {
                    ok(libc::access(file.as_ptr(), libc::R_OK))?;
                }
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock (see above).
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// From the convention of system calls to a result. Reads errno only, so it is safe after a fork.
fn ok(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
