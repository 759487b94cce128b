//! The power goes while jobs are added and worked: what was said to be done is on disk. Every call that writes is recorded
//! (strace), and played again onto a disk that keeps nothing but what was synced, and of the rest none, all, a part, or
//! any choice of it, the last write torn. After each call the machine that comes up again has to find a sound database
//! with all that was acknowledged before.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use crate::queue::scene;
use crate::scene::{STATE_DIR, Scene, skipped, spawn, succeeds};

/// A call that changes a disk, or that tells somebody something.
#[derive(Debug, Clone)]
enum Call {
    Make(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Write(PathBuf, usize, Vec<u8>),
    Truncate(PathBuf, usize),
    Sync(PathBuf),
    Say(String),
}

/// What was written between single quotes of a trace (strace(1): as C writes it).
fn unquoted(text: &str) -> Vec<u8> {
    let (bytes, mut at, mut out) = (text.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        let octal = |from: usize| bytes[from..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'0'..=b'7')) => {
                let count = octal(at + 1);
                out.push(u8::from_str_radix(&text[at + 1..at + 1 + count], 8).unwrap());
                at += 1 + count;
            }
            (b'\\', Some(letter)) => {
                let known = b"ntvfr".iter().zip(b"\n\t\x0b\x0c\r").find(|(name, _)| *name == letter);
                out.push(known.map_or(*letter, |(_, byte)| *byte));
                at += 2;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// The strings between quotes, and what stands behind the last.
fn quoted(text: &str) -> (Vec<Vec<u8>>, &str) {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find('"') {
        let body = &rest[start + 1..];
        let mut escaped = false;
        let is_end = |letter: char| {
            let end = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            end
        };
        let Some(end) = body.find(is_end) else { break };
        found.push(unquoted(&body[..end]));
        rest = &body[end + 1..];
    }
    (found, rest)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// One line of a trace; nothing for what failed or does not matter.
fn call(line: &str, below: &Path) -> Option<Call> {
    let (name, arguments) = line.split_once('(')?;
    if line.contains(" = -1 ") {
        return None;
    }
    let on = || Some(PathBuf::from(arguments.split_once('<')?.1.split_once('>')?.0));
    let ours = |path: &PathBuf| path.starts_with(below) && !path.to_string_lossy().ends_with("-shm");
    let number =
        |text: &str| text.trim_matches([',', ' ', ')']).split([',', ')']).map(str::trim).find_map(|part| part.parse::<usize>().ok());
    let (strings, rest) = quoted(arguments);
    let call = match name {
        "openat" if rest.contains("O_CREAT") => Call::Make(path_of(strings.first()?)),
        "mkdir" => Call::Make(path_of(strings.first()?)),
        "unlink" => Call::Remove(path_of(strings.first()?)),
        "rename" => Call::Rename(path_of(strings.first()?), path_of(strings.get(1)?)),
        "pwrite64" => Call::Write(on()?, rest.split(',').nth(2).and_then(number)?, strings.into_iter().next()?),
        "ftruncate" => Call::Truncate(on()?, arguments.split(',').nth(1).and_then(number)?),
        "fsync" | "fdatasync" => Call::Sync(on()?),
        "write" => {
            let said = String::from_utf8_lossy(strings.first()?).into_owned();
            return on().filter(|path| path.ends_with("said") || path.ends_with("ran")).map(|_| Call::Say(said));
        }
        _ => return None,
    };
    let path = match &call {
        Call::Make(path)
        | Call::Remove(path)
        | Call::Rename(path, _)
        | Call::Write(path, ..)
        | Call::Truncate(path, _)
        | Call::Sync(path) => path,
        Call::Say(_) => return Some(call),
    };
    ours(path).then_some(call)
}

/// The lines of a trace of several threads, each where it was done.
fn calls(trace: &str, below: &Path) -> Vec<Call> {
    let (mut open, mut found) = (BTreeMap::new(), Vec::new());
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid, begun.to_owned());
        } else if let Some((_, end)) = rest.split_once(" resumed>") {
            found.extend(call(&(open.remove(pid).unwrap_or_default() + end), below));
        } else {
            found.extend(call(rest, below));
        }
    }
    found
}

/// A file: what is on disk for ever, and what was done to it since.
#[derive(Debug, Clone, Default)]
struct File {
    kept: Vec<u8>,
    since: Vec<Call>,
}

/// A disk that keeps what was synced.
#[derive(Debug, Default)]
struct Disk {
    files: Vec<File>,
    /// The names as everybody sees them, and as they are on disk for ever.
    names: BTreeMap<PathBuf, usize>,
    kept: BTreeMap<PathBuf, usize>,
    /// What was done to names since, in its order.
    since: Vec<(PathBuf, Option<usize>)>,
}

fn done_to(content: &mut Vec<u8>, call: &Call, whole: bool) {
    match call {
        Call::Write(_, at, bytes) => {
            // A sector is written or not.
            let bytes = if whole { &bytes[..] } else { &bytes[..bytes.len() / 2 / 512 * 512] };
            if !bytes.is_empty() {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        Call::Truncate(_, length) => content.resize(*length, 0),
        Call::Make(_) | Call::Remove(_) | Call::Rename(..) | Call::Sync(_) | Call::Say(_) => {}
    }
}

impl Disk {
    fn name(&mut self, path: &Path, file: Option<usize>) {
        self.since.push((path.to_owned(), file));
        match file {
            Some(file) => self.names.insert(path.to_owned(), file),
            None => self.names.remove(path),
        };
    }

    fn does(&mut self, call: &Call) {
        match call {
            Call::Make(path) if !self.names.contains_key(path) => {
                self.files.push(File::default());
                self.name(path, Some(self.files.len() - 1));
            }
            Call::Remove(path) => self.name(path, None),
            Call::Rename(from, to) => {
                let file = self.names.get(from).copied();
                self.name(to, file);
                self.name(from, None);
            }
            Call::Write(path, ..) | Call::Truncate(path, _) => {
                let file = self.names[path];
                self.files[file].since.push(call.clone());
            }
            Call::Sync(path) => {
                // Of a directory: the names in it. Whoever syncs a file has not synced its name.
                let inside: Vec<_> = self.since.extract_if(.., |(name, _)| name.parent() == Some(path)).collect();
                for (name, file) in inside {
                    match file {
                        Some(file) => self.kept.insert(name, file),
                        None => self.kept.remove(&name),
                    };
                }
                if let Some(file) = self.names.get(path) {
                    let file = &mut self.files[*file];
                    for call in std::mem::take(&mut file.since) {
                        done_to(&mut file.kept, &call, true);
                    }
                }
            }
            Call::Make(_) | Call::Say(_) => {}
        }
    }

    /// The names and contents that are found when the power comes back. `choice` says which of what was not synced is there.
    fn found(&self, choice: &mut Choice) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut names = self.kept.clone();
        let count = choice.some_of(self.since.len());
        // A journal of names keeps their order.
        for (name, file) in &self.since[..count] {
            match file {
                Some(file) => names.insert(name.clone(), *file),
                None => names.remove(name),
            };
        }
        let content = |file: &File, choice: &mut Choice| {
            let mut content = file.kept.clone();
            let last = choice.some_of(file.since.len());
            for (number, call) in file.since.iter().enumerate() {
                let (there, whole) = match choice {
                    Choice::Any(_) => (choice.next(2) == 0, choice.next(4) != 0),
                    Choice::None | Choice::All => (number < last, true),
                };
                if there {
                    done_to(&mut content, call, whole);
                }
            }
            content
        };
        names.into_iter().map(|(name, file)| (name, content(&self.files[file], choice))).collect()
    }
}

/// What of the unsynced is there.
enum Choice {
    None,
    All,
    /// By chance, and in any order.
    Any(u64),
}

impl Choice {
    fn next(&mut self, below: u64) -> u64 {
        let Self::Any(state) = self else { return 0 };
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    fn some_of(&mut self, count: usize) -> usize {
        match self {
            Self::None => 0,
            Self::All => count,
            Self::Any(_) => usize::try_from(self.next(count as u64 + 1)).unwrap(),
        }
    }
}

/// What somebody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// A job was added.
    Added(i64),
    /// An attempt of a job has begun.
    Begun(i64, i64),
    /// The run of a slot has begun.
    Slot,
}

impl Told {
    fn of(said: &str) -> Option<Self> {
        let words: Vec<&str> = said.split_whitespace().collect();
        match words[..] {
            ["slot"] => Some(Self::Slot),
            [job, attempt] => Some(Self::Begun(job.parse().ok()?, attempt.parse().ok()?)),
            [id] => Some(Self::Added(id.parse().ok()?)),
            _ => None,
        }
    }

    fn question(self) -> String {
        match self {
            Self::Added(id) => format!("SELECT count(*) FROM jobs WHERE id = {id}"),
            Self::Begun(id, attempt) => format!("SELECT count(*) FROM jobs WHERE id = {id} AND attempts >= {attempt}"),
            Self::Slot => "SELECT count(*) FROM slots".to_owned(),
        }
    }
}

/// The machine comes up again, and the database is opened.
fn is_sound(state: &BTreeMap<PathBuf, Vec<u8>>, told: &[Told], database: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let own = database.parent().unwrap();
    for (name, content) in state.iter().filter(|(name, _)| name.parent() == Some(own)) {
        // The directory itself has to be there.
        if state.contains_key(own) {
            fs::write(dir.path().join(name.file_name().unwrap()), content).unwrap();
        }
    }
    let check = || -> rusqlite::Result<Option<Told>> {
        let connection = Connection::open(dir.path().join(database.file_name().unwrap()))?;
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        assert_eq!(sound, "ok");
        for one in told {
            let count: i64 = connection.query_row(&one.question(), [], |row| row.get(0))?;
            if count == 0 {
                return Ok(Some(*one));
            }
        }
        Ok(None)
    };
    match check() {
        Ok(None) => Ok(()),
        Ok(Some(lost)) => Err(format!("{lost:?} is lost")),
        Err(error) => Err(format!("{error}; told {told:?}")),
    }
}

/// Runs a command under strace; its calls.
fn recorded(scene: &Scene, args: &[&str]) -> Vec<Call> {
    let trace = scene.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "20000", "-e", "signal=none", "-e"]);
    strace.arg("trace=openat,mkdir,unlink,rename,write,pwrite64,ftruncate,fsync,fdatasync,pwritev,writev,fallocate").arg("-o").arg(&trace);
    strace.arg(crate::scene::runner_binary()).arg("-c").arg(scene.config_file()).args(args);
    strace.env("STATE_DIRECTORY", scene.path(STATE_DIR)).env("SCENE", scene.root());
    let said = fs::File::create(scene.path("said")).unwrap();
    let ended = spawn(strace.stdout(said).stderr(fs::File::create(scene.path("cried")).unwrap())).unwrap().0.wait().unwrap();
    assert!(ended.success(), "{args:?}: {}", fs::read_to_string(scene.path("cried")).unwrap());
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let odd = |line: &&str| line.contains(STATE_DIR) && ["pwritev(", "writev(", "fallocate("].iter().any(|call| line.contains(call));
    assert!(text.lines().find(odd).is_none(), "a call nobody plays again");
    calls(&text, scene.root())
}

