//! The child that misbehaves: one small program, steered by its arguments, that plays every bad task.
//!
//! `probe ACTION ARGS... ACTION ARGS...` does its actions in order and exits 0. An action that starts
//! another process takes what that process does in braces: `probe child { pause } exit 1`; it goes on
//! once that process has come to the first action in which it waits, or to its end.
//! Every process of it leaves a file named after its pid in `$SCENE/pids`, so that a test can ask for
//! those whose environment is gone as well, and file names are relative to `$SCENE`. It never spins: what waits, sleeps in the kernel.
//!
//! It has no `fn main`: the runtime of Rust would ignore SIGPIPE and open missing descriptors before
//! the report could tell how the process was started.
#![no_main]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test program: what goes wrong here must be loud"
)]

use std::cell::RefCell;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// What the probe exits with when it was steered wrongly.
const BAD_ACTION: i32 = 99;
/// What it exits with when the fact it waited for did not come.
const WAITED_IN_VAIN: i32 = 98;
/// What it exits with when nobody answered a notification barrier.
const NO_BARRIER: i32 = 97;
/// The actions in which a process waits, or after which it is no longer this program.
const WAITING: [&str; 8] = ["pause", "stop", "exec", "nap", "wait-file", "wait-line", "wait-gone", "fork-bomb"];
/// How long it waits for a fact: only there in order to fail.
const DEADLINE: Duration = Duration::from_secs(20);

/// The C entry point; see the head of the file for why there is no `fn main`.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut scene = std::env::var_os("SCENE").map(PathBuf::from);
    if words.first().is_some_and(|w| w == "--scene") {
        scene = words.get(1).map(PathBuf::from);
        words.drain(..2);
    }
    let ready = RefCell::new(None);
    if words.first().is_some_and(|w| w == "--ready") {
        let number: RawFd = words[1].to_str().unwrap().parse().unwrap();
        // SAFETY: `become_child` left this descriptor open for this program and nobody else.
        let writer = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::CLOEXEC).unwrap();
        ready.replace(Some(writer));
        words.drain(..2);
    }
    let probe = Probe { scene, ready };
    probe.register();
    probe.act(&words);
    0
}

/// One process of the probe.
struct Probe {
    scene: Option<PathBuf>,
    /// While this is open, the process that started this one does not go on.
    ready: RefCell<Option<OwnedFd>>,
}

impl Probe {
    fn act(&self, words: &[OsString]) {
        let mut rest = Words(words);
        while let Some(action) = rest.next() {
            self.act_once(&action.to_string_lossy(), &mut rest);
        }
    }

    fn act_once(&self, action: &str, rest: &mut Words<'_>) {
        if WAITING.contains(&action) {
            self.ready.take();
        }
        match action {
            // endings
            "exit" => exit(rest.number()),
            "exit-by-try" => {
                let (first, later) = (rest.number(), rest.number());
                let try_num = std::env::var("RUNNER_TRY").unwrap_or_default();
                exit(if try_num == "1" { first } else { later });
            }
            "die" => die(signal_number(&rest.text())),
            "pause" => pause(),
            "stop" => send_self(libc::SIGSTOP),
            "exec" => exec(rest.0, None),
            // signals and descriptors
            "ignore" => set_disposition(signal_number(&rest.text()), libc::SIG_IGN),
            "default" => set_disposition(signal_number(&rest.text()), libc::SIG_DFL),
            "block" => block(signal_number(&rest.text())),
            "open-fd" => open_fd(rest.number()),
            "close" => close(rest.number()),
            "broken-pipe" => broken_pipe(rest.number()),
            // other processes
            "child" => self.child(rest.block(), Kin::SameGroup),
            "group-child" => self.child(rest.block(), Kin::OwnGroup),
            "setsid-child" => self.child(rest.block(), Kin::OwnSession),
            "setsid-child-clean" => self.child(rest.block(), Kin::OwnSessionClean),
            "daemon" => self.daemon(rest.block(), false),
            "daemon-clean" => self.daemon(rest.block(), true),
            "fork-bomb" => {
                let (children, generations) = (rest.number(), rest.number());
                fork_bomb(children, generations);
            }
            // what it tells
            "log" => {
                let line = format!("- {}", rest.text());
                append(&self.scene().join("log"), line.as_bytes());
            }
            "append" => {
                let (file, line) = (self.file(rest), rest.need());
                append(&file, line.as_bytes());
            }
            "touch" => write_whole(&self.file(rest), b""),
            "pid-file" => write_whole(&self.file(rest), std::process::id().to_string().as_bytes()),
            "report" => write_whole(&self.file(rest), report().to_string().as_bytes()),
            "out" => write_all(1, rest.need().as_bytes()),
            "err" => write_all(2, rest.need().as_bytes()),
            "bytes" => write_all(1, &from_hex(&rest.text())),
            "flood" => flood(rest.number()),
            "keep-stdin" => keep_stdin(&self.file(rest)),
            // what it waits for
            "nap" => nap(Duration::from_millis(rest.number())),
            "wait-file" => {
                let file = self.file(rest);
                wait_until(|| file.exists());
            }
            "wait-line" => {
                let (file, one, other) = (self.file(rest), rest.text(), rest.text());
                wait_until(|| has_line(&file, &one, &other));
            }
            "wait-gone" => {
                let pid = fs::read_to_string(self.file(rest)).unwrap();
                let process = Path::new("/proc").join(pid.trim());
                wait_until(|| !process.exists());
            }
            // sd_notify
            "notify" => notify(&rest.need()),
            "notify-always" => {
                let (socket, message) = (notify_socket(), rest.need());
                while socket.send(message.as_bytes()).is_ok() {}
            }
            "notify-barrier" => notify_barrier(),
            other => {
                write_all(2, format!("probe: no such action: {other}\n").as_bytes());
                exit(BAD_ACTION);
            }
        }
    }

