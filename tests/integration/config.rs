//! The configuration file: its form, where it is found, drop-ins, paths, unknown and repeated keys.

use rstest::rstest;

use crate::scene::Scene;

/// What `runner-config -g SECTION.KEY` prints for exactly this file.
fn value_of(file: &[u8], key: &str) -> String {
    let run = Scene::new().raw_config(file).runner_config(&["-g", key]).exits(0);
    String::from_utf8(run.stdout.clone()).unwrap()
}

#[rstest]
#[case::blanks_around(b"[a]\nk  =   v w  \n", "v w")]
#[case::colon(b"[a]\nk: v\n", "v")]
#[case::first_of_both(b"[a]\nk = v:w=x\n", "v:w=x")]
#[case::colon_first(b"[a]\nk: v=w\n", "v=w")]
#[case::tight(b"[a]\nk=v\n", "v")]
#[case::empty(b"[a]\nk =\n", "")]
#[case::comment_lines(b"# c\n; c\n[a]\n# c\n; k = w\nk = v\n#k = x\n", "v")]
#[case::inline_semicolon(b"[a]\nk = v ; comment\n", "v")]
#[case::semicolon_without_a_blank(b"[a]\nk = v;w\n", "v;w")]
#[case::no_inline_hash(b"[a]\nk = v # w\n", "v # w")]
#[case::quotes_stay(b"[a]\nk = \"v 'w'\"\n", "\"v 'w'\"")]
#[case::no_escapes(b"[a]\nk = a\\tb\\\\c\\n\n", "a\\tb\\\\c\\n")]
#[case::backslash_at_the_end(b"[a]\nk = v\\\nl = w\n", "v\\")]
#[case::no_interpolation(b"[a]\nk = %(x)s %% ${y} $z\n", "%(x)s %% ${y} $z")]
#[case::continued(b"[a]\nk = v\n  w\n\tx\n", "v\nw\nx")]
#[case::crlf(b"[a]\r\nk = v\r\nl = w\r\n", "v")]
#[case::byte_order_mark(b"\xef\xbb\xbf[a]\nk = v\n", "v")]
#[case::text_after_the_header(b"[a] ; anything\nk = v\n", "v")]
#[case::section_goes_on(b"[a]\nk = v\n[b]\nk = w\n[a]\nl = x\n", "v")]
#[case::last_wins(b"[a]\nk = v\nk = w\n", "w")]
#[case::last_wins_across(b"[a]\nk = v\n[b]\nx = 1\n[a]\nk = w\n", "w")]
#[case::no_newline_at_the_end(b"[a]\nk = v", "v")]
#[case::default_section(b"[DEFAULT]\nk = v\n[a]\nx = 1\n", "v")]
#[case::default_is_only_one(b"[DEFAULT]\nk = v\n[a]\nk = w\n", "w")]
fn the_file_is_read_as_the_old_one_read_it(#[case] file: &[u8], #[case] value: &str) {
    assert_eq!(value_of(file, "a.k"), format!("{value}\n"));
}

#[test]
fn names_keep_their_case() {
    let scene = Scene::new().raw_config("[Hg]\nRemote = Upper\nremote = lower\n[hg]\nremote = other\n");
    scene.runner_config(&["-g", "Hg.Remote"]).exits(0).prints_line("Upper");
    scene.runner_config(&["-g", "Hg.remote"]).exits(0).prints_line("lower");
    scene.runner_config(&["-g", "hg.remote"]).exits(0).prints_line("other");
    scene.runner_config(&["-g", "HG.remote"]).exits(1);
}

#[test]
fn blanks_inside_the_brackets_belong_to_the_name() {
    let scene = Scene::new().raw_config("[ a b ]\nk = v\n");
    scene.runner_config(&["-g", " a b .k"]).exits(0).prints_line("v");
    scene.runner_config(&["-g", "a b.k"]).exits(1);
}

