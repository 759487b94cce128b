//! Order: numbers as numbers, the name rule, what is left out and why, links, the same at every width.

use proptest::prelude::*;
use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use crate::scene::{Outcome, Scene};

fn names_of(listed: &Value, key: &str) -> Vec<String> {
    let tasks = listed["tasks"].as_array().unwrap();
    tasks.iter().map(|t| t[key].as_str().unwrap().to_owned()).collect()
}

fn left_out(outcome: &Outcome) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let document = outcome.json();
    let all = document["left_out"].as_array().unwrap();
    all.iter().map(|l| (text(&l["file"]), text(&l["reason"]))).collect()
}

#[test]
fn numbers_order_as_numbers() {
    Scene::new().tasks(["10-a.sh", "2-b.sh", "1-z.sh", "100-c.sh"]).run(&[]).exits(0).ran(["1-z.sh", "2-b.sh", "10-a.sh", "100-c.sh"]);
}

#[test]
fn leading_zeros_are_no_other_number_and_the_bytes_of_the_file_name_decide_then() {
    Scene::new().tasks(["010-a.sh", "9-b.sh", "09-c.sh", "009-d.sh"]).run(&[]).exits(0).ran(["009-d.sh", "09-c.sh", "9-b.sh", "010-a.sh"]);
}

#[test]
fn tasks_without_a_number_come_last_by_the_bytes_of_their_names() {
    Scene::new().tasks(["b.sh", "Z.sh", "30_x.py", "5-late.sh", "é.sh"]).run(&[]).exits(0).ran([
        "5-late.sh",
        "30_x.py",
        "Z.sh",
        "b.sh",
        "é.sh",
    ]);
}

#[test]
fn one_number_orders_by_file_name() {
    Scene::new()
        .tasks(["10-b.sh", "10-a.sh", "10-B.sh", "10-a", "10-a-.sh"])
        .run(&[])
        .exits(0)
        .ran(["10-B.sh", "10-a", "10-a-.sh", "10-a.sh", "10-b.sh"]);
}

#[test]
fn numbers_larger_than_a_machine_word_still_order_as_numbers() {
    Scene::new()
        .tasks(["1000000000000000000000-b.sh", "99999999999999999999-a.sh", "18446744073709551616-c.sh", "3-d.sh"])
        .run(&[])
        .exits(0)
        .ran(["3-d.sh", "18446744073709551616-c.sh", "99999999999999999999-a.sh", "1000000000000000000000-b.sh"]);
}

#[rstest]
#[case("30-buildbot.py", "buildbot")]
#[case("setup-ami.sh", "setup-ami")]
#[case("30_x.py", "30_x")]
#[case("6-foo-bar.v2.py", "foo-bar.v2")]
#[case("12-34-x.sh", "34-x")]
#[case("7-plain", "plain")]
#[case("plain", "plain")]
#[case("x.tar.gz", "x.tar")]
#[case("1-a b.sh", "a b")]
fn a_name_loses_its_number_and_its_last_suffix_and_nothing_else(#[case] file: &str, #[case] name: &str) {
    let listed = Scene::new().task(file, "exit 0").run(&["list", "--json"]).exits(0).json();
    assert_eq!(names_of(&listed, "file"), [file]);
    assert_eq!(names_of(&listed, "name"), [name]);
}

#[rstest]
#[case(".hidden.sh")]
#[case("10-a.sh~")]
#[case("#10-a.sh#")]
#[case("10-a.bak")]
#[case("10-a.sh.orig")]
#[case("10-a.sh.rej")]
#[case(".10-a.sh.swp")]
#[case("10-a.swp")]
#[case("10-a.pyc")]
#[case("10-a.sh.disabled")]
#[case("10-a.sh.dpkg-old")]
#[case("10-a.sh.dpkg-new")]
#[case("10-a.sh.dpkg-dist")]
#[case("10-a.sh.ucf-old")]
#[case("10-a.sh.ucf-dist")]
#[case("10-a.sh.rpmsave")]
#[case("10-a.sh.rpmnew")]
#[case("10-a.sh.rpmorig")]
#[case("10-a.sh,v")]
fn left_overs_are_no_tasks(#[case] file: &str) {
    let scene = Scene::new().task("20-b.sh", "exit 0").task(file, "exit 1");
    scene.run(&[]).exits(0).ran(["20-b.sh"]);
    let listed = scene.run(&["list", "--json"]).exits(0);
    let all = left_out(&listed);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].0, file);
    assert!(!all[0].1.is_empty());
}