/// Plays the calls, and cuts the power after each.
fn survives(calls: &[Call], database: &Path) -> usize {
    let (mut disk, mut told, mut cuts) = (Disk::default(), Vec::new(), 0);
    // The directory above was there before.
    disk.does(&Call::Make(database.parent().unwrap().parent().unwrap().to_owned()));
    for (number, call) in calls.iter().enumerate() {
        disk.does(call);
        match call {
            Call::Say(said) => told.extend(said.lines().filter_map(Told::of)),
            // What comes between two of these is among the choices of the second.
            Call::Write(..) if matches!(calls.get(number + 1), Some(Call::Write(..))) && number % 7 != 0 => continue,
            Call::Make(_) | Call::Remove(_) | Call::Rename(..) | Call::Write(..) | Call::Truncate(..) | Call::Sync(_) => {}
        }
        let seed = number as u64 * 31;
        for mut choice in [Choice::None, Choice::All, Choice::Any(seed + 1), Choice::Any(seed + 2)] {
            let found = disk.found(&mut choice);
            if let Err(why) = is_sound(&found, &told, database) {
                panic!("the power went after call {number} of {}, {call:.200?}: {why}", calls.len());
            }
            cuts += 1;
        }
    }
    cuts
}

fn strace_or_skipped() -> bool {
    let there = succeeds(Command::new("strace").arg("-V"));
    if !there {
        skipped("strace is not installed");
    }
    there
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    if !strace_or_skipped() {
        return;
    }
    let scene = scene().script("tasks.d/a.sh", "echo \"$RUNNER_JOB_ID $RUNNER_TRY\" >>\"$SCENE/ran\"");
    let mut calls = Vec::new();
    // Writes the configuration down, and no state.
    scene.run(&["check"]);
    let enqueue: &[&str] = &["enqueue", "a.sh"];
    let work: &[&str] = &["work", "--drain", "--jobs", "2"];
    // The first makes the file; the worker, as the last to close it, carries the journal over.
    for command in [enqueue, enqueue, enqueue, work, enqueue, enqueue, &["queue", "prune"], enqueue, work] {
        calls.extend(recorded(&scene, command));
    }
    let count = |is: fn(&Call) -> bool| calls.iter().filter(|call| is(call)).count();
    assert!(count(|call| matches!(call, Call::Say(_))) >= 12, "six jobs added, and six begun");
    assert!(count(|call| matches!(call, Call::Sync(_))) >= 12);
    let cuts = survives(&calls, &scene.path(STATE_DIR).join("runner.db"));
    assert!(cuts > 200, "{cuts}");
}

