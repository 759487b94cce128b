//! The hand-written parts of the package say what the program says: every key with its default, every exit code and every
//! variable. What is made from the definition of the command line cannot fall behind; `.ci/run` makes it and reads it.

use std::fs;
use std::path::Path;

use runner::config::keys::{ALL, KeyInfo, Scope};

use crate::docs::places_of;
use crate::scene::Scene;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_manual_of_the_configuration_has_every_key_with_its_default() {
    let page = read("docs/man/runner.cfg.5");
    for key in ALL {
        let entry = page.split("\n.TP\n").find(|entry| entry.starts_with(&format!("\\fB{}\\fR = ", key.name)));
        let entry = entry.unwrap_or_else(|| panic!("docs/man/runner.cfg.5 has no entry {}", key.name));
        let default = match key.default {
            "" => "No default.".to_owned(),
            text => format!("Default: \\fB{}\\fR.", text.replace('-', "\\-")),
        };
        assert!(entry.contains(&default), "docs/man/runner.cfg.5: {} does not say `{default}`", key.name);
        let sections = format!("In: {}.", places_of(key).join(", "));
        assert!(entry.contains(&sections), "docs/man/runner.cfg.5: {} does not say `{sections}`", key.name);
    }
}

#[test]
fn the_manual_of_the_configuration_has_every_section_and_every_kind_of_rule() {
    let page = read("docs/man/runner.cfg.5").replace(['"', '\\'], "");
    let (_, sections) = page.split_once(".SH SECTIONS\n").unwrap();
    let (sections, _) = sections.split_once("\n.SH ").unwrap();
    for section in ["[runner]", "[task:", "[chain: NAME ]", "[queue: NAME ]", "[daemon]", "[metrics]", "[liveness]", "[env]", "[DEFAULT]"] {
        assert!(sections.contains(section), "docs/man/runner.cfg.5: SECTIONS has no {section}");
    }
    let (_, rules) = page.split_once(".SH SCHEDULES\n").unwrap();
    let (rules, _) = rules.split_once("\n.SH ").unwrap();
    for rule in ["minute hour day-of-month month weekday", "mon..fri", "17:30", "@hourly", "@annually", "@reboot", "every", "mon#1", "LW"] {
        assert!(rules.contains(rule), "docs/man/runner.cfg.5: SCHEDULES has no {rule}");
    }
}

/// Whoever puts another address in has two lines to change.
#[test]
fn the_maintainer_is_one_and_the_same_everywhere() {
    let control = read("debian/control");
    let maintainer = control.lines().find_map(|line| line.strip_prefix("Maintainer: ")).unwrap();
    let newest = read("debian/changelog").lines().find_map(|line| line.strip_prefix(" -- ").map(str::to_owned)).unwrap();
    assert_eq!(newest.split_once("  ").map(|(by, _)| by), Some(maintainer));
}

/// The parts of the installed configuration, each by the header that it begins with or would begin with.
fn part<'a>(file: &'a str, header: &str) -> Vec<&'a str> {
    let bare = |line: &'a str| line.strip_prefix("; ").unwrap_or(line).trim_end();
    let lines = file.lines().skip_while(|line| bare(line) != header).skip(1);
    lines.take_while(|line| !bare(line).starts_with('[')).collect()
}

#[test]
fn the_installed_configuration_has_every_key_as_a_comment() {
    let file = read("debian/runner.cfg");
    let parts = [
        (Scope::RUNNER, "[runner]", &[("task_dir", "task_dir = tasks.d")][..]),
        (Scope::CHAIN, "[chain:backup]", &[("task_dir", "; task_dir = backup.d"), ("schedule", "; schedule = mon..fri 1:30")][..]),
        (Scope::DAEMON, "[daemon]", &[][..]),
        (Scope::QUEUE, "[queue:mail]", &[("task_dir", "; task_dir = mail.d")][..]),
        (Scope::METRICS, "[metrics]", &[][..]),
        (Scope::LIVENESS, "[liveness]", &[][..]),
    ];
    for (scope, header, shown) in parts {
        let lines = part(&file, header);
        // What [runner] has as well stands there.
        let own = |key: &&&KeyInfo| {
            key.scope.covers(scope) && (scope == Scope::RUNNER || !key.scope.covers(Scope::RUNNER) || key.name == "task_dir")
        };
        for key in ALL.iter().filter(own) {
            let plain = format!("; {} = {}", key.name, key.default);
            let line = shown.iter().find(|(name, _)| *name == key.name).map_or(plain.trim_end(), |(_, line)| *line);
            assert!(lines.iter().any(|found| found.trim_end() == line), "debian/runner.cfg, {header}: no line `{line}`");
        }
    }
}

#[test]
fn the_installed_configuration_is_good_as_it_is_and_with_its_examples() {
    let file = read("debian/runner.cfg");
    let scene = |text: String| {
        Scene::new().tasks(["10-checkout.sh", "5-network.sh"]).tasks_at("backup.d", ["1-a.sh"]).tasks_at("mail.d", ["a"]).raw_config(text)
    };
    scene(file.clone()).run(&["check"]).exits(0);
    // Every example, without the lines that only show a default.
    let example = |line: &str| {
        line.starts_with("; [")
            || ["task_dir", "schedule", "depends_on", "LC_ALL", "GIT_", "max_time = 20min"]
                .iter()
                .any(|key| line.starts_with(&format!("; {key}")))
    };
    let text: String = file.lines().map(|line| format!("{}\n", if example(line) { &line[2..] } else { line })).collect();
    let run = scene(text).run(&["check"]).exits(0);
    assert!(!run.stdout_text().contains("did you mean"), "{run}");
}

#[test]
fn the_versions_are_raised_together() {
    let first = read("debian/changelog").lines().next().unwrap_or_default().to_owned();
    assert!(first.contains(&format!("({})", env!("CARGO_PKG_VERSION"))), "debian/changelog begins with {first}");
}

/// What stands in the first column of a page's tables, between backquotes; docs.rs holds it against the source.
fn first_column(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(cell, _)| cell)
}

#[test]
fn the_manuals_of_the_programs_have_every_exit_code() {
    let page = read("docs/exit-codes.md");
    let (_, codes) = page.split_once("\n## Of `runner`\n").unwrap();
    let (of_runner, of_config) = codes.split_once("\n## Of `runner-config`\n").unwrap();
    for (name, codes) in [("docs/man/runner.1.more", of_runner), ("docs/man/runner-config.1.more", of_config)] {
        let manual = read(name);
        let codes: Vec<_> = first_column(codes).filter(|cell| cell.parse::<u8>().is_ok()).collect();
        assert!(codes.len() > 3, "docs/exit-codes.md: the codes for {name} are {codes:?}");
        for code in codes {
            assert!(manual.contains(&format!("\n.TP\n.B {code}\n")), "{name} has no exit code {code}");
        }
    }
}

#[test]
fn the_manual_of_tasks_has_every_variable() {
    let (page, manual) = (read("docs/environment.md"), read("docs/man/runner-tasks.7"));
    let variables: Vec<_> = first_column(&page).filter(|cell| cell.starts_with("RUNNER_")).collect();
    assert!(variables.len() > 5, "docs/environment.md: {variables:?}");
    for variable in variables {
        let (alone, beside) = (format!(".B {variable}"), format!("\\fB{variable}\\fR"));
        let named = manual.lines().any(|line| line == alone || line.starts_with("\\fB") && line.contains(&beside));
        assert!(named, "docs/man/runner-tasks.7 has no {variable}");
    }
}
