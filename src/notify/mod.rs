//! The protocol of sd_notify(3), both ways: `inbox` hears our tasks, `asking` whoever looks at them, `systemd` tells the service manager.

pub mod asking;
pub mod inbox;
pub mod systemd;

use std::time::Duration;

use rustix::net::UCred;

use crate::opinion::Opinion;

/// How the names of the sockets of runs begin; the id of the run follows.
pub const NAME_START: &str = "runner/";
/// What a run is asked: the whole of a datagram.
pub const QUESTION: &[u8] = b"X_RUNNER_ASKS=1";
/// What tells a run to stop: the whole of a datagram. A second one is a second signal.
pub const STOP: &[u8] = b"X_RUNNER_STOP=1";

/// Whether the kernel says of the other side that it is root or the user we are.
pub fn is_trusted(credentials: &UCred) -> bool {
    credentials.uid.is_root() || credentials.uid == rustix::process::geteuid()
}

/// What a task may say of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `STATUS=`: what it is doing, in its own words.
    Status(String),
    /// `X_RUNNER_PROGRESS=`: 0 to 100.
    Progress(u8),
    /// `X_RUNNER_RESULT=`: what it thinks of itself.
    Result(Opinion),
    /// `WATCHDOG=1`: it is alive.
    Alive,
    /// `EXTEND_TIMEOUT_USEC=`: it wants so much time from now.
    Extend(Duration),
}

/// Reads one datagram: lines of `NAME=value`. What is not for us is passed over, as sd_notify(3) asks.
pub fn parse(datagram: &[u8]) -> Vec<Message> {
    let text = String::from_utf8_lossy(datagram);
    text.lines().filter_map(|line| line.split_once('=')).filter_map(|(name, value)| read(name, value)).collect()
}

fn read(name: &str, value: &str) -> Option<Message> {
    match name {
        // One line of a table: what would move a cursor or colour a screen has no place in it.
        "STATUS" => Some(Message::Status(value.chars().filter(|c| !c.is_control()).take(200).collect())),
        "X_RUNNER_PROGRESS" => value.trim().parse().ok().filter(|percent| *percent <= 100).map(Message::Progress),
        "X_RUNNER_RESULT" => Opinion::parse(value).map(Message::Result),
        "WATCHDOG" => (value == "1").then_some(Message::Alive),
        "EXTEND_TIMEOUT_USEC" => value.parse().ok().map(Duration::from_micros).map(Message::Extend),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_others_passed_over() {
        let read = parse(b"READY=1\nSTATUS=half\x1b[31m way\nX_RUNNER_PROGRESS=50\nX_RUNNER_PROGRESS=101\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=2000000\nX_RUNNER_RESULT=warning\njunk\n\xff=\xff\n");
        let expected = [
            Message::Status("half[31m way".into()),
            Message::Progress(50),
            Message::Alive,
            Message::Extend(Duration::from_secs(2)),
            Message::Result(Opinion::Warning),
        ];
        assert_eq!(read, expected);
    }
}
