//! The examples of README.md and docs/: what a page shows is what the programs do. A fenced block says by
//! its info string what is done with it:
//!
//! - `console`: each line that begins with `$ ` is given to `sh`, in a directory that is fresh for each block and
//!   holds runner.cfg and example-tasks.d; both programs are found through PATH. A line that begins with `> ` goes on
//!   with the command above it. What stands below is what comes out, standard output and standard error together. If
//!   the last line of it is `[exit N]` the command exits so, else with 0. `...` is any part of a line, alone on a line
//!   any number of lines. The `ini` block above it on its page is there as page.cfg. Times, lengths of time and run ids are not compared, and the directory is called /srv/runner.
//! - `console again`: the same in the directory in which the `console` block above it was run, with what that has left.
//! - `console unordered`: the lines that come out are the same, in whatever order.
//! - `ini`: `runner check` finds no error in it; with `refused` behind it, it does. The tasks are those of
//!   example-tasks.d if it names no task_dir; relative task directories that are not there are made, with one task each.
//! - `json`: one JSON value or several; `sh`: `sh -n` takes it; `text`, `systemd`, `sql`, `python`: nothing.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus};

use runner::cli::exit::Exit;
use runner::config::keys::{self, KeyInfo, Scope};

use crate::scene::{STATE_DIR, Scene, runner_binary, skipped, spawn, succeeds};

/// What the directory of a block is called in the pages.
const HOME: &str = "/srv/runner";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// README.md and every page of docs/, by name.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(repository().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<_> = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

/// A scene with the example chain, whose tasks write to `state` below it.
pub(crate) fn example_scene() -> Scene {
    let scene = Scene::new();
    let config = page("runner.cfg");
    let here = format!("\nwork_dir = {}\n", scene.path("state").display());
    assert!(config.contains("\nwork_dir =\n"), "runner.cfg has no line `work_dir =` any more");
    let config = config.replace("\nwork_dir =\n", &here);
    let scene = scene.file("runner.cfg", &config).raw_config(config);
    copy_tree(scene, Path::new("example-tasks.d"))
}

fn copy_tree(scene: Scene, dir: &Path) -> Scene {
    use std::os::unix::fs::PermissionsExt;
    let mut entries: Vec<_> = fs::read_dir(repository().join(dir)).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.into_iter().fold(scene, |scene, entry| {
        let path = dir.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            return copy_tree(scene, &path);
        }
        let executable = entry.metadata().unwrap().permissions().mode() & 0o111 != 0;
        scene.file(&path, fs::read(entry.path()).unwrap()).mode(&path, if executable { 0o755 } else { 0o644 })
    })
}

// ---- blocks ------------------------------------------------------------------------------------

struct Block {
    /// `page:line` of its fence.
    place: String,
    info: String,
    lines: Vec<String>,
}

