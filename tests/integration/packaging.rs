//! The hand-written parts of the package say what the program says: every key with its default, every exit code and every
//! variable. What is made from the definition of the command line cannot fall behind; `.ci/run` makes it and reads it.

use std::fs;
use std::path::Path;

use runner::config::keys::{ALL, Scope};

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
    }
}

#[test]
fn the_installed_configuration_has_every_key_of_its_section_as_a_comment() {
    let file = read("debian/runner.cfg");
    for key in ALL.iter().filter(|key| key.scope.covers(Scope::RUNNER)) {
        let line = match key.name {
            "task_dir" => "task_dir = tasks.d".to_owned(),
            name => format!("; {name} = {}", key.default).trim_end().to_owned(),
        };
        assert!(file.lines().any(|found| found.trim_end() == line), "debian/runner.cfg has no line `{line}`");
    }
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
