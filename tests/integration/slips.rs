//! The usual slips of somebody new, and what is said of them: where it stands, what it is, and the way out.

use rstest::rstest;

use crate::scene::Scene;

fn one() -> Scene {
    Scene::new().tasks(["90-final.py"])
}

// ---- --set --------------------------------------------------------------------------------------

#[test]
fn what_was_typed_wins_over_the_file_by_whichever_name_of_the_task() {
    let scene = Scene::new().task("90-final.py", "say $1").config("[task:90-final.py]\nargs = file\n");
    scene.run(&["-q", "-s", "task:final.args=typed"]).exits(0).logged(["90-final.py 1", "- typed"]);
    scene.run(&["-q", "-s", "task:final.args=--a \"b"]).exits(78).says("command line: --set task:final.args = --a \"b: expected words");
}

#[rstest]
#[case("task:final.umask=999", "--set task:final.umask = 999: expected an octal number")]
#[case("runner.max_tries=x", "--set runner.max_tries = x: expected a whole number")]
#[case("task:final.user=nobdy", "--set task:final.user: there is no user `nobdy`")]
#[case("task:gone.max_time=x", "--set task:gone.max_time = x: expected a duration")]
fn a_value_that_was_typed_is_told_with_its_section_and_key(#[case] typed: &str, #[case] said: &str) {
    one().run(&["-s", typed]).exits(78).says(said).ran_nothing();
}

#[test]
fn a_bad_value_is_an_error_also_where_another_section_is_nearer() {
    let config = "[task:90-final.py]\nmax_time = 5\n[task:final]\nmax_time = soon\n";
    one().config(config).run(&[]).exits(78).says("runner.cfg:4: max_time = soon: expected a duration");
}

// ---- the configuration ---------------------------------------------------------------------------

#[test]
fn a_working_dir_that_is_not_there_is_warned_of_with_its_line() {
    let scene = one().file("plain", "").config("[runner]\nworking_dir = nowhere\n[task:final]\nworking_dir = plain\n");
    let warned = scene.run(&["check"]).exits(0);
    warned.prints("runner.cfg:4: warning: working_dir = ").prints("/plain: it is no directory").prints("0 errors");
    let warned = one().config("[runner]\nworking_dir = nowhere\n").run(&["check"]).exits(0);
    warned.prints("runner.cfg:2: warning: working_dir = ").prints("/nowhere: it is not there").prints("1 warning");
}

#[rstest]
#[case(
    "max_time = 5\n  max_tries = 2\n",
    "max_time = 5\\nmax_tries = 2: expected a duration",
    "an indented line goes on with the value above it"
)]
#[case("max_time = 5 # seconds\n", "max_time = 5 # seconds: expected a duration", "begin a comment there with ` ;`")]
#[case("task_dir = x.d # mine\n", "/x.d # mine cannot be read", "begin a comment there with ` ;`")]
#[case("task_dir = x.d\n  max_tries = 2\n", "/x.d\\nmax_tries = 2 cannot be read", "an indented line goes on with the value above it")]
fn an_indented_key_and_a_comment_behind_a_value_are_explained(#[case] lines: &str, #[case] said: &str, #[case] way_out: &str) {
    let scene = Scene::new().tasks_at("x.d", ["1-a.sh"]).raw_config(format!("[runner]\n{lines}"));
    scene.run(&[]).exits(78).says(said).says(way_out).says("runner.cfg:2: ");
}

#[test]
fn errors_come_in_the_order_of_lines_and_a_circle_has_one() {
    let config =
        "[runner]\nhalt_task =\nmax_tries = x\n[task:a]\ndepends_on = b\n[task:b]\ndepends_on = a\nnice = 99\n[x]\nu = https://a:b@c\n";
    let scene = Scene::new().tasks(["1-a.sh", "2-b.sh"]).config(config);
    let run = scene.run(&["check"]).exits(78);
    let lines: Vec<u32> =
        run.stdout_text().lines().filter_map(|line| line.split_once("runner.cfg:")?.1.split_once(": ")?.0.parse().ok()).collect();
    assert_eq!(lines, [2, 3, 5, 8, 10], "{run}");
    let run = run.prints("runner.cfg:5: error: the dependencies form a circle: 1-a.sh -> 2-b.sh -> 1-a.sh");
    // An empty halt_task is one error: the default one was never asked for.
    run.never_prints("error: the halt task");
}

#[test]
fn an_include_dir_that_is_a_file_is_told_with_its_key_and_line() {
    let scene = one().file("x.cfg", "").config("[runner]\ninclude_dir = x.cfg\n");
    let run = scene.run(&["check", "--json"]).exits(78).says("runner.cfg:2: include_dir = ").says("name a directory");
    assert_eq!(run.json()["error"]["line"], 2, "{run}");
}