impl Block {
    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn blocks(name: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, number) in page(name).lines().zip(1..) {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => {
                open = Some(Block { place: format!("{name}:{number}"), info: info.to_owned(), lines: Vec::new() });
            }
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: the last fence is not closed");
    blocks
}

#[test]
fn every_example_is_true() {
    let pages = pages();
    // Side by side: an example that waits between two tries lets the others go on.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = pages.iter().map(|name| scope.spawn(|| judge_page(name))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn judge_page(name: &str) -> Vec<String> {
    let blocks = blocks(name);
    let config_above = |at: usize| blocks[..at].iter().rfind(|block| block.info == "ini");
    let mut scene = None;
    blocks.iter().enumerate().filter_map(|(at, block)| judge(block, config_above(at), &mut scene).err()).collect()
}

/// `scene` is that of the last `console` block of the page.
fn judge(block: &Block, above: Option<&Block>, scene: &mut Option<Scene>) -> Result<(), String> {
    let fresh = || above.iter().fold(example_scene(), |scene, above| with_config(scene, "page.cfg", above));
    match block.info.as_str() {
        "console" => judge_console(block, scene.insert(fresh()), true),
        "console unordered" => judge_console(block, scene.insert(fresh()), false),
        "console again" => judge_console(block, scene.get_or_insert_with(fresh), true),
        "ini" => judge_config(block, 0),
        "ini refused" => judge_config(block, 78),
        "json" => match serde_json::Deserializer::from_str(&block.text()).into_iter::<serde_json::Value>().find_map(Result::err) {
            Some(error) => Err(format!("{}: {error}", block.place)),
            None => Ok(()),
        },
        "sh" => judge_script(block),
        // tests/integration/queue.rs runs what is Python.
        "text" | "systemd" | "sql" | "python" => Ok(()),
        info => Err(format!("{}: a block that is `{info}` is not understood", block.place)),
    }
}

// ---- console -----------------------------------------------------------------------------------

struct Call {
    command: String,
    expected: Vec<String>,
    code: i32,
}

fn calls(block: &Block) -> Result<Vec<Call>, String> {
    let mut calls: Vec<Call> = Vec::new();
    for line in &block.lines {
        // No editor leaves the blank of an empty line alone.
        let more = if line == ">" { Some("") } else { line.strip_prefix("> ") };
        match (line.strip_prefix("$ "), more, calls.last_mut()) {
            (Some(command), _, _) => calls.push(Call { command: command.to_owned(), expected: Vec::new(), code: 0 }),
            (None, Some(more), Some(call)) if call.expected.is_empty() => call.command.push_str(&format!("\n{more}")),
            (None, _, Some(call)) => call.expected.push(line.clone()),
            (None, _, None) => return Err(format!("{}: it begins with no command", block.place)),
        }
    }
    for call in &mut calls {
        let code = call.expected.last().and_then(|line| line.strip_prefix("[exit ")?.strip_suffix(']')?.parse().ok());
        if let Some(code) = code {
            call.code = code;
            call.expected.pop();
        }
    }
    Ok(calls)
}

fn judge_console(block: &Block, scene: &Scene, ordered: bool) -> Result<(), String> {
    let calls = calls(block)?;
    let needs = ["history", "show", "now", "tick", "schedule", "status", "why", "daemon", "import", "enqueue", "work", "queue"];
    let of_state = |call: &Call| call.command.split(' ').any(|word| needs.contains(&word));
    if !cfg!(all(feature = "schedule", feature = "store")) && calls.iter().any(of_state) {
        return Ok(());
    }
    if block.text().contains("checkout is at") && !succeeds(Command::new("git").arg("--version")) {
        skipped(&format!("{}: git is not installed", block.place));
        return Ok(());
    }
    for (call, number) in calls.iter().zip(1..) {
        let (status, output) = shell(scene, &call.command, number);
        let actual: Vec<String> = output.lines().map(mask).collect();
        let expected: Vec<String> = call.expected.iter().map(|line| mask(line)).collect();
        let same = if ordered { fits(&expected, &actual) } else { fits_in_any_order(&expected, &actual) };
        if !same || status.code() != Some(call.code) {
            let command = &call.command;
            return Err(format!("{}: `{command}` ended with {status}, and this came out:\n{output}", block.place));
        }
    }
    Ok(())
}

fn shell(scene: &Scene, command: &str, number: u32) -> (ExitStatus, String) {
    let file = scene.path(format!("output.{number}"));
    let output = File::create(&file).unwrap();
    let programs = runner_binary().parent().unwrap().display();
    let mut shell = Command::new("timeout");
    shell
        .args(["20", "sh", "-c", command])
        .env_clear()
        .env("PATH", format!("{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env("HOME", scene.root())
        .env("TZ", "UTC")
        .env("STATE_DIRECTORY", scene.path(STATE_DIR))
        .current_dir(scene.root())
        .stdin(File::open("/dev/null").unwrap())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let status = spawn(&mut shell).unwrap().0.wait().unwrap();
    let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).replace(scene.root().to_str().unwrap(), HOME);
    (status, text)
}

/// The line without what differs from run to run.
fn mask(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let at_word = !shown.ends_with(|c: char| c.is_ascii_alphanumeric());
        let found = if at_word { time(rest).or_else(|| run_id(rest)).or_else(|| length(rest)).or_else(|| millis(rest)) } else { None };
        let (word, taken) = found.unwrap_or(("", first.len_utf8()));
        shown.push_str(if found.is_some() { word } else { &rest[..taken] });
        rest = &rest[taken..];
    }
    shown
}

type Found = Option<(&'static str, usize)>;

/// Whether `text` begins like `pattern`, in which 0 is any digit and f any hexadecimal one.
fn begins_like(text: &str, pattern: &str) -> bool {
    let like = |(byte, model): (u8, u8)| match model {
        b'0' => byte.is_ascii_digit(),
        b'f' => byte.is_ascii_hexdigit(),
        model => byte == model,
    };
    text.len() >= pattern.len() && text.bytes().zip(pattern.bytes()).all(like)
}

fn time(text: &str) -> Found {
    const TIME: &str = "0000-00-00T00:00:00.000+00:00";
    begins_like(text, TIME).then_some(("<time>", TIME.len()))
}

fn run_id(text: &str) -> Found {
    const RUN: &str = "ffffffff-0-ffffffffffffffff";
    begins_like(text, RUN).then_some(("<run>", RUN.len()))
}

fn length(text: &str) -> Found {
    ["0.000 s", "00.0 s"].iter().find(|model| begins_like(text, model)).map(|model| ("<length>", model.len()))
}

fn millis(text: &str) -> Found {
    let name = "duration_ms\":";
    let digits = text.strip_prefix(name)?.bytes().take_while(u8::is_ascii_digit).count();
    Some(("<millis>", name.len() + digits))
}

/// Whether the lines are as expected; `...` alone on a line is any number of them.
fn fits(expected: &[String], actual: &[String]) -> bool {
    match (expected.split_first(), actual.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((any, more)), _) if any == "..." => (0..=actual.len()).any(|skipped| fits(more, &actual[skipped..])),
        (Some(_), None) => false,
        (Some((wanted, more)), Some((line, rest))) => line_fits(wanted, line) && fits(more, rest),
    }
}

fn fits_in_any_order(expected: &[String], actual: &[String]) -> bool {
    let Some((line, rest)) = actual.split_first() else { return expected.is_empty() };
    let one_of = |at: &usize| line_fits(&expected[*at], line);
    (0..expected.len()).filter(one_of).any(|at| fits_in_any_order(&[&expected[..at], &expected[at + 1..]].concat(), rest))
}

/// Whether a line is as expected; `...` is any part of it.
fn line_fits(expected: &str, line: &str) -> bool {
    match expected.split_once("...") {
        None => expected == line,
        Some((before, more)) => line
            .strip_prefix(before)
            .is_some_and(|rest| rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| line_fits(more, &rest[at..]))),
    }
}