    fn scene(&self) -> &Path {
        self.scene.as_deref().expect("SCENE is not set")
    }

    /// The next argument as a file: relative to the scene, wherever the probe was started.
    fn file(&self, rest: &mut Words<'_>) -> PathBuf {
        let path = PathBuf::from(rest.need());
        self.scene.as_ref().map_or(path.clone(), |scene| scene.join(path))
    }

    /// Leaves the pid and start time of this process where the test finds them.
    fn register(&self) {
        let Some(scene) = &self.scene else { return };
        let file = scene.join("pids").join(std::process::id().to_string());
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let started = stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(19).map(str::to_owned));
        // Not every task may write there (`user = nobody`); the environment is looked at as well.
        let _ = fs::write(file, started.unwrap_or_default());
    }

    /// Starts a process that does `words`, and goes on once that process waits.
    fn child(&self, words: &[OsString], kin: Kin) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        if fork() != 0 {
            drop(writer);
            wait_for_end(reader);
            return;
        }
        match kin {
            Kin::SameGroup => {}
            Kin::OwnGroup => rustix::process::setpgid(None, None).unwrap(),
            Kin::OwnSession | Kin::OwnSessionClean => drop(rustix::process::setsid().unwrap()),
        }
        self.become_child(words, matches!(kin, Kin::OwnSessionClean), writer);
    }

    /// Forks twice with a session in between, as daemons do; the middle process is gone afterwards.
    fn daemon(&self, words: &[OsString], clean: bool) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let middle = fork();
        if middle == 0 {
            rustix::process::setsid().unwrap();
            if fork() != 0 {
                exit(0);
            }
            self.become_child(words, clean, writer);
        }
        drop(writer);
        wait_for(middle);
        wait_for_end(reader);
    }

    fn become_child(&self, words: &[OsString], clean: bool, ready: OwnedFd) -> ! {
        self.register();
        if clean {
            rustix::io::fcntl_setfd(&ready, rustix::io::FdFlags::empty()).unwrap();
            let mut again: Vec<OsString> = vec!["/proc/self/exe".into()];
            if let Some(scene) = &self.scene {
                again.extend(["--scene".into(), scene.clone().into_os_string()]);
            }
            again.extend(["--ready".into(), ready.as_raw_fd().to_string().into()]);
            again.extend_from_slice(words);
            exec(&again, Some(&[]));
        }
        // In exchange for that of the process it was forked from, which is not this one's to hold.
        self.ready.replace(Some(ready));
        self.act(words);
        exit(0)
    }
}

/// How a child of the probe is related to it.
enum Kin {
    SameGroup,
    OwnGroup,
    OwnSession,
    OwnSessionClean,
}

/// The actions that are still to be done.
struct Words<'a>(&'a [OsString]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a OsString> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn need(&mut self) -> OsString {
        self.next().cloned().unwrap_or_else(|| {
            write_all(2, b"probe: an action lacks an argument\n");
            exit(BAD_ACTION)
        })
    }

    fn text(&mut self) -> String {
        self.need().to_string_lossy().into_owned()
    }

    fn number<N: std::str::FromStr>(&mut self) -> N {
        let text = self.text();
        text.parse().unwrap_or_else(|_| {
            write_all(2, format!("probe: not a number: {text}\n").as_bytes());
            exit(BAD_ACTION)
        })
    }

    /// What stands between `{` and its `}`.
    fn block(&mut self) -> &'a [OsString] {
        let mut depth = 0_u32;
        for (place, word) in self.0.iter().enumerate() {
            match word.to_str() {
                Some("{") => depth += 1,
                Some("}") => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                if place == 0 {
                    break;
                }
                let inner = &self.0[1..place];
                self.0 = &self.0[place + 1..];
                return inner;
            }
        }
        write_all(2, b"probe: braces are missing\n");
        exit(BAD_ACTION)
    }
}