#[test]
fn what_only_looks_like_a_left_over_is_a_task() {
    Scene::new().tasks(["1-bak", "2-a.bak.sh", "3-a~b.sh", "4-dpkg-old.sh", "5-README.sh", "README"]).run(&[]).exits(0).ran([
        "1-bak",
        "2-a.bak.sh",
        "3-a~b.sh",
        "4-dpkg-old.sh",
        "5-README.sh",
        "README",
    ]);
}

#[test]
fn directories_and_files_that_are_not_executable_are_left_out() {
    let scene = Scene::new()
        .task("10-a.sh", "exit 0")
        .task("20-plain.sh", "exit 1")
        .mode("tasks.d/20-plain.sh", 0o644)
        .dir("tasks.d/30-directory.sh");
    scene.run(&[]).exits(0).ran(["10-a.sh"]);
    let all = left_out(&scene.run(&["list", "--json"]).exits(0));
    let files: Vec<&str> = all.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["20-plain.sh", "30-directory.sh"]);
    assert!(all[0].1.contains("executable"), "{all:?}");
    assert!(all[1].1.contains("directory"), "{all:?}");
}

#[test]
fn the_halt_task_is_not_a_task() {
    let scene = Scene::new().task("10-a.sh", "exit 0").task("halt.sh", "exit 0");
    scene.run(&[]).exits(0).ran(["10-a.sh"]);
    let all = left_out(&scene.run(&["list", "--json"]).exits(0));
    assert_eq!(all[0].0, "halt.sh");
    assert!(all[0].1.contains("halt"), "{all:?}");
}

#[test]
fn under_an_interpreter_every_file_is_a_task_but_a_readme() {
    let scene = Scene::new()
        .config("[runner]\ninterpreter = /bin/sh\n")
        .task("10-a.sh", "exit 0")
        .task("20-plain.sh", "exit 0")
        .mode("tasks.d/20-plain.sh", 0o644)
        .file("tasks.d/README", "read me")
        .file("tasks.d/README.md", "read me")
        .dir("tasks.d/30-directory");
    scene.run(&[]).exits(0).ran(["10-a.sh", "20-plain.sh"]);
    let all = left_out(&scene.run(&["list", "--json"]).exits(0));
    let files: Vec<&str> = all.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["30-directory", "README", "README.md"]);
}

#[test]
fn an_interpreter_of_one_task_makes_only_that_file_a_task() {
    Scene::new()
        .config("[task:plain]\ninterpreter = /bin/sh\n")
        .task("20-plain.sh", "exit 0")
        .mode("tasks.d/20-plain.sh", 0o644)
        .task("30-other.sh", "exit 0")
        .mode("tasks.d/30-other.sh", 0o644)
        .run(&[])
        .exits(0)
        .ran(["20-plain.sh"]);
}

#[test]
fn links_are_followed_and_named_by_the_link() {
    Scene::new()
        .task_at("elsewhere/99-real.sh", "exit 0")
        .link("tasks.d/5-linked.sh", "../elsewhere/99-real.sh")
        .task("10-a.sh", "exit 0")
        .dir("elsewhere/directory")
        .link("tasks.d/1-directory", "../elsewhere/directory")
        .link("tasks.d/2-dangling.sh", "../elsewhere/nowhere.sh")
        .run(&[])
        .exits(0)
        .ran(["5-linked.sh", "10-a.sh"]);
}

