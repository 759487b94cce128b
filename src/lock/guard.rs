//! The guard of a lease: a small process beside the holder that outlives it. When the holder is killed, or stands still
//! until its lease is nearly over, the guard ends what runs under the lock: nobody else on this machine may come to do
//! it. Touches one pipe and, in the guard itself, processes.
//!
//! The holder writes lines: `owner JSON` (what runs), `until NANOSECONDS` (CLOCK_BOOTTIME, the end of the trust), `bye`.
//! The end of the pipe without `bye` is the death of the holder.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;

use super::evict::{Evict, Progress, guard_of, start_time};
use super::owner::Owner;
use super::timer::Timer;
use crate::clock::{BootTime, Moment};
use crate::config::keys::Sweep;
use crate::environment::OwnVariables;
use crate::process::unix::Spec;
use crate::process::{Family, Supervised};

/// The guard acts when this much of the trust is left: the holder has had its time, and KILL takes a moment.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The hidden command of this program that calls [`serve`].
const COMMAND: &str = "lock-guard";

/// The holder's end of a guard.
#[derive(Debug)]
pub struct Guard {
    pipe: Option<File>,
    process: Supervised,
    last_until: Option<BootTime>,
    was_due: bool,
}

impl Guard {
    /// Starts the guard: `argv` is this program with the command that calls [`serve`].
    ///
    /// # Errors
    /// The program does not start, or no pipe is to be had.
    pub fn start(argv: &[CString], family: &Family) -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let pid = rustix::process::getpid().as_raw_pid();
        let holder = CString::new(guard_of(pid, start_time(pid)))?;
        let spec = Spec {
            argv,
            env: &[&[holder].into_iter().collect()],
            own_env: &OwnVariables::default(),
            stdin: Some(read.as_fd()),
            stdout: None,
            stderr: None,
            working_dir: Some(c"/"),
            identity: None,
            umask: None,
            nice: None,
            reads: None,
        };
        let process = Supervised::start(&spec, family, None, Duration::ZERO, Sweep::Never)?;
        // A guard that stands still must not make us stand still.
        rustix::io::ioctl_fionbio(&write, true)?;
        Ok(Self { pipe: Some(File::from(write)), process, last_until: None, was_due: false })
    }

    /// Starts this program as the guard of what is given `kill_after` between TERM and KILL. Where there is none, that is
    /// told: a lock is held without a guard rather than not at all.
    pub fn beside(family: &Family, kill_after: Duration) -> Option<Self> {
        let words = ["/proc/self/exe".to_owned(), COMMAND.to_owned(), kill_after.as_secs_f64().to_string()];
        let argv: Vec<CString> = words.into_iter().filter_map(|word| CString::new(word).ok()).collect();
        Self::start(&argv, family).inspect_err(|error| log::warn!("the lock has no guard: {error}")).ok()
    }

    /// Tells what runs under the lock. Before a start: nothing of it is known by a group yet, but by its run id.
    pub fn tell_owner(&mut self, owner: &Owner) {
        self.write(&format!("owner {}\n", owner.to_json()));
    }

    /// Tells until when the lease is trusted, if that is news. Where it comes so late that the guard has most likely acted,
    /// that is told in the log: what ran under the lock was killed, although the lock is ours.
    pub fn tell_until(&mut self, until: Option<BootTime>, now: BootTime) {
        if let Some(until) = until.filter(|until| self.last_until != Some(*until)) {
            if self.last_until.is_some_and(|last| now >= last.before(LAST_MOMENT)) && !self.was_due {
                self.was_due = true;
                log::error!("the lease of the lock was renewed at the last moment, after a standstill: its guard kills what ran under it");
            }
            self.last_until = Some(until);
            self.write(&format!("until {}\n", until.since_boot().as_nanos()));
        }
    }

    fn write(&mut self, line: &str) {
        // Lines of less than a page are written whole or not at all (pipe(7)).
        if let Some(pipe) = &mut self.pipe
            && let Err(error) = pipe.write_all(line.as_bytes())
        {
            log::debug!("the guard of the lock does not listen: {error}");
        }
    }

    /// Whether its time came before the lease was renewed: it has acted, or is about to.
    pub fn was_due(&self) -> bool {
        self.was_due
    }

    /// Sends it home; what ran under the lock is gone.
    pub fn dismiss(&mut self, family: &Family, now: Moment) {
        self.write("bye\n");
        self.pipe = None;
        if self.process.advance(family, now, |_| false).is_none() {
            self.process.kill_now(family, now);
        }
    }

    /// Whether it is gone, after it was dismissed; it is reaped then.
    pub fn is_gone(&mut self, family: &Family, now: Moment) -> bool {
        self.process.advance(family, now, |_| false).is_some()
    }

    /// What to poll for its end.
    pub fn process(&self) -> &Supervised {
        &self.process
    }
}

