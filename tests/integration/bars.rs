//! Progress bars on a terminal: full, brief, as many as fit, or none.

use crate::scene::{Running, Scene};
use crate::terminal::Terminal;

/// Two tasks side by side that say how far they are, and wait for `go`.
fn scene(terminal: &Terminal) -> Scene {
    let task = |part: u32| {
        format!("play notify 'X_RUNNER_PROGRESS={part}' notify 'STATUS=part {part}' notify-barrier touch said-$me wait-file go")
    };
    Scene::new()
        .config("[runner]\nmax_parallel = 2\n")
        .task("1-first.sh", "exit 0")
        .task("2-left.sh", &task(40))
        .task("2-right.sh", &task(60))
        .stderr_to(terminal.path())
}

/// Waits until something is to be seen, and tells the screen.
fn wait_for(running: &mut Running, terminal: &Terminal, words: &str) -> Vec<String> {
    crate::scene::until(words, || terminal.text().contains(words));
    let lines = terminal.lines();
    std::fs::write(running.path("go"), "").unwrap();
    lines
}

fn line_with<'a>(lines: &'a [String], word: &str) -> &'a str {
    lines.iter().find(|line| line.contains(word) && !line.contains("started")).unwrap_or_else(|| panic!("no {word} in {lines:#?}"))
}

#[test]
fn a_bar_for_each_task_says_how_far_it_is() {
    let terminal = Terminal::new(100, 24);
    let mut running = scene(&terminal).start(&[]);
    running.wait_for_file("said-2-left.sh").wait_for_file("said-2-right.sh");
    crate::scene::until("both", || terminal.text().contains("part 40"));
    let lines = wait_for(&mut running, &terminal, "part 60");
    assert!(line_with(&lines, "part 40").contains("2-left.sh") && line_with(&lines, "part 40").contains("40%"), "{lines:#?}");
    assert!(line_with(&lines, "part 60").contains("60%"), "{lines:#?}");
    running.finish().exits(0);
    assert!(!terminal.text().contains("part 60"), "what has ended has no bar: {}", terminal.text());
    assert!(terminal.all().contains("chain main: done"), "{}", terminal.all());
}

#[test]
fn a_brief_bar_is_one_for_the_whole_chain() {
    let terminal = Terminal::new(120, 24);
    let mut running = scene(&terminal).start(&["--progress", "brief"]);
    running.wait_for_file("said-2-left.sh").wait_for_file("said-2-right.sh");
    crate::scene::until("both", || terminal.text().contains("part 40"));
    let lines = wait_for(&mut running, &terminal, "part 60");
    let line = line_with(&lines, "1/3");
    assert!(line.contains("main") && line.contains("2-left.sh 40% part 40") && line.contains("2-right.sh 60% part 60"), "{lines:#?}");
    // One task is done and two are half done together: two thirds of the bar.
    assert!(line.contains("[=============>      ]"), "{line}");
    running.finish().exits(0);
    assert!(!terminal.text().contains("1/3"), "{}", terminal.text());
}

#[test]
fn where_they_would_fill_the_screen_they_are_brief() {
    let terminal = Terminal::new(100, 3);
    let mut running = scene(&terminal).start(&[]);
    wait_for(&mut running, &terminal, "1/3");
    running.finish().exits(0);
}

#[test]
fn a_chain_that_waits_says_for_which_try() {
    let terminal = Terminal::new(100, 24);
    let scene = Scene::new()
        .config("[runner]\nmax_parallel = 2\nsleep_time = 3600\nmax_tries = 3\n")
        .task("1-a.sh", "exit 1")
        .stderr_to(terminal.path());
    let mut running = scene.start(&["--progress=brief"]);
    crate::scene::until("it waits", || terminal.text().contains("0/1  try 2 in"));
    running.signal(rustix::process::Signal::TERM);
    running.finish().dies_of(rustix::process::Signal::TERM);
}

#[test]
fn without_bars_it_is_in_the_log() {
    let terminal = Terminal::new(100, 24);
    let mut running = scene(&terminal).start(&["--progress", "off"]);
    wait_for(&mut running, &terminal, "2-right.sh: part 60");
    running.finish().exits(0);
    assert!(!terminal.all().contains('['), "{}", terminal.all());
    assert_eq!(terminal.wrapped(), None);
}

#[cfg(feature = "schedule")]
#[test]
fn chains_side_by_side_have_a_brief_bar_each() {
    let terminal = Terminal::new(100, 24);
    let task = "play notify X_RUNNER_PROGRESS=50 notify-barrier touch said-$RUNNER_CHAIN wait-file go";
    let scene = Scene::new()
        .config("[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = b\n")
        .task_at("a/1-a.sh", task)
        .task_at("b/1-b.sh", task)
        .stderr_to(terminal.path());
    let mut running = scene.start(&["--progress=brief", "now"]);
    crate::scene::until("both", || terminal.text().matches("0/1  1-").count() == 2 && terminal.text().matches("50%").count() == 2);
    std::fs::write(running.path("go"), "").unwrap();
    running.wait_for("its end", |running| running.path("said-b").exists());
    running.finish().exits(0);
}

#[test]
fn on_a_narrow_screen_the_bar_gives_way_to_the_words() {
    let terminal = Terminal::new(60, 24);
    let task = "play notify X_RUNNER_PROGRESS=40 notify 'STATUS=copying photos' notify-barrier touch said wait-file go";
    let mut running = Scene::new().config("[runner]\nmax_parallel = 2\n").task("1-a.sh", task).stderr_to(terminal.path()).start(&[]);
    running.wait_for_file("said");
    let lines = wait_for(&mut running, &terminal, "copying photos");
    assert!(line_with(&lines, "copying photos").contains("40%"), "{lines:#?}");
    running.finish().exits(0);
}