#[rstest]
#[case::no_separator(b"[runner]\nsleep_time = 0\nhello\nmax_tries = 1\n", 3)]
#[case::rem(b"[runner]\nrem hello\n", 2)]
#[case::before_any_section(b"k = v\n[runner]\n", 1)]
#[case::open_header(b"[runner]\n[hg\n", 2)]
#[case::not_utf_8(b"[runner]\nsleep_time = 0\n[hg]\nk = \xff\n", 4)]
#[case::not_utf_8_in_a_name(b"[runner]\n[h\xe9]\n", 2)]
fn a_line_that_cannot_be_read_is_an_error_with_its_number(#[case] file: &[u8], #[case] line: usize) {
    let scene = Scene::new().raw_config(file).tasks(["1-a.sh"]);
    let tasks = scene.path("tasks.d");
    let place = format!("runner.cfg:{line}");
    scene.run(&[tasks.to_str().unwrap()]).exits(78).ran_nothing().says(&place);
    scene.run(&["check"]).exits(78).prints(&format!("{place}: error:"));
    scene.runner_config(&["-g", "hg.k"]).exits(78).says(&place);
}

#[test]
fn a_repeated_key_is_a_warning_with_both_lines() {
    let scene = Scene::new().config("[runner]\nmax_tries = 1\nsleep_time = 0\nmax_tries = 2\n").task("1-a.sh", "exit 1");
    let run = scene.run(&[]).exits(1).logged(["1-a.sh 1", "1-a.sh 2"]).says("max_tries").says("runner.cfg:2");
    let line = run.stderr_text().lines().find(|l| l.contains("max_tries")).unwrap().to_owned();
    assert!(line.contains('4'), "{line}");
}

// ---- unknown keys ------------------------------------------------------------------------------

#[test]
fn an_unknown_key_is_a_warning_when_running() {
    Scene::new()
        .config("[runner]\nmax_trys = 2\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0)
        .ran(["1-a.sh"])
        .says("runner.cfg:2")
        .says("max_trys")
        .says("did you mean")
        .says("max_tries");
}

#[test]
fn an_unknown_key_is_an_error_in_check() {
    Scene::new()
        .config("[runner]\nmax_trys = 2\n")
        .tasks(["1-a.sh"])
        .run(&["check"])
        .exits(78)
        .prints("runner.cfg:2: error:")
        .prints("max_tries");
}

#[test]
fn an_unknown_key_is_an_error_when_strict() {
    Scene::new().config("[runner]\nmax_trys = 2\n").tasks(["1-a.sh"]).run(&["--strict"]).exits(78).ran_nothing().says("max_trys");
}

#[test]
fn strict_has_nothing_against_a_good_configuration() {
    Scene::new()
        .config("[hg]\nanything = goes\n[a]\nalso = here\n")
        .tasks(["1-a.sh", "halt.sh"])
        .run(&["--strict"])
        .exits(0)
        .ran(["1-a.sh"]);
}

#[test]
fn an_unknown_key_of_a_task_section_is_found_too() {
    Scene::new()
        .config("[task:a]\nmax_tim = 2\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0)
        .says("runner.cfg:2")
        .says("max_tim")
        .says("max_time");
}

#[test]
fn sections_of_the_user_are_not_judged() {
    let scene = Scene::new()
        .config("[a]\nmax_trys = 1\nmax_parallel = lots\numask = 999\n[hg]\nmax_time = soon\n[buildbot]\nx = y\n")
        .tasks(["1-a.sh"]);
    let run = scene.run_logged(&[]).exits(0);
    assert!(!run.has_message_of("warn"), "{run}");
    scene.task("halt.sh", "exit 0").run(&["check"]).exits(0);
}

#[test]
fn only_the_six_old_keys_are_read_from_a_plain_section() {
    let run = Scene::new()
        .config("[runner]\nmax_tries = 5\n[a]\nmax_tries = 2\nsuccess_codes = 1\nhalt_codes = 1\numask = 077\n")
        .task("1-a.sh", "umask >\"$SCENE/umask\"; exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2"]);
    assert!(!run.text_of("umask").contains("077"));
}

#[test]
fn the_section_of_a_task_comes_before_the_plain_one() {
    Scene::new()
        .config("[task:a]\nmax_tries = 3\n[a]\nmax_tries = 2\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 3"]);
}

