//! Holds the `crate::` paths of the source against the floors of the house: a module uses what is below it, or
//! beside it along an edge drawn here; never up, never in a circle, and no files of a room do so either. A new module needs a floor before it compiles here.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each module; the longest name that fits decides.
///
/// 0 knows nobody; 1 decides only; 2 touches one outside thing; 3 drives; 4 is the command line.
const FLOORS: &[(&str, u8)] = &[
    ("names", 0),
    ("clock", 0),
    ("opinion", 0),
    ("outcome", 0),
    ("event", 0),
    ("retry", 0),
    ("trigger", 0),
    ("status", 0),
    ("metrics", 1),
    ("http", 2),
    ("config", 1),
    ("config::load", 2),
    ("environment", 1),
    ("task::graph", 1),
    ("client", 2),
    ("chain::step", 1),
    ("chain::repeat", 1),
    ("process::state", 1),
    ("schedule", 1),
    ("lock::lease", 1),
    ("lock::owner", 1),
    ("lock::address", 1),
    ("queue", 1),
    ("task", 2),
    ("alarm", 2),
    ("board", 2),
    ("mark", 2),
    ("presence", 2),
    ("plain", 2),
    ("trust", 2),
    ("zone", 2),
    ("process", 2),
    ("notify", 2),
    ("hook", 2),
    ("lock", 2),
    ("output", 2),
    ("report", 2),
    ("store", 2),
    ("push", 2),
    ("chain", 3),
    ("daemon", 3),
    ("worker", 3),
    ("daemon::overlap", 1),
    ("daemon::rounds", 1),
    ("daemon::lead", 1),
    ("cli", 4),
];

/// Edges between modules of one floor, and why each is there.
const BESIDE: &[(&str, &str, &str)] = &[
    ("clock", "names", "a length of time is written in its digits"),
    ("outcome", "clock", "a time-out prints its length"),
    ("outcome", "names", "an outcome names the task whose fault it was"),
    ("event", "names", "an event names its task"),
    ("event", "clock", "an event tells when it was heard"),
    ("event", "opinion", "an event tells what a task thinks of itself"),
    ("opinion", "names", "an opinion is that of a task"),
    ("status", "opinion", "of a run that is done it shows who doubts it"),
    ("event", "outcome", "an event carries how something ended"),
    ("event", "trigger", "an event tells why its run began"),
    ("chain::step", "config", "the rules of a chain are settings"),
    ("chain::step", "task::graph", "a chain runs a plan"),
    ("process::state", "config", "whether to sweep is a setting"),
    ("daemon::overlap", "config", "what to do is a setting"),
    ("daemon::rounds", "schedule", "how much time is left is a rule of the schedule"),
    ("daemon", "chain", "a daemon runs chains"),
    ("daemon", "worker", "a daemon works queues, in its own loop"),
    ("worker", "chain", "an attempt of a job is a try of a task"),
    ("queue", "config", "how long a job waits is a setting"),
    ("environment", "config", "variables come from sections"),
    ("schedule", "config", "`every D` and `+D` are durations as the configuration has them"),
    ("config::load", "task", "a drop-in is left out by the same names as a task"),
    ("task", "trust", "whoever lists a directory sees what trust asks of each file"),
    ("lock", "trust", "a lock that others can write is none"),
    ("lock", "plain", "what stands beside a lock may have been exchanged"),
    ("client", "plain", "a secret is read while somebody waits for its answer"),
    ("push", "plain", "what stands in the place of a file may be something else"),
    ("http", "plain", "a token is read while everybody waits"),
    ("http", "trust", "a token that others can write is none"),
    ("store", "plain", "what stands in the state may have been exchanged"),
    ("mark", "plain", "a mark may have been exchanged"),
    ("trust", "process", "a group's name comes from the user database"),
    ("hook", "process", "a hook is a supervised process"),
    ("notify", "process", "a sender is proved by its place in the process tree"),
    ("store", "process", "a run is told from a later process by the start time of its own"),
    ("lock", "client", "some engines are spoken to over HTTP"),
    ("push", "client", "some servers are told over HTTP"),
    ("lock", "process", "whoever takes over ends what the dead holder left running"),
    ("lock::address", "config", "the texts of a lock are values like others"),
    ("lock::address", "lock::lease", "a TTL is judged by the rules of the lease"),
    ("report", "zone", "a line of the log has a date"),
    ("output", "report", "marked lines go through the sink that never fails"),
];

fn module_of(file: &Path) -> String {
    let path = file.strip_prefix("src").unwrap().with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    parts.join("::")
}