#[test]
fn what_comes_out_is_compared_as_the_pages_say() {
    let lines = |text: &str| text.lines().map(mask).collect::<Vec<_>>();
    let shown = lines("2026-11-21T06:34:46.117+00:00 info    a.sh: ok in 0.004 s\n...\nrun 4062abca-0-491c45375bfc07b4, 12.5 s...\n");
    let came = lines("1999-01-01T00:00:00.000+01:00 info    a.sh: ok in 3.999 s\nx\ny\nrun 00000000-1-ffffffffffffffff, 99.9 s and more");
    assert!(fits(&shown, &came) && !fits(&shown[..1], &came) && !fits(&came, &shown));
    let (forth, back) = (lines("a\nb...\n"), lines("bb\na"));
    assert!(fits_in_any_order(&forth, &back) && !fits_in_any_order(&forth, &back[..1]) && !fits(&forth, &back));
}

// ---- configuration, scripts --------------------------------------------------------------------

/// The configuration of a block as a file, and a task in each directory that it names.
fn with_config(scene: Scene, file: &str, block: &Block) -> Scene {
    let dirs = block.lines.iter().filter_map(|line| line.strip_prefix("task_dir = ")).filter(|dir| !dir.starts_with('/'));
    let wanted: Vec<&str> = dirs.filter(|dir| !scene.path(dir).exists()).collect();
    wanted.into_iter().fold(scene.file(file, block.text()), |scene, dir| {
        let task = format!("{dir}/10-task.sh");
        scene.file(&task, "#!/bin/sh\necho \"$RUNNER_TRIGGER\"\n").mode(&task, 0o755)
    })
}

fn judge_config(block: &Block, wanted: i32) -> Result<(), String> {
    let scene = with_config(example_scene(), "block.cfg", block);
    let tasks = if block.text().contains("task_dir") { "" } else { " --set runner.task_dir=example-tasks.d" };
    let (status, output) = shell(&scene, &format!("runner --config block.cfg check{tasks}"), 1);
    if status.code() == Some(wanted) { Ok(()) } else { Err(format!("{}: ended with {status}:\n{output}", block.place)) }
}

fn judge_script(block: &Block) -> Result<(), String> {
    let scene = Scene::new().file("block.sh", block.text());
    let (status, output) = shell(&scene, "sh -n block.sh", 1);
    if status.success() { Ok(()) } else { Err(format!("{}: {output}", block.place)) }
}

// ---- what the pages name -----------------------------------------------------------------------

/// The cells of the rows whose first cell is `name`.
fn rows<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>()).filter(move |cells| cells[0] == name)
}

/// The sections that a key may stand in, as the page and the manual call them.
pub(crate) fn places_of(key: &KeyInfo) -> Vec<&'static str> {
    let sections = [
        (Scope::RUNNER, "runner"),
        (Scope::TASK, "task"),
        (Scope::OLD_TASK, "plain"),
        (Scope::CHAIN, "chain"),
        (Scope::DAEMON, "daemon"),
        (Scope::METRICS, "metrics"),
        (Scope::LIVENESS, "liveness"),
        (Scope::QUEUE, "queue"),
    ];
    sections.iter().filter(|(scope, _)| key.scope.covers(*scope)).map(|(_, word)| *word).collect()
}

