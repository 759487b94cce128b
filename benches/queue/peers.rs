//! Queues without a database that a machine with Debian may have: task-spooler, whose server holds its jobs in memory, and
//! nq, where each job is a file and a process that waits. Nothing of theirs is synced.

use std::path::Path;
use std::process::{Command, Stdio};

/// What is called to add a job that does nothing, and its name.
pub type Adder = (&'static str, Command);

/// Those that are installed.
pub struct Peers {
    /// The address of a socket is short, and this directory's name as well.
    sockets: tempfile::TempDir,
    jobs: tempfile::TempDir,
}

impl Peers {
    /// Their jobs are kept on the disk of this directory.
    pub fn beside(dir: &Path) -> Self {
        Self { sockets: tempfile::tempdir().unwrap(), jobs: tempfile::tempdir_in(dir).unwrap() }
    }

    /// One call for each of them that is there. Each has been called once: the first call of task-spooler starts its server.
    pub fn adders(&self) -> Vec<Adder> {
        let calls = [("task-spooler", self.spooler(&["-n", "/bin/true"])), ("nq", self.nq(&["-q", "/bin/true"]))];
        let is_there = |(name, call): &mut Adder| {
            let there = call.status().is_ok_and(|status| status.success());
            if !there {
                println!("{name}: not measured, it is not installed");
            }
            there
        };
        calls.into_iter().filter_map(|mut call| is_there(&mut call).then_some(call)).collect()
    }

    fn spooler(&self, words: &[&str]) -> Command {
        let mut spooler = Command::new("tsp");
        spooler.args(words).env("TS_SOCKET", self.sockets.path().join("s")).stdout(Stdio::null()).stderr(Stdio::null());
        spooler
    }

    fn nq(&self, words: &[&str]) -> Command {
        let mut nq = Command::new("nq");
        nq.args(words).env("NQDIR", self.jobs.path()).stdout(Stdio::null()).stderr(Stdio::null());
        nq
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.spooler(&["-K"]).status();
        let _ = self.nq(&["-w"]).status();
    }
}