#[test]
fn the_task_directory_may_be_a_link() {
    Scene::new()
        .config("[runner]\ntask_dir = linked\n")
        .task("10-a.sh", "exit 0")
        .link("linked", "tasks.d")
        .run(&[])
        .exits(0)
        .ran(["10-a.sh"]);
}

#[test]
fn a_pipe_in_the_task_directory_is_never_opened() {
    let scene = Scene::new().config("[runner]\ninterpreter = /bin/sh\n").task("10-a.sh", "exit 0");
    mknodat(CWD, scene.path("tasks.d/5-pipe"), FileType::Fifo, Mode::from_raw_mode(0o755), 0).unwrap();
    scene.run(&[]).exits(0).ran(["10-a.sh"]).quicker_than(10);
}

#[test]
fn an_empty_directory_is_done_with_a_warning() {
    Scene::new().run_logged(&[]).exits(0).warns();
}

#[test]
fn a_directory_of_left_overs_only_is_done_with_a_warning() {
    Scene::new().task("10-a.sh~", "exit 1").run_logged(&[]).exits(0).ran_nothing().warns();
}

#[test]
fn any_file_name_runs() {
    Scene::new()
        .tasks(["10-a b.sh", "20-it's \"q\".sh", "30-$(touch x).sh", "40-*.sh", "50-a\\b.sh", "-n", "60-%s;.sh"])
        .run(&[])
        .exits(0)
        .ran(["10-a b.sh", "20-it's \"q\".sh", "30-$(touch x).sh", "40-*.sh", "50-a\\b.sh", "60-%s;.sh", "-n"])
        .lacks_file("x");
}

#[test]
fn a_file_name_that_is_no_utf_8_runs() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"10-\xff\xfe.sh");
    Scene::new().task(name, "touch \"$SCENE/ran\"").task("20-b.sh", "exit 0").run(&["-v"]).exits(0).has_file("ran");
}

#[rstest]
#[case(1)]
#[case(2)]
#[case(4)]
#[case(16)]
fn the_order_is_the_same_at_every_width(#[case] width: usize) {
    let files = ["7-a.sh", "7-b.sh", "7-c.sh", "10-d.sh", "10-e.sh", "x.sh", "y.sh"];
    let scene = Scene::new().config(&format!("[runner]\nmax_parallel = {width}\n")).tasks(files);
    let run = scene.run_logged(&[]).exits(0);
    assert_eq!(run.tasks_of("task_started"), files);
    assert_eq!(names_of(&scene.run(&["list", "--json"]).exits(0).json(), "file"), files);
}

#[rstest]
#[case(1)]
#[case(4)]
fn the_order_with_dependencies_is_the_same_at_every_width(#[case] width: usize) {
    let scene = Scene::new()
        .config(&format!("[runner]\nmax_parallel = {width}\n[a]\ndepends_on = c\n[x]\ndepends_on = y\n"))
        .tasks(["10-a.sh", "20-b.sh", "30-c.sh", "40-d.sh", "x.sh", "y.sh"]);
    let listed = scene.run(&["list", "--json"]).exits(0).json();
    assert_eq!(names_of(&listed, "file"), ["20-b.sh", "30-c.sh", "10-a.sh", "40-d.sh", "y.sh", "x.sh"]);
}

/// What the contract says, written down once more and as simply as possible.
fn expected_order(mut files: Vec<String>) -> Vec<String> {
    files.sort_by_key(|file| {
        let number = file.split_once('-').and_then(|(digits, _)| digits.parse::<u128>().ok());
        (number.is_none(), number, file.clone().into_bytes())
    });
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_set_of_names_is_in_the_contracts_order(
        files in prop::collection::btree_set("(0{0,2}[0-9]{1,3}-)?[a-c_]{1,2}(-[a-b])?(\\.(sh|py))?", 1..12),
    ) {
        let scene = files.iter().fold(Scene::new(), |scene, file| scene.task(file, "exit 0"));
        let listed = scene.run(&["list", "--json"]).exits(0).json();
        prop_assert_eq!(names_of(&listed, "file"), expected_order(files.into_iter().collect()));
    }
}