#[test]
fn defaults_reach_the_runner_section() {
    Scene::new().config("[DEFAULT]\nmax_tries = 2\n[runner]\n").task("1-a.sh", "exit 1").run(&[]).exits(1).logged(["1-a.sh 1", "1-a.sh 2"]);
}

// ---- drop-ins and paths ------------------------------------------------------------------------

#[test]
fn drop_ins_come_by_the_bytes_of_their_names_and_the_later_wins() {
    let scene = Scene::new()
        .config("[runner]\ninclude_dir = conf.d\n[hg]\nmain = main\nall = main\n")
        .file("conf.d/9-a.cfg", "[hg]\nall = 9\nnine = 9\n")
        .file("conf.d/10-b.cfg", "[hg]\nall = 10\nnine = 10\n")
        .file("conf.d/Z.cfg", "[hg]\nlast = Z\n")
        .file("conf.d/a.cfg", "[hg]\nlast = a\n");
    scene.runner_config(&["-g", "hg.all"]).exits(0).prints_line("9");
    scene.runner_config(&["-g", "hg.nine"]).exits(0).prints_line("9");
    scene.runner_config(&["-g", "hg.last"]).exits(0).prints_line("a");
    scene.runner_config(&["-g", "hg.main"]).exits(0).prints_line("main");
}

#[rstest]
#[case("10-a.cfg.dpkg-old")]
#[case("10-a.cfg~")]
#[case("10-a.conf")]
#[case(".10-a.cfg")]
#[case("#10-a.cfg#")]
#[case("10-a.cfg.rpmsave")]
#[case("README")]
fn left_overs_are_no_drop_ins(#[case] name: &str) {
    Scene::new()
        .config("[runner]\ninclude_dir = conf.d\n[hg]\nk = main\n")
        .file(format!("conf.d/{name}"), "[hg]\nk = wrong\nthis is no line\n")
        .runner_config(&["-g", "hg.k"])
        .exits(0)
        .prints_line("main");
}

