//! A scene: a temporary directory with tasks and a configuration, the program run in it, and what
//! came of it. Every test of this program is written as such a story:
//!
//! ```text
//! Scene::new().task("10-a.sh", "exit 0").config("[runner]\nmax_tries = 2\n").run(&[]).exits(0).ran(["10-a.sh"]);
//! ```
//!
//! A shell task writes `<file name> <RUNNER_TRY>` to the scene's log before its own text runs (the halt
//! task, whose tries nobody counts, a dash); what it says with `say` stands there as `- <words>`. Waiting is always for a fact, with a deadline that
//! is only there in order to fail. When a scene ends, whatever is still alive in it is killed.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use tempfile::TempDir;

use crate::alive;
pub(crate) use crate::outcome::Outcome;
pub(crate) use crate::running::{DEADLINE, Running, until};

/// What shell tasks and hooks can call.
const STORY: &str = r#"me=${0##*/}
enter() {
    try_num=$RUNNER_TRY
    [ -n "$RUNNER_HALT_REASON" ] && try_num=-
    printf '%s %s\n' "$me" "$try_num" >>"$SCENE/log"
}
say() { printf -- '- %s\n' "$*" >>"$SCENE/log"; }
once() { mkdir "$SCENE/once.${1:-$me}" 2>/dev/null; }
probe() { "$PROBE" "$@"; }
play() { exec "$PROBE" "$@"; }
"#;

/// The state directory of a scene.
pub(crate) const STATE_DIR: &str = "state.d";

pub(crate) fn runner_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_runner"))
}

pub(crate) fn runner_config_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_runner-config"))
}

pub(crate) fn probe_binary() -> PathBuf {
    let probe = runner_binary().parent().unwrap().join("examples/probe");
    assert!(probe.exists(), "{} is missing: `cargo build --example probe`", probe.display());
    probe
}

/// Held while a process is started, and shared while a file is written: a child that was forked in
/// between would hold the file open for writing, and nobody could execute it ("text file busy").
static FORKING: RwLock<()> = RwLock::new(());

/// The signals that whoever starts the tests may have had ignored: nohup does so, and a shell that puts a job into the
/// background. What is ignored stays so in a process that is started, and runner goes by that; a handler does not. With
/// one of ours that does nothing these tests go on as they were told to, and what they start begins with the default.
static UNIGNORED: LazyLock<()> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        if ignored & (1 << (signal - 1)) != 0 {
            signal_hook::flag::register(signal, Arc::default()).unwrap();
        }
    }
});

/// Starts a process while no thread of the tests writes a file; tells when it began.
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<(Child, Instant)> {
    LazyLock::force(&UNIGNORED);
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    Ok((command.spawn()?, begun))
}

/// Whether a command can be run here and ends well.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let started = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    started.is_ok_and(|(mut child, _)| child.wait().unwrap().success())
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    let _shared = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, content).unwrap();
}

/// Says on the terminal that the running test could not be made here, and why.
pub(crate) fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("?"));
    // Straight to the descriptor: the test harness would swallow what eprintln! writes.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether this is root; says that the test is skipped if it is not.
pub(crate) fn is_root_or_skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped("needs an effective user of root");
    }
    root
}

/// The directory of a scene. It outlives the `Scene`, so that outcomes can look at it.
pub(crate) struct Place {
    path: PathBuf,
    starts: Cell<u32>,
    _directory: TempDir,
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        alive::end_all(&self.path);
    }
}

/// What is set up before the program runs.
pub(crate) struct Scene {
    place: Rc<Place>,
    config: Config,
    environment: Vec<(OsString, OsString)>,
    under: Vec<String>,
    through: Vec<String>,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
    directory: Option<PathBuf>,
}