fn floor_of(module: &str) -> Option<(&'static str, u8)> {
    let fits = |name: &&(&str, u8)| module == name.0 || module.starts_with(&format!("{}::", name.0));
    FLOORS.iter().filter(fits).max_by_key(|(name, _)| name.len()).copied()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The modules a file names by `start`, such as `crate::`, braces taken apart one level deep. Tests at its end do not count.
fn used_by(text: &str, start: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let joined: String = lines.collect::<Vec<_>>().join(" ");
    let mut used = BTreeSet::new();
    for part in joined.split(start).skip(1) {
        let (head, list) = match part.split_once('{') {
            Some((head, rest)) if head.trim_end().ends_with("::") => {
                (head.trim_end().trim_end_matches("::"), rest.split('}').next().unwrap_or(""))
            }
            _ => (part, ""),
        };
        let path: String = head.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        let path = path.trim_end_matches(':').to_owned();
        if list.is_empty() {
            used.insert(path);
        } else {
            used.extend(list.split(',').map(|item| format!("{path}::{}", item.trim())));
        }
    }
    used
}

/// Those that are reached from themselves.
fn in_circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    let is_in_one = |start: &&&str| {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = edges[**start].iter().copied().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(edges.get(module).into_iter().flatten());
            }
        }
        reached.contains(**start)
    };
    edges.keys().filter(is_in_one).copied().collect()
}

/// A file can be read after those that it uses. The face of a room (mod.rs) and its files may know each other.
#[test]
fn no_files_name_each_other_in_a_circle() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let files = files.iter().filter(|file| !["mod.rs", "lib.rs", "main.rs", "tests.rs"].iter().any(|name| file.ends_with(name)));
    let modules: BTreeMap<String, &PathBuf> = files.map(|file| (module_of(file), file)).collect();
    let mut edges = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (module, file) in &modules {
        let text = fs::read_to_string(file).unwrap();
        let beside = |path: String| module.rsplit_once("::").map_or_else(|| path.clone(), |(room, _)| format!("{room}::{path}"));
        let used = used_by(&text, "crate::").into_iter().chain(used_by(&text, "super::").into_iter().map(&beside));
        let file_of = |path: String| {
            let of_path = |known: &&String| path == **known || path.starts_with(&format!("{known}::"));
            modules.keys().filter(of_path).max_by_key(|known| known.len()).map(String::as_str)
        };
        edges.insert(module, used.filter_map(file_of).filter(|other| other != module).collect());
    }
    let wrong = in_circles(&edges);
    assert!(edges.len() > 100 && wrong.is_empty(), "these name each other in a circle: {wrong:?}");
}

#[test]
fn nobody_reaches_up_and_nobody_goes_round_in_circles() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    assert!(files.len() > 20, "run from the top of the repository");
    let (mut wrong, mut edges) = (Vec::new(), BTreeMap::<&str, BTreeSet<&str>>::new());
    for file in files.iter().filter(|file| {
        !file.ends_with("lib.rs") && !file.ends_with("main.rs") && !file.starts_with("src/bin") && !file.ends_with("tests.rs")
    }) {
        let module = module_of(file);
        let Some((own, own_floor)) = floor_of(&module) else {
            wrong.push(format!("{} has no floor: add it to FLOORS", file.display()));
            continue;
        };
        for used in used_by(&fs::read_to_string(file).unwrap(), "crate::") {
            let Some((other, floor)) = floor_of(&used) else {
                wrong.push(format!("{}: crate::{used} is on no floor", file.display()));
                continue;
            };
            let drawn = BESIDE.iter().any(|(from, to, _)| *from == own && *to == other);
            if own == other {
                continue;
            }
            edges.entry(own).or_default().insert(other);
            if floor > own_floor {
                wrong.push(format!("{} (floor {own_floor}) reaches up to {other} (floor {floor})", file.display()));
            }
            if floor == own_floor && !drawn {
                wrong.push(format!("{} uses {other} beside it, and no such edge is drawn", file.display()));
            }
        }
    }
    wrong.extend(in_circles(&edges).iter().map(|module| format!("{module} is in a circle")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_one_file_and_wait_timeout_as_well() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    for file in files.iter().filter(|file| !file.ends_with("process/unix.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for word in ["unsafe {", "unsafe fn", "unsafe impl", "wait_timeout"] {
            assert!(!text.contains(word), "{} has `{word}`; it belongs into src/process/unix.rs", file.display());
        }
    }
}

#[test]
fn anyhow_stays_in_the_command_line() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    for file in files.iter().filter(|file| !file.starts_with("src/cli")) {
        assert!(!fs::read_to_string(file).unwrap().contains("anyhow"), "{}", file.display());
    }
}