#[test]
fn the_configuration_page_has_every_key_with_its_default_and_its_sections() {
    let text = page("docs/configuration.md");
    for key in keys::ALL {
        let default = if key.default.is_empty() { "-".to_owned() } else { format!("`{}`", key.default) };
        let name = format!("`{}`", key.name);
        let found: Vec<_> = rows(&text, &name).collect();
        assert_eq!(found.len(), 1, "docs/configuration.md: one row for {name}");
        assert_eq!(found[0][1..3], [default, places_of(key).join(", ")], "docs/configuration.md: default and sections of {name}");
    }
}

#[test]
fn the_configuration_page_says_where_infinity_is_taken() {
    let text = page("docs/configuration.md");
    let (mut config, mut durations) = (String::new(), Vec::new());
    for key in keys::ALL {
        let name = format!("`{}`", key.name);
        let row = rows(&text, &name).next().unwrap();
        if row[3].starts_with("duration") {
            let section = match row[2].split(", ").next().unwrap() {
                section @ ("runner" | "daemon") => section.to_owned(),
                section => format!("{section}:x"),
            };
            config.push_str(&format!("[{section}]\n{} = infinity\n", key.name));
            durations.push((key.name, row[3].ends_with("or `infinity`")));
        }
    }
    let run = Scene::new().config(&config).run(&["check"]).exits(78);
    for (place, (name, taken)) in durations.iter().enumerate() {
        let refusal = format!("runner.cfg:{}: error: {name} = infinity: expected ", 2 * place + 2);
        assert_eq!(run.stdout_text().contains(&refusal), !taken, "docs/configuration.md: {name}\n{run}");
    }
    assert!(durations.len() > 10, "{durations:?}");
}

#[test]
fn the_page_of_exit_codes_has_every_code() {
    let text = page("docs/exit-codes.md");
    let all = [
        Exit::Done,
        Exit::GaveUp,
        Exit::Halted,
        Exit::NothingLeft,
        Exit::StoppedByTask,
        Exit::Usage,
        Exit::Internal,
        Exit::Io,
        Exit::Refused,
        Exit::Config,
        Exit::LockLost,
    ];
    for exit in all {
        assert!(rows(&text, &format!("`{}`", exit.code())).count() >= 1, "docs/exit-codes.md: {exit:?}, {}", exit.code());
    }
    assert_eq!(Exit::Signal(15).code(), 143);
    assert!(rows(&text, "`128 + N`").count() == 1, "docs/exit-codes.md: signals");
}

/// Every text that stands between `before` and `after` in the program's source.
fn in_source(before: &str, after: char) -> Vec<String> {
    fn collect(dir: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), texts);
            } else {
                let text = fs::read_to_string(entry.path()).unwrap();
                // What the unit tests make up is no part of the program.
                texts.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
            }
        }
    }
    let mut texts = Vec::new();
    collect(&repository().join("src"), &mut texts);
    let pieces = texts.iter().flat_map(|text| text.split(before).skip(1));
    let mut found: Vec<_> = pieces.filter_map(|piece| piece.split_once(after)).map(|(word, _)| word.to_owned()).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn the_pages_name_every_event_and_every_variable() {
    let (logging, environment) = (page("docs/logging.md"), page("docs/environment.md"));
    let (events, variables) = (in_source("event = \"", '"'), in_source("b\"RUNNER_", '"'));
    assert!(events.len() > 5 && variables.len() > 5, "{events:?} {variables:?}");
    for event in events {
        assert!(rows(&logging, &format!("`{event}`")).count() == 1, "docs/logging.md: the event {event}");
    }
    for variable in variables.iter().filter(|variable| variable.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')) {
        assert!(rows(&environment, &format!("`RUNNER_{variable}`")).count() == 1, "docs/environment.md: RUNNER_{variable}");
    }
}

#[test]
fn links_and_source_files_that_the_pages_name_are_there() {
    for name in pages() {
        let (text, dir) = (page(&name), repository().join(&name).parent().unwrap().to_owned());
        for target in text.split("](").skip(1).filter_map(|piece| piece.split_once(')')).map(|(target, _)| target) {
            let file = target.split('#').next().unwrap();
            let outside = target.contains("://") || file.is_empty();
            assert!(outside || dir.join(file).exists(), "{name}: the link to {target} leads nowhere");
        }
        for word in text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("src/") || word.starts_with("tests/")) {
            assert!(repository().join(word).exists(), "{name}: {word} is not there");
        }
    }
    let readme = page("README.md");
    for name in pages().iter().filter(|name| *name != "README.md") {
        assert!(readme.contains(&format!("]({name})")), "README.md does not lead to {name}");
    }
}
