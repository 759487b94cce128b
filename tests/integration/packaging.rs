//! The hand-written parts of the package say what the program says: every key with its default.

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