#[test]
fn a_state_that_a_worker_has_made_is_there_as_well() {
    if !strace_or_skipped() {
        return;
    }
    let scene = scene().script("tasks.d/a.sh", "echo \"$RUNNER_JOB_ID $RUNNER_TRY\" >>\"$SCENE/ran\"");
    scene.run(&["check"]);
    let mut calls = Vec::new();
    for command in [&["work", "--drain"][..], &["enqueue", "a.sh"], &["work", "--drain"]] {
        calls.extend(recorded(&scene, command));
    }
    assert!(calls.iter().any(|call| matches!(call, Call::Say(said) if said == "1\n")), "one job was added");
    survives(&calls, &scene.path(STATE_DIR).join("runner.db"));
}

#[test]
fn a_slot_is_on_disk_before_its_run_begins() {
    if !strace_or_skipped() {
        return;
    }
    let chain = "[chain:often]\ntask_dir = often.d\nschedule = * * * * *\n";
    let scene = Scene::new().config(chain).script("often.d/a.sh", "echo slot >>\"$SCENE/ran\"");
    scene.run(&["check"]);
    let calls = recorded(&scene, &["tick"]);
    assert!(calls.iter().any(|call| matches!(call, Call::Say(said) if said == "slot\n")));
    survives(&calls, &scene.path(STATE_DIR).join("runner.db"));
}
