//! A timer of the kernel that also counts while the machine sleeps, and the descriptor by which a thread is woken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::clock::BootTime;

/// A descriptor that becomes readable at a point of CLOCK_BOOTTIME. The time-outs of poll(2) stand still while the
/// machine sleeps, and a lease does not.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { fd: rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)? })
    }

    /// Sets it; `None` is never.
    pub fn set(&self, at: Option<BootTime>) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disarm it; what is past fires at once.
        let value = at.map(|at| at.since_boot().max(Duration::from_nanos(1))).and_then(|at| Timespec::try_from(at).ok()).unwrap_or(zero);
        let _ = rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: value });
    }

    /// Takes notice that it has fired.
    pub fn clear(&self) {
        drain(&self.fd);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A descriptor that one thread makes readable for another.
#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
}

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Rings.
    pub fn ring(&self) {
        // Full only after 2^64 - 2 rings, and then it is readable anyway.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Takes notice.
    pub fn clear(&self) {
        drain(&self.fd);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn drain(fd: &OwnedFd) {
    let mut count = [0_u8; 8];
    let _ = rustix::io::read(fd, &mut count);
}
