//! Where it is measured: a temporary directory with the C programs, the task directories and their configurations.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::Usage;

/// The programs, and a place for task directories.
#[derive(Debug)]
pub struct Stage {
    dir: TempDir,
    /// Whether fewer runs will do.
    pub quick: bool,
}

/// What the tasks of a directory do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, as a static program.
    Static,
    /// Nothing, as a shell script.
    Sh,
    /// Sleep for [`NAP_MS`].
    Nap,
    /// Sleep until a signal comes.
    Sleep,
    /// The same, with a child in another session that does so, too.
    Grandchild,
}

/// How long a nap is.
pub const NAP_MS: u32 = 50;
/// How long a sleep lasts that nobody ends: what is measured ends it, and what is broken must not stay for ever.
const SLEEP_MS: u32 = 30_000;

/// The state of the runs that are measured.
const STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Sh => "sh",
            Self::Nap => "nap",
            Self::Sleep => "sleep",
            Self::Grandchild => "grandchild",
        }
    }
}

impl Stage {
    /// Compiles the C programs.
    pub fn new(quick: bool) -> Self {
        let stage = Self { dir: tempfile::tempdir().expect("no temporary directory"), quick };
        let (nap, sleep) = (format!("-DNAP_MS={NAP_MS}"), format!("-DNAP_MS={SLEEP_MS}"));
        // The records of earlier measurements would be listed at the end of each run.
        let _ = fs::remove_dir_all(STATE);
        // As a package would install it: what a linker has just written lies in smaller pieces in memory, and starts more slowly.
        fs::copy(env!("CARGO_BIN_EXE_runner"), stage.path("runner")).expect("no copy of runner");
        stage.compile("limit.c", "limit", &[]);
        stage.compile("steps.c", "steps", &[]);
        stage.compile("task.c", Kind::Static.word(), &["-static"]);
        stage.compile("task.c", Kind::Nap.word(), &["-static", &nap]);
        stage.compile("task.c", Kind::Sleep.word(), &["-static", &sleep]);
        stage.compile("task.c", Kind::Grandchild.word(), &["-static", &sleep, "-DGRANDCHILD"]);
        let script = stage.path(Kind::Sh.word());
        fs::write(&script, "#!/bin/sh\nexit 0\n").expect("no script for the tasks");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("no executable script");
        stage
    }

    fn compile(&self, source: &str, program: &str, options: &[&str]) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(source);
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall"]).args(options).arg("-o").arg(self.path(program)).arg(&source);
        let status = cc.status().expect("the limit is a C program, and there is no cc");
        assert!(status.success(), "{} does not compile", source.display());
    }

    /// A file of the stage.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file that all tasks of a kind are.
    pub fn program(&self, kind: Kind) -> PathBuf {
        self.path(kind.word())
    }

    /// What was measured, and on what.
    pub fn describe(&self) -> String {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = load.split_once(' ').map_or("?", |(first, _)| first).to_owned();
        format!("runner {}, Linux {}, {cores} cores, load {load}", env!("CARGO_PKG_VERSION"), kernel.trim())
    }

    /// A directory of `count` tasks: hard links to one file, numbered, so that each is its own stage.
    pub fn tasks(&self, kind: Kind, count: usize) -> PathBuf {
        self.fill(kind, count, |at| format!("{at:05}-t"))
    }

    /// A directory of `count` tasks without numbers: all of one stage.
    pub fn unnumbered_tasks(&self, kind: Kind, count: usize) -> PathBuf {
        self.fill(kind, count, |at| format!("t{at:05}"))
    }

    fn fill(&self, kind: Kind, count: usize, name: impl Fn(usize) -> String) -> PathBuf {
        let dir = self.path(&format!("{}-{count}-{}.d", kind.word(), name(0)));
        if !dir.exists() {
            fs::create_dir(&dir).expect("no task directory");
            for at in 1..=count {
                fs::hard_link(self.path(kind.word()), dir.join(name(at))).expect("no link to a task");
            }
        }
        dir
    }

    /// A configuration for a task directory, with these lines after `task_dir`.
    pub fn config(&self, dir: &Path, name: &str, lines: &str) -> PathBuf {
        let file = dir.with_extension(format!("{name}.cfg"));
        fs::write(&file, format!("[runner]\ntask_dir = {}\n{lines}", dir.display())).expect("no configuration");
        file
    }

    /// A Makefile that runs the files of a directory one after the other. Make starts plain words without a shell.
    pub fn makefile(&self, dir: &Path) -> PathBuf {
        let file = dir.with_extension("mk");
        if !file.exists() {
            let mut names: Vec<_> = fs::read_dir(dir).expect("no task directory").map(|entry| entry.expect("no entry").path()).collect();
            names.sort();
            let lines: String = names.iter().map(|name| format!("\t{}\n", name.display())).collect();
            fs::write(&file, format!(".PHONY: all\nall:\n{lines}")).expect("no Makefile");
        }
        file
    }

    /// The C program, in one of its modes.
    pub fn limit(&self, mode: &str, dir: &Path) -> Command {
        let mut command = command(self.path("limit"));
        command.arg(mode).arg(dir);
        command
    }

    /// Runs a command to its end, by the meter of the C program.
    pub fn measure(&self, subject: &Command) -> Usage {
        let mut meter = command(self.path("limit"));
        meter.arg("meter").arg(subject.get_program()).args(subject.get_args());
        let output = meter.stdout(Stdio::piped()).output().expect("no meter");
        assert!(output.status.success(), "{subject:?}: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [passed, cpu, peak] = numbers.as_slice() else { panic!("the meter says `{text}`") };
        Usage { passed: passed / 1e6, cpu: cpu / 1e6, peak: peak / 1024.0 }
    }

    /// Runner with a configuration.
    pub fn runner(&self, config: &Path, options: &[&str]) -> Command {
        let mut command = command(self.path("runner"));
        command.arg("-c").arg(config).args(options);
        command
    }
}

/// A command with a small environment that is the same everywhere, and nobody who reads what it prints.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs([("HOME", "/"), ("LANG", "C.UTF-8")]);
    // No record of a measured run in the machine's own state.
    command.env("STATE_DIRECTORY", STATE);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Where a program is, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search).chain(["/usr/sbin".into(), "/bin".into()]).map(|dir| dir.join(program)).find(|path| path.is_file())
}
