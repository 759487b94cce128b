//! `runner-config`, and `runner -g`: what tasks ask the configuration with.

use rstest::rstest;
use serde_json::{Value, json};

use crate::scene::Scene;

fn hg() -> Scene {
    Scene::new().config("[hg]\nremote = ssh://hg.example/repo\nempty =\nlines = a\n  b\n")
}

/// All strings of a document that stand under this key, wherever it is.
fn under_key(document: &Value, key: &str) -> Vec<String> {
    match document {
        Value::Object(map) => map
            .iter()
            .flat_map(|(k, v)| {
                let mut found = under_key(v, key);
                if k == key {
                    found.push(v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                }
                found
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(|v| under_key(v, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn it_prints_a_value() {
    hg().runner_config(&["-g", "hg.remote"]).exits(0).prints_line("ssh://hg.example/repo");
    hg().run(&["-g", "hg.remote"]).exits(0).prints_line("ssh://hg.example/repo");
}

#[test]
fn an_empty_value_is_an_empty_line() {
    hg().runner_config(&["-g", "hg.empty"]).exits(0).prints_line("");
    hg().run(&["-g", "hg.empty"]).exits(0).prints_line("");
}

#[rstest]
#[case("hg.missing")]
#[case("missing.remote")]
#[case("HG.remote")]
fn what_is_not_there_exits_1_and_prints_nothing(#[case] key: &str) {
    let run = hg().runner_config(&["-g", key]).exits(1);
    assert_eq!(run.stdout_text(), "");
    let run = hg().run(&["-g", key]).exits(1);
    assert_eq!(run.stdout_text(), "");
}

#[test]
fn a_default_stands_in_for_what_is_not_there() {
    let scene = hg();
    scene.runner_config(&["-g", "hg.missing", "--default", "over there"]).exits(0).prints_line("over there");
    scene.runner_config(&["-g", "hg.missing", "--default", ""]).exits(0).prints_line("");
    scene.runner_config(&["-g", "hg.remote", "--default", "x"]).exits(0).prints_line("ssh://hg.example/repo");
    scene.runner_config(&["-g", "hg.empty", "--default", "x"]).exits(0).prints_line("");
}

#[rstest]
#[case(&[])]
#[case(&["-g"])]
#[case(&["-g", "no-dot"])]
#[case(&["-x"])]
#[case(&["--type", "colour", "-g", "hg.remote"])]
#[case(&["hg.remote"])]
#[case(&["-g", "hg.remote", "-l"])]
fn a_wrong_call_is_64(#[case] args: &[&str]) {
    let run = hg().runner_config(args).exits(64);
    assert_eq!(run.stdout_text(), "");
    assert!(!run.stderr.is_empty());
}

#[test]
fn a_configuration_that_cannot_be_read_is_78() {
    Scene::new().raw_config("no section\n").runner_config(&["-g", "hg.remote", "--default", "x"]).exits(78);
}

#[test]
fn wrong_settings_of_runner_do_not_keep_a_task_from_its_values() {
    // Only what cannot be read is an error here: the keys of `[runner]` are not its business.
    Scene::new().config("[runner]\nmax_tries = many\n[hg]\nk = v\n").runner_config(&["-g", "hg.k"]).exits(0).prints_line("v");
}

// ---- types -------------------------------------------------------------------------------------

#[rstest]
#[case("str", "  x y ", "x y")]
#[case("int", "42", "42")]
#[case("int", "-7", "-7")]
#[case("duration", "1h30m", "5400")]
#[case("duration", "90", "90")]
fn a_type_is_checked_and_printed_plainly(#[case] kind: &str, #[case] written: &str, #[case] printed: &str) {
    Scene::new().config(&format!("[a]\nk = {written}\n")).runner_config(&["-g", "a.k", "--type", kind]).exits(0).prints_line(printed);
}

#[test]
fn all_words_for_yes_are_printed_alike_and_all_for_no() {
    let printed = |word: &str| {
        let run = Scene::new().config(&format!("[a]\nk = {word}\n")).runner_config(&["-g", "a.k", "--type", "bool"]).exits(0);
        run.stdout_text()
    };
    let (yes, no) = (printed("yes"), printed("no"));
    assert_ne!(yes, no);
    for word in ["true", "on", "1", "Yes"] {
        assert_eq!(printed(word), yes);
    }
    for word in ["false", "off", "0", "NO"] {
        assert_eq!(printed(word), no);
    }
}

#[test]
fn a_path_is_absolute_and_relative_to_its_file() {
    let scene =
        Scene::new().config("[runner]\ninclude_dir = conf.d\n[a]\nk = data/x\nabsolute = /x/y\n").file("conf.d/a.cfg", "[a]\nl = data/y\n");
    let path = |name| scene.path(name).to_str().unwrap().to_owned();
    scene.runner_config(&["-g", "a.k", "--type", "path"]).exits(0).prints_line(&path("data/x"));
    scene.runner_config(&["-g", "a.l", "--type", "path"]).exits(0).prints_line(&path("conf.d/data/y"));
    scene.runner_config(&["-g", "a.absolute", "--type", "path"]).exits(0).prints_line("/x/y");
}

#[rstest]
#[case("int", "x")]
#[case("int", "1.5")]
#[case("bool", "maybe")]
#[case("duration", "soon")]
fn a_value_of_another_type_is_an_error_with_its_line(#[case] kind: &str, #[case] value: &str) {
    let run = Scene::new()
        .config(&format!("[a]\nk = {value}\n"))
        .runner_config(&["-g", "a.k", "--type", kind])
        .exits(78)
        .says("runner.cfg:2")
        .says(value);
    assert_eq!(run.stdout_text(), "");
}

// ---- lists -------------------------------------------------------------------------------------

#[test]
fn a_list_has_all_sections_or_one() {
    let scene = hg().config("[buildbot]\nport = 9989\n");
    let all = scene.runner_config(&["-l"]).exits(0);
    all.prints("hg").prints("remote").prints("ssh://hg.example/repo").prints("buildbot").prints("9989");
    scene.runner_config(&["-l", "buildbot"]).exits(0).prints("port").prints("9989").never_prints("remote");
    scene.runner_config(&["-l", "nowhere"]).exits(1);
}

#[rstest]
#[case::number("int", "-7", json!(-7))]
#[case::truth("bool", "on", json!(true))]
#[case::whole_seconds("duration", "1h 30min", json!(5400))]
#[case::seconds("duration", "0.5", json!(0.5))]
#[case::no_end("duration", "infinity", json!("infinity"))]
#[case::text("str", "7", json!("7"))]
fn json_has_a_value_as_what_it_has_to_be(#[case] kind: &str, #[case] value: &str, #[case] expected: Value) {
    let scene = Scene::new().config(&format!("[a]\nk = {value}\n"));
    let one = scene.runner_config(&["-g", "a.k", "--type", kind, "--json"]).exits(0).json();
    assert_eq!(one["value"], expected);
}

#[test]
fn json_is_one_document_with_the_values() {
    let scene = hg();
    let all = scene.runner_config(&["-l", "--json"]).exits(0).json();
    assert!(all["version"].is_u64(), "{all}");
    assert!(all.to_string().contains("ssh://hg.example/repo"), "{all}");
    let one = scene.runner_config(&["-g", "hg.remote", "--json"]).exits(0).json();
    assert_eq!(under_key(&one, "value"), ["ssh://hg.example/repo"], "{one}");
}

#[test]
fn the_origin_is_file_and_line() {
    let scene = hg().config("[runner]\ninclude_dir = conf.d\n").file("conf.d/a.cfg", "[hg]\nuser = me\n");
    scene.runner_config(&["-g", "hg.remote", "--origin"]).exits(0).prints("ssh://hg.example/repo").prints("runner.cfg:2");
    scene.runner_config(&["-l", "hg", "--origin"]).exits(0).prints("runner.cfg:2").prints("conf.d/a.cfg:2");
}

#[test]
fn a_password_in_a_url_is_not_listed() {
    let scene = Scene::new().config("[db]\nurl = postgresql://me:s3cret@db.example/x\n");
    scene.runner_config(&["-l"]).exits(0).prints("***").prints("db.example").never_prints("s3cret");
    scene.runner_config(&["-l", "--json"]).exits(0).never_prints("s3cret");
    // The task that asks for it needs it whole.
    scene.runner_config(&["-g", "db.url"]).exits(0).prints_line("postgresql://me:s3cret@db.example/x");
}

// ---- what tasks see ----------------------------------------------------------------------------

/// A task that asks, unquoted as the old scripts do.
const ASK: &str = "say \"$($RUNNER_CONFIG_CMD -g hg.remote)\"; $RUNNER_CONFIG_CMD -g hg.missing; say $?";

#[rstest]
#[case::plain("runner-scene-")]
#[case::blank("runner scene ")]
#[case::glob("runner-[s]cene*-")]
#[case::quote("runner-'scene\"-")]
#[case::dollar("runner-$scene-")]
fn a_task_asks_without_quotes_whatever_the_path(#[case] prefix: &str) {
    Scene::in_directory_named(prefix).config("[hg]\nremote = over there\n").task("1-a.sh", ASK).run(&[]).exits(0).logged([
        "1-a.sh 1",
        "- over there",
        "- 1",
    ]);
}

#[test]
fn a_relative_configuration_is_found_from_anywhere() {
    Scene::new()
        .config("[hg]\nremote = over there\n")
        .task("1-a.sh", &format!("cd /\n{ASK}"))
        .run(&["-c", "runner.cfg"])
        .exits(0)
        .logged(["1-a.sh 1", "- over there", "- 1"]);
}

#[test]
fn a_task_sees_what_was_set_on_the_command_line() {
    Scene::new()
        .config("[hg]\nremote = file\n")
        .task("1-a.sh", ASK)
        .task("2-b.sh", "say \"$($RUNNER_CONFIG_CMD -g new.key)\"")
        .run(&["-s", "hg.remote=it's \"set\" = x", "--set", "new.key=one\ntwo"])
        .exits(0)
        .logged(["1-a.sh 1", "- it's \"set\" = x", "- 1", "2-b.sh 1", "- one", "two"]);
}

#[test]
fn hooks_and_the_halt_task_see_it_too() {
    Scene::new()
        .script("bin/hook.sh", "say \"$($RUNNER_CONFIG_CMD -g hg.remote)\"")
        .config("[runner]\ntask_hook = bin/hook.sh\n[hg]\nremote = file\n")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "say \"$($RUNNER_CONFIG_CMD -g hg.remote)\"")
        .run(&["-s", "hg.remote=set"])
        .exits(3)
        .logged(["- set", "1-a.sh 1", "- set", "halt.sh -", "- set"]);
}

#[test]
fn its_own_set_wins() {
    hg().runner_config(&["-s", "hg.remote=mine", "-g", "hg.remote"]).exits(0).prints_line("mine");
    hg().runner_config(&["-g", "new.key", "--set", "new.key=v"]).exits(0).prints_line("v");
}

#[test]
fn without_an_option_the_environment_names_the_file() {
    let scene = Scene::new().no_config().file("other.cfg", "[hg]\nremote = there\n");
    let file = scene.path("other.cfg");
    scene.env("RUNNER_CONFIG", file).runner_config(&["-g", "hg.remote"]).exits(0).prints_line("there");
}

#[test]
fn help_and_version_go_to_stdout() {
    let scene = Scene::new().no_config();
    scene.runner_config(&["--help"]).exits(0).prints("--origin");
    scene.runner_config(&["--version"]).exits(0).prints(env!("CARGO_PKG_VERSION"));
}