// ---- processes -------------------------------------------------------------------------------

fn exit(code: i32) -> ! {
    // SAFETY: ends the process at once; nothing here has to be flushed or dropped.
    unsafe { libc::_exit(code) }
}

fn fork() -> i32 {
    // SAFETY: the probe has one thread, so the child may go on with everything.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    pid
}

fn wait_for(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
}

/// Waits until the other end of a pipe is closed by all who had it.
fn wait_for_end(reader: OwnedFd) {
    let mut nothing = Vec::new();
    fs::File::from(reader).read_to_end(&mut nothing).unwrap();
}

fn pause() -> ! {
    loop {
        // SAFETY: waits for a signal; touches no memory.
        unsafe { libc::pause() };
    }
}

fn die(signal: i32) -> ! {
    set_disposition(signal, libc::SIG_DFL);
    unblock(signal);
    send_self(signal);
    pause()
}

fn send_self(signal: i32) {
    // SAFETY: kill and getpid take and return plain numbers.
    unsafe { libc::kill(libc::getpid(), signal) };
}

fn exec(words: &[OsString], environment: Option<&[CString]>) -> ! {
    let args: Vec<CString> = words.iter().map(|w| CString::new(w.as_bytes()).unwrap()).collect();
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    if let Some(variables) = environment {
        let mut envp: Vec<*const libc::c_char> = variables.iter().map(|v| v.as_ptr()).collect();
        envp.push(std::ptr::null());
        // SAFETY: both arrays end with a null pointer and outlive the call. It is libc's own call,
        // because the one of std would empty the signal mask and reset SIGPIPE.
        unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
    } else {
        // SAFETY: as above; the environment stays the one of the process.
        unsafe { libc::execvp(argv[0], argv.as_ptr()) };
    }
    write_all(2, b"probe: exec failed\n");
    exit(BAD_ACTION)
}

/// Children of which each hands on to a new process again and again, every other one in a session of
/// its own; all sleep for ever once they have done so often enough.
fn fork_bomb(children: u32, generations: u32) {
    for number in 0..children {
        if fork() != 0 {
            continue;
        }
        for _ in 0..generations {
            if fork() != 0 {
                exit(0);
            }
            if number % 2 == 1 {
                let _ = rustix::process::setsid();
            }
            nap(Duration::from_millis(1));
        }
        pause();
    }
}

// ---- signals and descriptors -----------------------------------------------------------------

const SIGNALS: [(&str, i32); 16] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("WINCH", libc::SIGWINCH),
];

fn signal_number(name: &str) -> i32 {
    let known = SIGNALS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number);
    known.or_else(|| name.parse().ok()).unwrap_or_else(|| {
        write_all(2, format!("probe: no such signal: {name}\n").as_bytes());
        exit(BAD_ACTION)
    })
}

fn set_disposition(signal: i32, to: libc::sighandler_t) {
    // SAFETY: `to` is SIG_DFL or SIG_IGN, so no code of ours ever runs in a handler.
    unsafe { libc::signal(signal, to) };
}

fn block(signal: i32) {
    change_mask(libc::SIG_BLOCK, signal);
}

fn unblock(signal: i32) {
    change_mask(libc::SIG_UNBLOCK, signal);
}

fn change_mask(how: i32, signal: i32) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set before it is read; all pointers are valid for the calls.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::sigprocmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Opens /dev/null as descriptor `number`, open for whatever is executed next.
fn open_fd(number: RawFd) {
    let file = fs::File::open("/dev/null").unwrap();
    // SAFETY: dup2 onto a number nobody in this program owns; it stays open on purpose.
    unsafe { libc::dup2(file.as_raw_fd(), number) };
}

/// Makes descriptor `number` a pipe that nobody reads.
fn broken_pipe(number: RawFd) {
    let (_reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    // SAFETY: as in open_fd.
    unsafe { libc::dup2(writer.as_raw_fd(), number) };
}

fn close(number: RawFd) {
    // SAFETY: no object of this program owns the descriptors that tests close; a bad number is only an error.
    unsafe { libc::close(number) };
}

// ---- files and output ------------------------------------------------------------------------

/// One line in one write, so that lines of several processes never mix.
fn append(file: &Path, line: &[u8]) {
    let mut whole = line.to_vec();
    whole.push(b'\n');
    let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o666).open(file).unwrap();
    assert_eq!(file.write(&whole).unwrap(), whole.len());
}

