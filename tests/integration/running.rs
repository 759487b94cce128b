//! The program of a scene while it runs: waiting for facts, sending signals, its end.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::outcome::Outcome;
use crate::scene::Place;

/// How long a test waits for a fact. Reaching it is a failure, never a pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The program while it runs; killed if the test ends before it does.
pub(crate) struct Running {
    child: Child,
    pidfd: OwnedFd,
    place: Rc<Place>,
    stdout: PathBuf,
    stderr: PathBuf,
    begun: Instant,
    ended: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn new(child: Child, begun: Instant, place: Rc<Place>, stdout: PathBuf, stderr: PathBuf) -> Self {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        Self { child, pidfd, place, stdout, stderr, begun, ended: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.path().join(name)
    }

    #[track_caller]
    pub(crate) fn wait_for_file(&mut self, name: &str) -> &mut Self {
        let file = self.path(name);
        self.wait_for(name, |_| file.exists())
    }

    /// Waits for a whole line of the scene's log.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, line: &str) -> &mut Self {
        let log = self.path("log");
        self.wait_for(line, |_| fs::read_to_string(&log).unwrap_or_default().lines().any(|l| l == line))
    }

    /// Waits for a line on the program's stderr that has both fragments.
    #[track_caller]
    pub(crate) fn wait_for_message(&mut self, one: &str, other: &str) -> &mut Self {
        let stderr = self.stderr.clone();
        self.wait_for(one, |_| {
            let text = fs::read(&stderr).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().any(|l| l.contains(one) && l.contains(other))
        })
    }

    /// What it has said on its stderr so far.
    #[cfg(all(feature = "schedule", feature = "store"))]
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits until `fact` holds. It is asked again whenever something in the scene's directory
    /// changes; if the program ends first and it still does not hold, that is a failure.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, fact: impl Fn(&Self) -> bool) -> &mut Self {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::MODIFY;
        inotify::add_watch(&watch, self.place.path(), flags).unwrap();
        let begun = Instant::now();
        let mut over = false;
        while !fact(self) {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            if over || left.is_zero() {
                let why = if over { "the program ended before it" } else { "waited in vain for it" };
                panic!("{what}: {why}\n{}", self.so_far());
            }
            let mut waiting = [PollFd::new(&watch, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
            let timeout = rustix::time::Timespec::try_from(left).unwrap();
            let _ = poll(&mut waiting, Some(&timeout));
            over = !waiting[1].revents().is_empty();
            let mut events = [0_u8; 4096];
            while rustix::io::read(&watch, &mut events).is_ok_and(|n| n > 0) {}
        }
        self
    }

    /// Sends a signal and waits until it is delivered (or the program is gone). A second one may still be merged with it:
    /// what comes twice between two looks of the program counts once, so wait for its answer to the first.
    #[track_caller]
    pub(crate) fn signal(&mut self, signal: Signal) -> &mut Self {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = Path::new("/proc").join(self.pid().to_string()).join("status");
        let bit = 1_u64 << (signal.as_raw() - 1);
        until("the signal is taken", || !is_pending(&status, bit));
        self
    }

    /// Sends a signal again and again until the program is gone: however it merges them, it gets at
    /// least two.
    #[track_caller]
    pub(crate) fn insist(&mut self, signal: Signal) -> &mut Self {
        until("the program gives in", || {
            let mut waiting = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let _ = kill_process(Pid::from_child(&self.child), signal);
            let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let _ = poll(&mut waiting, Some(&pause));
            !waiting[0].revents().is_empty()
        });
        self
    }

    /// Waits for the program's own end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        let left = DEADLINE.saturating_sub(self.begun.elapsed()).max(Duration::from_secs(1));
        let timeout = rustix::time::Timespec::try_from(left).unwrap();
        let mut waiting = [PollFd::new(&self.pidfd, PollFlags::IN)];
        while poll(&mut waiting, Some(&timeout)) == Err(rustix::io::Errno::INTR) {}
        assert!(!waiting[0].revents().is_empty(), "the program did not end\n{}", self.so_far());
        let took = self.begun.elapsed();
        let status = self.child.wait().unwrap();
        self.ended = Some(status);
        Outcome {
            status,
            took,
            stdout: fs::read(&self.stdout).unwrap_or_default(),
            stderr: fs::read(&self.stderr).unwrap_or_default(),
            stdout_file: self.stdout.clone(),
            place: Rc::clone(&self.place),
        }
    }

    fn so_far(&self) -> String {
        let read = |p: &Path| String::from_utf8_lossy(&fs::read(p).unwrap_or_default()).into_owned();
        let log = read(&self.path("log"));
        format!("log:\n{log}\nstdout:\n{}\nstderr:\n{}", read(&self.stdout), read(&self.stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for a fact that no file tells of, asking every few milliseconds.
#[track_caller]
pub(crate) fn until(what: &str, fact: impl Fn() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        pause_briefly();
    }
}

pub(crate) fn pause_briefly() {
    let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let _ = poll(&mut [], Some(&timeout));
}

fn is_pending(status: &Path, bit: u64) -> bool {
    let text = fs::read_to_string(status).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.strip_prefix("SigPnd:").or_else(|| l.strip_prefix("ShdPnd:")))
        .any(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & bit != 0)
        && !text.lines().any(|l| l.starts_with("State:\tZ"))
}