/// What the guard has heard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    owner: Option<Owner>,
    until: Option<BootTime>,
    bye: bool,
}

impl Heard {
    fn line(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("owner", json)) => self.owner = Owner::from_json(json),
            Some(("until", nanos)) => self.until = nanos.parse().ok().map(|nanos| BootTime::at(Duration::from_nanos(nanos))).or(self.until),
            Some(_) | None => self.bye |= line == "bye",
        }
    }

    /// When the guard acts although the holder lives.
    fn act_at(&self) -> Option<BootTime> {
        self.until.map(|until| until.before(LAST_MOMENT))
    }
}

/// The guard itself: listens on standard input until it is sent home, or has done what it is there for. `kill_after` is
/// the grace of what runs under the lock.
pub fn serve(kill_after: Duration) -> io::Result<()> {
    let input = io::stdin();
    rustix::io::ioctl_fionbio(&input, true)?;
    let timer = Timer::new()?;
    let (mut heard, mut buffer) = (Heard::default(), Vec::new());
    let dead = loop {
        timer.set(heard.act_at());
        let mut fds = [input.as_fd(), timer.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = rustix::event::poll(&mut fds, None);
        timer.clear();
        let ended = read_lines(&mut input.lock(), &mut buffer, &mut heard);
        if heard.bye {
            return Ok(());
        }
        // A holder that woke up and renewed has told so: the lines first, then the clock.
        if ended || heard.act_at().is_some_and(|at| BootTime::now() >= at) {
            break ended;
        }
    };
    let Some(owner) = heard.owner.take() else { return Ok(()) };
    let now = BootTime::now();
    // The grace, unless the lease is over before it is.
    let grace = if dead { heard.act_at().map_or(kill_after, |at| at.since(now).min(kill_after)) } else { Duration::ZERO };
    let mut evict = Evict::new(owner, grace, now);
    while evict.advance(BootTime::now()) == Progress::Going {
        timer.set(Some(BootTime::now() + evict.look_again()));
        let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(timer.as_fd(), PollFlags::IN)], None);
    }
    Ok(())
}

/// Reads what is there; tells whether that was the end.
fn read_lines(input: &mut impl Read, buffer: &mut Vec<u8>, heard: &mut Heard) -> bool {
    let mut chunk = [0; 4096];
    let ended = loop {
        match input.read(&mut chunk) {
            Ok(0) => break true,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
        }
    };
    while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        heard.line(String::from_utf8_lossy(&line[..end]).as_ref());
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces() {
        let (mut heard, mut buffer) = (Heard::default(), Vec::new());
        assert!(read_lines(&mut b"owner {\"pid\":7}\nunt".as_slice(), &mut buffer, &mut heard));
        assert_eq!((heard.owner.as_ref().unwrap().pid, heard.until), (7, None));
        read_lines(&mut b"il 3000000000\nuntil junk\n".as_slice(), &mut buffer, &mut heard);
        assert_eq!((heard.act_at(), heard.bye), (Some(BootTime::at(Duration::from_secs(2))), false));
        read_lines(&mut b"bye\n".as_slice(), &mut buffer, &mut heard);
        assert!(heard.bye && buffer.is_empty());
    }
}
