//! What came of a scene: exit, output, log and the processes that are left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::alive;
use crate::scene::Place;

/// The program's end and everything it left; each check gives it back, so that they can be chained.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) stdout_file: PathBuf,
    pub(crate) place: Rc<Place>,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "ended with {}{self}", self.status);
        self
    }

    #[track_caller]
    pub(crate) fn dies_of(self, signal: Signal) -> Self {
        assert_eq!(self.status.signal(), Some(signal.as_raw()), "ended with {}{self}", self.status);
        self
    }

    /// The whole log, line by line.
    #[track_caller]
    pub(crate) fn logged<const N: usize>(self, lines: [&str; N]) -> Self {
        assert_eq!(self.log(), lines, "{self}");
        self
    }

    /// The tasks that ran, in the order in which they began, each as often as it did.
    #[track_caller]
    pub(crate) fn ran<const N: usize>(self, names: [&str; N]) -> Self {
        assert_eq!(self.names_that_ran(), names, "{self}");
        self
    }

    /// The same where the order is not fixed: `names` in byte order.
    #[track_caller]
    pub(crate) fn ran_in_any_order<const N: usize>(self, names: [&str; N]) -> Self {
        let mut ran = self.names_that_ran();
        ran.sort();
        assert_eq!(ran, names, "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn ran_nothing(self) -> Self {
        self.ran([])
    }

    #[track_caller]
    pub(crate) fn says(self, fragment: &str) -> Self {
        assert!(self.stderr_text().contains(fragment), "nothing of {fragment:?} on stderr{self}");
        self
    }

    #[track_caller]
    pub(crate) fn never_says(self, fragment: &str) -> Self {
        assert!(!self.stderr_text().contains(fragment), "{fragment:?} on stderr{self}");
        self
    }

    #[track_caller]
    pub(crate) fn prints(self, fragment: &str) -> Self {
        assert!(self.stdout_text().contains(fragment), "nothing of {fragment:?} on stdout{self}");
        self
    }

    #[track_caller]
    pub(crate) fn never_prints(self, fragment: &str) -> Self {
        assert!(!self.stdout_text().contains(fragment), "{fragment:?} on stdout{self}");
        self
    }

    /// Stdout is exactly this line.
    #[track_caller]
    pub(crate) fn prints_line(self, line: &str) -> Self {
        assert_eq!(self.stdout_text(), format!("{line}\n"), "{self}");
        self
    }

    /// Nothing that was started in this scene lives any more.
    #[track_caller]
    pub(crate) fn nothing_alive(self) -> Self {
        let left = alive::of_scene(self.place.path());
        assert!(left.is_empty(), "still alive: {left:?}{self}");
        self
    }

    #[track_caller]
    pub(crate) fn quicker_than(self, seconds: u64) -> Self {
        assert!(self.took < Duration::from_secs(seconds), "took {:?}{self}", self.took);
        self
    }

    #[track_caller]
    pub(crate) fn slower_than(self, millis: u64) -> Self {
        assert!(self.took >= Duration::from_millis(millis), "took {:?}{self}", self.took);
        self
    }

    /// The process whose pid a probe or a task wrote into this file of the scene still lives.
    #[track_caller]
    pub(crate) fn alive(self, pid_file: &str) -> Self {
        let pid = self.pid_in(pid_file);
        assert!(alive::is_alive(pid), "{pid_file}: {pid} is gone{self}");
        self
    }

    #[track_caller]
    pub(crate) fn gone(self, pid_file: &str) -> Self {
        let pid = self.pid_in(pid_file);
        assert!(!alive::is_alive(pid), "{pid_file}: {pid} still lives{self}");
        self
    }

    #[track_caller]
    pub(crate) fn has_file(self, name: &str) -> Self {
        assert!(self.path(name).exists(), "{name} is not there{self}");
        self
    }

    #[track_caller]
    pub(crate) fn lacks_file(self, name: &str) -> Self {
        assert!(!self.path(name).exists(), "{name} is there{self}");
        self
    }

    // ---- to look at --------------------------------------------------------------------------

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn stdout_file(&self) -> &Path {
        &self.stdout_file
    }

    #[track_caller]
    pub(crate) fn pid_in(&self, pid_file: &str) -> u32 {
        self.text_of(pid_file).trim().parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn text_of(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}{self}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What a probe reported into this file.
    #[track_caller]
    pub(crate) fn report(&self, name: &str) -> Value {
        serde_json::from_str(&self.text_of(name)).unwrap()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.text_of("log").lines().map(str::to_owned).collect()
    }

    fn names_that_ran(&self) -> Vec<String> {
        let log = self.log();
        let tasks = log.iter().filter(|l| !l.starts_with("- "));
        tasks.map(|l| l.rsplit_once(' ').map_or(l.clone(), |(name, _)| name.to_owned())).collect()
    }

    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Stdout as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("stdout is not JSON: {e}{self}"))
    }

    /// The lines of stderr that are JSON objects (`--log-format json`); tasks and their shells may
    /// have written others.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<Value> {
        let text = self.stderr_text();
        let parse = |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON: {l}: {e}"));
        text.lines().filter(|l| l.starts_with('{')).map(parse).collect()
    }

    /// The messages that tell of this event.
    #[track_caller]
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.messages().into_iter().filter(|m| m["event"] == kind).collect()
    }

    /// The tasks of these events, in order.
    #[track_caller]
    pub(crate) fn tasks_of(&self, kind: &str) -> Vec<String> {
        self.events(kind).iter().map(|e| e["task"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Whether a message of at least this gravity was logged (`--log-format json`).
    #[track_caller]
    pub(crate) fn has_message_of(&self, level: &str) -> bool {
        let same = |m: &Value| m["level"].as_str().unwrap_or_default().to_ascii_lowercase().starts_with(level);
        self.messages().iter().any(same)
    }

    #[track_caller]
    pub(crate) fn warns(self) -> Self {
        assert!(self.has_message_of("warn"), "no warning{self}");
        self
    }

    /// What [`Scene::hook_keeper`] was called with, in order.
    #[track_caller]
    pub(crate) fn hook_calls(&self) -> Vec<Value> {
        let text = fs::read(self.path("hooks")).unwrap_or_default();
        serde_json::Deserializer::from_slice(&text).into_iter().map(Result::unwrap).collect()
    }

    pub(crate) fn mode_of(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().mode() & 0o7777
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let log = fs::read(self.path("log")).unwrap_or_default();
        let end = |bytes: &[u8]| String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(6000)..]).into_owned();
        write!(f, "\nended: {} after {:?}\nlog:\n{}", self.status, self.took, end(&log))?;
        write!(f, "\nstdout:\n{}\nstderr:\n{}", end(&self.stdout), end(&self.stderr))
    }
}