/// A file that is either not there or whole.
fn write_whole(file: &Path, content: &[u8]) {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, file).unwrap();
}

fn write_all(descriptor: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: pointer and length describe a live slice.
        let written = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        if written <= 0 {
            return;
        }
        bytes = &bytes[usize::try_from(written).unwrap()..];
    }
}

fn flood(bytes: usize) {
    let line = [b"flood ".as_slice(), &[b'x'; 57], b"\n"].concat();
    let chunk = line.repeat(64);
    let mut left = bytes;
    while left > 0 {
        let part = left.min(chunk.len());
        write_all(1, &chunk[..part]);
        left -= part;
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn keep_stdin(file: &Path) {
    let mut all = Vec::new();
    // SAFETY: descriptor 0 belongs to this process and is not used by anything else.
    fs::File::from(unsafe { OwnedFd::from_raw_fd(0) }).read_to_end(&mut all).unwrap();
    write_whole(file, &all);
}

// ---- report ----------------------------------------------------------------------------------

fn report() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
    };
    let numbers = |name: &str| -> Vec<u32> { field(name).split_whitespace().map(|n| n.parse().unwrap()).collect() };
    let environment: Map<String, Value> =
        std::env::vars_os().map(|(k, v)| (k.to_string_lossy().into_owned(), json!(v.to_string_lossy()))).collect();
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    json!({
        "pid": std::process::id(),
        "ppid": rustix::process::getppid().map(|p| p.as_raw_nonzero().get()),
        // Not getpgrp(2) and getsid(2): what began outside of the PID namespace has the number 0, which is no pid to rustix.
        "pgid": numbers("NSpgid").last(),
        "sid": numbers("NSsid").last(),
        "fds": open_descriptors(),
        "ignored": signals_in(&field("SigIgn")),
        "blocked": signals_in(&field("SigBlk")),
        "env": environment,
        "args": args,
        "cwd": std::env::current_dir().unwrap().to_string_lossy(),
        "umask": field("Umask"),
        "uid": numbers("Uid"),
        "gid": numbers("Gid"),
        "groups": numbers("Groups"),
        "nice": rustix::process::getpriority_process(None).unwrap(),
    })
}

/// The signal numbers of a mask as /proc prints it.
fn signals_in(mask: &str) -> Vec<u32> {
    let mask = u64::from_str_radix(mask, 16).unwrap();
    (1..=64).filter(|n| mask >> (n - 1) & 1 == 1).collect()
}

fn open_descriptors() -> Map<String, Value> {
    // Names first: the listing itself holds a descriptor, which is gone when the links are read.
    let names: Vec<OsString> = fs::read_dir("/proc/self/fd").unwrap().map(|e| e.unwrap().file_name()).collect();
    let mut open = Map::new();
    for name in names {
        if let Ok(target) = fs::read_link(Path::new("/proc/self/fd").join(&name)) {
            open.insert(name.to_string_lossy().into_owned(), json!(target.to_string_lossy()));
        }
    }
    open
}

// ---- waiting ---------------------------------------------------------------------------------

fn nap(time: Duration) {
    let timeout = rustix::time::Timespec::try_from(time).unwrap();
    let _ = rustix::event::poll(&mut [], Some(&timeout));
}

fn wait_until(mut fact: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !fact() {
        if begun.elapsed() > DEADLINE {
            write_all(2, b"probe: waited in vain\n");
            exit(WAITED_IN_VAIN);
        }
        nap(Duration::from_millis(2));
    }
}

fn has_line(file: &Path, one: &str, other: &str) -> bool {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.split_inclusive('\n').any(|l| l.ends_with('\n') && l.contains(one) && l.contains(other))
}

// ---- sd_notify -------------------------------------------------------------------------------

fn notify_socket() -> UnixDatagram {
    let name = std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET is not set").into_vec();
    let address = match name.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(OsStr::from_bytes(&name)),
    };
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect_addr(&address.unwrap()).unwrap();
    socket
}

fn notify(message: &OsStr) {
    notify_socket().send(message.as_bytes()).unwrap();
}

/// Sends a descriptor with `BARRIER=1` and waits until the receiver closed it: everything sent before
/// has then been read.
fn notify_barrier() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let socket = notify_socket();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let passed = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    let text = [std::io::IoSlice::new(b"BARRIER=1")];
    sendmsg(&socket, &text, &mut control, SendFlags::empty()).unwrap();
    drop(writer);
    let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut waiting = [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)];
    if rustix::event::poll(&mut waiting, Some(&timeout)).unwrap() == 0 {
        write_all(2, b"probe: nobody closed the barrier\n");
        exit(NO_BARRIER);
    }
}