#[test]
fn a_drop_in_changes_how_tasks_run() {
    Scene::new()
        .config("[runner]\ninclude_dir = conf.d\nmax_tries = 5\n")
        .file("conf.d/tries.cfg", "[runner]\nmax_tries = 2\n[env]\nCOLOUR = red\n")
        .task("1-a.sh", "say $COLOUR; exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "- red", "1-a.sh 2", "- red"]);
}

#[test]
fn a_key_that_a_drop_in_sets_again_is_no_mistake() {
    let run = Scene::new()
        .config("[runner]\ninclude_dir = conf.d\nmax_tries = 5\n")
        .file("conf.d/tries.cfg", "[runner]\nmax_tries = 2\n")
        .tasks(["1-a.sh"])
        .run_logged(&[])
        .exits(0);
    assert!(!run.has_message_of("warn"), "{run}");
}

#[test]
fn a_wrong_value_in_a_drop_in_is_told_with_that_file() {
    Scene::new()
        .config("[runner]\ninclude_dir = conf.d\n")
        .file("conf.d/tries.cfg", "\n[runner]\nmax_tries = many\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("conf.d/tries.cfg:3");
}

#[test]
fn a_path_is_relative_to_the_file_that_names_it() {
    Scene::new()
        .config("[runner]\ninclude_dir = conf.d\n")
        .file("conf.d/dir.cfg", "[runner]\ntask_dir = other\ntask_hook = ../bin/hook.sh\n")
        .script("bin/hook.sh", "say hook")
        .task_at("conf.d/other/1-b.sh", "exit 0")
        .task("1-a.sh", "exit 1")
        .dir("elsewhere")
        .working_directory("elsewhere")
        .run(&[])
        .exits(0)
        .logged(["- hook", "1-b.sh 1", "- hook"]);
}

#[test]
fn an_include_directory_that_is_missing_is_not_silent() {
    let run = Scene::new().config("[runner]\ninclude_dir = nowhere.d\n").tasks(["1-a.sh"]).run(&[]);
    assert!(run.stderr_text().contains("nowhere.d"), "{run}");
}

// ---- where it is found -------------------------------------------------------------------------

#[test]
fn a_missing_file_that_is_named_is_an_error() {
    let scene = Scene::new().tasks(["1-a.sh"]);
    for args in [&["-c", "nowhere.cfg"][..], &["-c", "nowhere.cfg", "tasks.d"], &["-c", "nowhere.cfg", "list"]] {
        scene.run(args).exits(78).ran_nothing().says("nowhere.cfg");
    }
    scene.runner_config(&["-c", "nowhere.cfg", "-g", "a.b"]).exits(78).says("nowhere.cfg");
}

#[test]
fn a_directory_is_no_file() {
    Scene::new().tasks(["1-a.sh"]).run(&["-c", "tasks.d"]).exits(78).ran_nothing().says("tasks.d");
}

#[test]
fn the_environment_names_the_file() {
    let scene = Scene::new().no_config().file("other.cfg", "[runner]\ntask_dir = tasks.d\n").tasks(["1-a.sh"]);
    let file = scene.path("other.cfg");
    scene.env("RUNNER_CONFIG", file).run(&[]).exits(0).ran(["1-a.sh"]);
}

#[test]
fn the_option_comes_before_the_environment() {
    Scene::new()
        .file("other.cfg", "[hg]\nk = environment\n")
        .config("[hg]\nk = option\n")
        .env("RUNNER_CONFIG", "other.cfg")
        .run(&["-g", "hg.k"])
        .exits(0)
        .prints_line("option");
}

#[test]
fn a_missing_file_that_the_environment_names_is_an_error() {
    Scene::new().no_config().env("RUNNER_CONFIG", "nowhere.cfg").tasks(["1-a.sh"]).run(&["tasks.d"]).exits(78);
}

#[test]
fn a_task_directory_needs_no_configuration() {
    if std::path::Path::new("/etc/runner/runner.cfg").exists() {
        crate::scene::skipped("this machine has an /etc/runner/runner.cfg");
        return;
    }
    let scene = Scene::new().no_config().tasks(["1-a.sh"]);
    scene.run(&["tasks.d"]).exits(0).ran(["1-a.sh"]);
    scene.run(&[]).exits(78);
    scene.run(&["list"]).exits(78);
}

#[test]
fn a_task_directory_on_the_command_line_wins() {
    Scene::new().task("1-a.sh", "exit 1").task_at("other.d/1-b.sh", "exit 0").run(&["other.d"]).exits(0).ran(["1-b.sh"]);
}

#[test]
fn a_path_on_the_command_line_is_relative_to_the_working_directory() {
    Scene::new()
        .task("1-a.sh", "exit 1")
        .task_at("here/other.d/1-b.sh", "exit 0")
        .working_directory("here")
        .run(&["other.d"])
        .exits(0)
        .ran(["1-b.sh"]);
}

#[test]
fn a_task_directory_that_is_missing_is_an_error() {
    Scene::new().config("[runner]\ntask_dir = nowhere.d\n").run(&[]).exits(78).says("nowhere.d");
}

// ---- --set -------------------------------------------------------------------------------------

#[test]
fn set_wins_over_the_file() {
    Scene::new()
        .config("[runner]\nmax_tries = 5\n")
        .task("1-a.sh", "exit 1")
        .run(&["-s", "runner.max_tries=2", "--set", "runner.halt_on_give_up=no"])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2"]);
}

#[test]
fn the_last_set_wins() {
    Scene::new().run(&["-s", "hg.k=one", "-s", "hg.k=two = 2", "-g", "hg.k"]).exits(0).prints_line("two = 2");
}

#[rstest]
#[case("runner")]
#[case("runner.max_tries")]
#[case("=2")]
#[case("max_tries=2")]
fn a_set_without_its_form_is_a_usage_error(#[case] set: &str) {
    let scene = Scene::new().tasks(["1-a.sh"]);
    scene.run(&["-s", set]).exits(64).ran_nothing();
    scene.runner_config(&["-s", set, "-g", "a.b"]).exits(64);
}

#[test]
fn a_wrong_value_that_is_set_is_told() {
    let run = Scene::new().tasks(["1-a.sh"]).run(&["-s", "runner.max_tries=many"]).ran_nothing().says("max_tries");
    assert!(matches!(run.status.code(), Some(64 | 78)), "{run}");
}