#[test]
fn a_halt_task_that_cannot_start_is_told_with_its_line() {
    one().config("[runner]\nhalt_task = /etc/passwd\n").run(&["check"]).prints("runner.cfg:2: warning: the halt task cannot start: ");
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[test]
fn a_section_that_may_be_a_lost_chain_is_a_warning_where_chains_are_fired() {
    let scene = one().config("[chains:slow]\ntask_dir = tasks.d\n[tasks:x]\nnice = 3\n");
    let text = "runner.cfg:1: nothing is read from [chains:slow], it is the user's own section; did you mean [chain:slow]?";
    scene.run(&["-q", "tick"]).exits(0).says(text).never_says("[tasks:x]");
    scene.run(&["-q"]).exits(0).never_says("chains:slow");
    scene.run(&["check"]).exits(0).prints("note: nothing is read from [chains:slow]");
}

// ---- task files ----------------------------------------------------------------------------------

#[rstest]
#[case("\n#!/bin/sh\n", "begins with an empty line: its very first line has to be one such as #!/bin/sh")]
#[case("", "is empty: begin it with a line such as #!/bin/sh")]
#[case("#!/bin/sh\r\necho\r\n", "the interpreter `/bin/sh\\r` in the first line of ")]
#[case("#!/bin/sh\r\necho\r\n", ": the file has DOS line ends (\\r\\n), save it with Unix ones (\\n)")]
fn the_first_line_of_a_task_is_explained(#[case] content: &str, #[case] said: &str) {
    let scene = Scene::new().file("tasks.d/1-a.sh", content).mode("tasks.d/1-a.sh", 0o755).config("[runner]\nmax_tries = 1\n");
    scene.run(&["check"]).exits(0).prints(said);
    scene.run(&[]).exits(1).says(said);
}

// ---- the command line ----------------------------------------------------------------------------

#[rstest]
#[case(&["--bogus"], "unexpected argument '--bogus' found")]
#[case(&["run", "tasks.d", "tasks.d"], "unexpected argument 'tasks.d' found")]
#[case(&["-n", "x", "tasks.d"], "invalid value 'x' for '--times <N>'")]
#[case(&["-n", "-1", "tasks.d"], "invalid value '-1' for '--times <N>'")]
fn an_error_of_the_command_line_is_one_json_document_as_well(#[case] args: &[&str], #[case] said: &str) {
    let run = one().run(&[&["--json"], args].concat()).exits(64).says(said).ran_nothing();
    let error = &run.json()["error"];
    assert_eq!((error["code"].as_u64(), error["line"].as_u64()), (Some(64), None), "{run}");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with(said) && !message.contains("Usage") && !message.contains("--help"), "{run}");
    assert_eq!(one().run(args).exits(64).says(said).stdout_text(), "");
    let config = one().runner_config(&["--json", "--bogus"]).exits(64);
    assert_eq!(config.json()["error"]["code"], 64, "{config}");
    // What stands behind `--` is a word of somebody else's.
    assert_eq!(one().run(&[args, &["--", "--json"]].concat()).exits(64).stdout_text(), "");
    one().run(&["--json", "--help"]).exits(0).prints("Usage");
}

#[test]
fn a_directory_where_none_can_stand_is_told() {
    let scene = one().working_directory("").no_config().dir("statu");
    for args in [["tasks.d", "tasks.d"], ["check", "tasks.d"], ["tasks.d", "statu"]] {
        let run = scene.run(&args).exits(64).ran_nothing();
        run.says(&format!("`{0}` is a directory: `runner {0}` runs one, and check and list", args[1])).never_says("similar");
    }
}

#[test]
fn why_there_is_no_log_is_told_in_its_format() {
    let run = one().run(&["--log-format", "json", "nosuch"]).exits(64);
    let first: serde_json::Value = serde_json::from_str(run.stderr_text().lines().next().unwrap()).unwrap();
    assert!(first["message"].as_str().unwrap().contains("`nosuch` is neither a command nor a directory"), "{run}");
}

#[test]
fn a_directory_where_a_chain_is_meant_is_told_how_it_is_listed() {
    let scene = one().working_directory("").no_config();
    scene.run(&["list", "tasks.d"]).exits(64).says("`tasks.d` is a directory").says("-s runner.task_dir=tasks.d");
    scene.run(&["tasks.d", "check"]).exits(64).says("check and list take it by -s runner.task_dir=tasks.d");
    scene.run(&["-s", "runner.task_dir=tasks.d", "list"]).exits(0).prints("90-final.py");
    scene.run(&["-s", "runner.task_dir=tasks.d", "check"]).exits(0);
    // A chain may be called as its directory is, and then what is wrong with it is told.
    let scene = one().working_directory("").config("[chain:tasks.d]\ntask_dir = tasks.d\nmax_tries = x\n");
    scene.run(&["list", "tasks.d"]).exits(78).says("runner.cfg:3: max_tries = x").never_says("is a directory");
}

#[test]
fn a_working_directory_that_is_gone_is_told() {
    let run = |word: &str| {
        let scene = one().dir("gone");
        let text = format!("cd gone && rmdir ../gone && exec \"$0\" {word}");
        scene.working_directory("").no_config().under(&["sh", "-c", &text]).run(&[])
    };
    run("rel").exits(64).says("the working directory is not there any more: change to one that is");
    run("./rel").exits(78).says("the working directory is not there any more");
}