enum Config {
    None,
    /// What the test says, and after it the defaults of a scene.
    Text(String),
    /// Exactly this.
    Bytes(Vec<u8>),
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::in_directory_named("runner-scene-")
    }

    /// A scene whose path begins with these characters in its last part.
    pub(crate) fn in_directory_named(prefix: &str) -> Self {
        let open = fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix(prefix).permissions(open).tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        for part in ["tasks.d", "pids"] {
            fs::create_dir(path.join(part)).unwrap();
            set_mode(&path.join(part), 0o755);
        }
        fs::write(path.join("story.sh"), STORY).unwrap();
        fs::write(path.join("stdin"), "not for tasks\n").unwrap();
        fs::write(path.join("log"), "").unwrap();
        let place = Rc::new(Place { path, starts: Cell::new(0), _directory: directory });
        Self {
            place,
            config: Config::Text(String::new()),
            environment: Vec::new(),
            under: Vec::new(),
            through: Vec::new(),
            stdout: None,
            stderr: None,
            directory: None,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.path.join(name)
    }

    // ---- files -------------------------------------------------------------------------------

    /// An executable shell task in `tasks.d` that logs itself and then does `body`.
    pub(crate) fn task(self, name: impl AsRef<OsStr>, body: &str) -> Self {
        let path = self.path("tasks.d").join(name.as_ref());
        self.task_at(path, body)
    }

    /// The same anywhere: `path` is relative to the scene.
    pub(crate) fn task_at(self, path: impl AsRef<Path>, body: &str) -> Self {
        self.script(
            path,
            &format!(
                "enter
{body}"
            ),
        )
    }

    /// Several tasks that only log themselves.
    pub(crate) fn tasks<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(self, |scene, name| scene.task(name, "exit 0"))
    }

    /// The same in another directory.
    pub(crate) fn tasks_at<'a>(self, dir: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(self, |scene, name| scene.task_at(format!("{dir}/{name}"), "exit 0"))
    }

    /// An executable shell script with the story's functions, which logs nothing by itself.
    pub(crate) fn script(self, path: impl AsRef<Path>, body: &str) -> Self {
        let story = self.path("story.sh").to_str().unwrap().replace('\'', "'\\''");
        let text = format!("#!/bin/sh\n. '{story}'\n{body}\n");
        self.file(&path, text).mode(path, 0o755)
    }

    /// A hook that keeps each object it is called with in `$SCENE/hooks`; see [`Outcome::hook_calls`].
    pub(crate) fn hook_keeper(self, path: &str, then: &str) -> Self {
        let keep = "for last; do :; done\nprintf '%s\\n' \"$last\" >>\"$SCENE/hooks\"\n";
        self.script(path, &format!("{keep}{then}"))
    }

    pub(crate) fn file(self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, content);
        set_mode(&path, 0o644);
        self
    }

    /// The probe itself at another place, for whoever may not go to where it is.
    pub(crate) fn copy_of_probe(self, path: impl AsRef<Path>) -> Self {
        let bytes = fs::read(probe_binary()).unwrap();
        self.file(&path, bytes).mode(path, 0o755)
    }

    pub(crate) fn dir(self, path: impl AsRef<Path>) -> Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    pub(crate) fn mode(self, path: impl AsRef<Path>, mode: u32) -> Self {
        set_mode(&self.path(path), mode);
        self
    }

    /// A symbolic link at `path` (relative to the scene) with exactly this target.
    pub(crate) fn link(self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
        self
    }

    pub(crate) fn owner(self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Self {
        std::os::unix::fs::chown(self.path(path), Some(uid), Some(gid)).unwrap();
        self
    }

    // ---- configuration -----------------------------------------------------------------------

    /// More configuration. After all of it a scene adds, in a `[runner]` section of its own and only
    /// where they are not set, `task_dir = tasks.d`, `sleep_time = 0` and `retry_jitter = 0`: the
    /// lines of the test keep their numbers.
    pub(crate) fn config(mut self, text: &str) -> Self {
        match &mut self.config {
            Config::Text(all) => all.push_str(text),
            other => *other = Config::Text(text.to_owned()),
        }
        self
    }

    /// Exactly this configuration.
    pub(crate) fn raw_config(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.config = Config::Bytes(bytes.into());
        self
    }

    /// No configuration file, and no `-c`.
    pub(crate) fn no_config(mut self) -> Self {
        self.config = Config::None;
        self
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("runner.cfg")
    }

    // ---- surroundings ------------------------------------------------------------------------

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The program is started by this command.
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The program is executed by a probe that does these actions first.
    pub(crate) fn through(mut self, actions: &[&str]) -> Self {
        self.through.extend(actions.iter().map(|&a| a.to_owned()));
        self
    }

    pub(crate) fn stdout_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdout = Some(path.into());
        self
    }

    pub(crate) fn stderr_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.stderr = Some(path.into());
        self
    }

    /// The working directory of the program, relative to the scene.
    pub(crate) fn working_directory(mut self, path: impl AsRef<Path>) -> Self {
        self.directory = Some(self.path(path));
        self
    }

    // ---- running -----------------------------------------------------------------------------

    /// Runs `runner -c runner.cfg ARGS` (no `-c` if ARGS have one) and waits for its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).finish()
    }

    /// The same with one JSON object a line on stderr; see [`Outcome::events`].
    #[track_caller]
    pub(crate) fn run_logged(&self, args: &[&str]) -> Outcome {
        self.start_logged(args).finish()
    }

    #[track_caller]
    pub(crate) fn start_logged(&self, args: &[&str]) -> Running {
        let all: Vec<&str> = ["-v", "--log-format", "json"].iter().chain(args).copied().collect();
        self.start(&all)
    }

    #[track_caller]
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_program(runner_binary(), args)
    }

    /// Runs `runner-config -c runner.cfg ARGS`.
    #[track_caller]
    pub(crate) fn runner_config(&self, args: &[&str]) -> Outcome {
        self.start_program(runner_config_binary(), args).finish()
    }

    #[track_caller]
    fn start_program(&self, program: &Path, args: &[&str]) -> Running {
        let number = self.place.starts.get() + 1;
        self.place.starts.set(number);
        let (stdout, stderr) = (self.path(format!("stdout.{number}")), self.path(format!("stderr.{number}")));
        let mut words: Vec<OsString> = self.under.iter().map(OsString::from).collect();
        if !self.through.is_empty() {
            words.push(probe_binary().into());
            words.extend(self.through.iter().map(OsString::from));
            words.push("exec".into());
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let has_config = args.iter().any(|a| ["-c", "--config"].contains(a) || a.starts_with("--config="));
        if self.write_config() && !has_config {
            command.arg("-c").arg(self.config_file());
        }
        command.args(args);
        self.surround(&mut command, &stderr);
        command.stdin(File::open(self.path("stdin")).unwrap());
        command.stdout(output(self.stdout.as_deref(), &stdout)).stderr(output(self.stderr.as_deref(), &stderr));
        let (child, begun) = spawn(&mut command).unwrap();
        Running::new(child, begun, Rc::clone(&self.place), stdout, stderr)
    }

    fn surround(&self, command: &mut Command, stderr: &Path) {
        let own = runner_config_binary().parent().unwrap().display();
        command
            .env_clear()
            .env("PATH", format!("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{own}"))
            .env("HOME", &self.place.path)
            .env("TZ", "UTC")
            .env("LANG", "C.UTF-8")
            .env("SCENE", &self.place.path)
            // No test leaves a record in the machine's own state.
            .env("STATE_DIRECTORY", self.place.path.join(STATE_DIR))
            .env("PROBE", probe_binary())
            // What a task calls when it wants the program itself, and what it reads the program's log from.
            .env("SUT", runner_binary())
            .env("SUT_LOG", stderr)
            .current_dir(self.directory.as_deref().unwrap_or(&self.place.path));
        for (name, value) in &self.environment {
            command.env(name, value);
        }
    }

    /// Writes runner.cfg if there is to be one.
    fn write_config(&self) -> bool {
        let bytes = match &self.config {
            Config::None => return false,
            Config::Bytes(bytes) => bytes.clone(),
            Config::Text(text) => with_defaults(text).into_bytes(),
        };
        let file = self.config_file();
        // Written once: a test may have changed owner or mode in between.
        if fs::read(&file).ok().as_ref() != Some(&bytes) {
            let mode = fs::metadata(&file).map_or(0o644, |m| m.permissions().mode());
            write(&file, bytes);
            set_mode(&file, mode & 0o777);
        }
        true
    }
}

fn with_defaults(text: &str) -> String {
    let mut section = "";
    let mut set = Vec::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.split(']').next().unwrap_or_default();
        } else if section == "runner" && !line.starts_with([' ', '\t', '#', ';']) {
            set.push(line.split(['=', ':']).next().unwrap_or_default().trim());
        }
    }
    let missing: String = [("task_dir", "tasks.d"), ("sleep_time", "0"), ("retry_jitter", "0")]
        .iter()
        .filter(|(key, _)| !set.contains(key))
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    if missing.is_empty() {
        return text.to_owned();
    }
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}[runner]\n{missing}")
}

fn output(instead: Option<&Path>, file: &Path) -> Stdio {
    let path = instead.unwrap_or(file);
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap().into()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
