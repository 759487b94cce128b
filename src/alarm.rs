//! An alarm of the wall clock: a timer that also rings when somebody sets the clock. Touches one timerfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

/// Something that becomes readable at a time of the wall clock, or when that clock jumps.
pub trait Alarm {
    /// Readable when it has rung.
    fn fd(&self) -> BorrowedFd<'_>;
    /// It is to ring then; `None` is only when the clock jumps.
    fn arm(&mut self, at: Option<Timestamp>);
    /// It was heard: it is silent until it rings again.
    fn silence(&mut self);
}

/// The alarm of the kernel (timerfd_create(2)): it rings at once when its time has passed already, also during a suspend,
/// and whenever the clock is set (TFD_TIMER_CANCEL_ON_SET).
#[derive(Debug)]
pub struct ClockAlarm {
    timer: OwnedFd,
    armed: Option<Option<Timestamp>>,
}

impl ClockAlarm {
    /// An alarm that is not armed.
    ///
    /// # Errors
    /// The kernel gives no timer.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer, armed: None })
    }
}

impl Alarm for ClockAlarm {
    fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    fn arm(&mut self, at: Option<Timestamp>) {
        if self.armed == Some(at) {
            return;
        }
        // Without a deadline the timer still has to run, for the clock's jumps to be heard.
        let (tv_sec, tv_nsec) = at.map_or((i64::from(i32::MAX), 0), |at| (at.as_second(), i64::from(at.subsec_nanosecond())));
        let value = Timespec { tv_sec: tv_sec.max(1), tv_nsec: tv_nsec.max(0) };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        // The clock may have been set since the timer was read: it says so once, and is set by the next call.
        let set = timerfd_settime(&self.timer, flags, &spec);
        let set = if matches!(set, Err(rustix::io::Errno::CANCELED)) { timerfd_settime(&self.timer, flags, &spec) } else { set };
        match set {
            Ok(_) => self.armed = Some(at),
            Err(error) => log::error!("the alarm cannot be set: {error}"),
        }
    }

    fn silence(&mut self) {
        // ECANCELED says that the clock was set; the timer must be armed anew to hear of the next time.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.armed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use rustix::event::{PollFd, PollFlags, Timespec};

    fn rings_within(alarm: &ClockAlarm, seconds: i64) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(alarm.fd(), PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn it_rings_at_its_time_and_for_what_has_passed() {
        let now = crate::clock::Clock::wall(&crate::clock::SystemClock::new());
        let mut alarm = ClockAlarm::new().unwrap();
        alarm.arm(Some(now + SignedDuration::from_millis(20)));
        assert!(rings_within(&alarm, 30));
        alarm.silence();
        assert!(!rings_within(&alarm, 0), "once");
        alarm.arm(Some(now - SignedDuration::from_hours(1)));
        assert!(rings_within(&alarm, 30));
        alarm.silence();
        alarm.arm(None);
        assert!(!rings_within(&alarm, 0));
    }

    /// What the kernel says of the timer (proc(5), /proc/PID/fdinfo): its flags, in octal, and whether it runs.
    fn as_the_kernel_has_it(alarm: &ClockAlarm) -> (String, bool) {
        use std::os::fd::AsRawFd;
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", alarm.timer.as_raw_fd())).unwrap();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        (value("settime flags:"), value("it_value:") != "(0, 0)")
    }

    #[test]
    fn it_hears_of_every_step_of_the_clock() {
        // TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET.
        let armed = ("03".to_owned(), true);
        let mut alarm = ClockAlarm::new().unwrap();
        let now = crate::clock::Clock::wall(&crate::clock::SystemClock::new());
        alarm.arm(None);
        assert_eq!(as_the_kernel_has_it(&alarm), armed, "also where nothing is due");
        alarm.arm(Some(now + SignedDuration::from_hours(1)));
        assert_eq!(as_the_kernel_has_it(&alarm), armed);
        alarm.silence();
        alarm.arm(Some(now + SignedDuration::from_hours(1)));
        assert_eq!(as_the_kernel_has_it(&alarm), armed, "anew after it has rung");
    }
}
