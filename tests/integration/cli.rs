//! The command line: old and new ways to call it, usage errors, where it writes, and that nothing
//! wrong with what it writes to can hurt a run.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

use rstest::rstest;

use crate::scene::{Outcome, Scene};

fn one() -> Scene {
    Scene::new().config("[hg]\nremote = there\n").tasks(["1-a.sh"])
}

/// A run in which much happens: a retry, a warning, a halt.
fn eventful() -> Scene {
    Scene::new()
        .config("[runner]\nunknown_key = 1\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("2-b.sh", "exit 2")
        .task("halt.sh", "exit 0")
}

fn assert_eventful(run: Outcome) -> Outcome {
    run.exits(3).ran(["1-a.sh", "1-a.sh", "2-b.sh", "halt.sh"])
}

// ---- ways to call it ---------------------------------------------------------------------------

#[rstest]
#[case(&["-v", "-c", "runner.cfg", "tasks.d"])]
#[case(&["-q", "-c", "runner.cfg", "tasks.d"])]
#[case(&["-c", "runner.cfg", "-n", "1", "tasks.d"])]
#[case(&["--config", "runner.cfg"])]
#[case(&["--config=runner.cfg", "--times=1"])]
#[case(&["run", "tasks.d"])]
#[case(&["run"])]
#[case(&["-vv", "run", "tasks.d"])]
#[case(&["--syslog", "tasks.d"])]
#[case(&["tasks.d", "-v"])]
#[case(&["tasks.d/"])]
#[case(&["./tasks.d"])]
fn it_is_called_like_this(#[case] args: &[&str]) {
    one().run(args).exits(0).ran(["1-a.sh"]);
}

#[test]
fn times_and_halt_after_together() {
    one().task("halt.sh", "exit 0").run(&["-n", "1", "-H"]).exits(0).ran(["1-a.sh", "halt.sh"]);
}

#[test]
fn the_old_question() {
    one().run(&["-g", "hg.remote"]).exits(0).ran_nothing().prints_line("there");
    one().run(&["-c", "runner.cfg", "--get", "hg.remote"]).exits(0).prints_line("there");
}

#[test]
fn a_directory_with_the_name_of_a_command_can_be_run() {
    Scene::new().task_at("list/1-b.sh", "exit 0").run(&["run", "list"]).exits(0).ran(["1-b.sh"]);
    Scene::new().task_at("list/1-b.sh", "exit 0").run(&["./list"]).exits(0).ran(["1-b.sh"]);
}

#[test]
fn a_dry_run_does_nothing() {
    Scene::new()
        .script("bin/hook.sh", "say hook")
        .config("[runner]\ntask_hook = bin/hook.sh\nchain_hook = bin/hook.sh\n")
        .tasks(["2-b.sh", "1-a.sh", "halt.sh"])
        .run(&["--dry-run", "-H", "-n", "3"])
        .exits(0)
        .logged([])
        .prints("1-a.sh")
        .prints("2-b.sh");
}

#[test]
fn a_dry_run_finds_what_is_wrong() {
    Scene::new().config("[a]\ndepends_on = nobody\n").tasks(["1-a.sh"]).run(&["--dry-run"]).exits(78);
    // Whoever tries out a configuration alarms nobody.
    let scene = Scene::new().script("bin/hook.sh", "touch \"$SCENE/told\"").tasks(["1-a.sh"]);
    let scene =
        scene.config("[runner]\nchain_hook = bin/hook.sh\nhalt_task = gone.sh\n[a]\ndepends_on = nobody\n[metrics]\ntextfile = m.prom\n");
    scene.run(&["--dry-run"]).exits(78);
    assert!(!scene.path("told").exists() && !scene.path("m.prom").exists());
    scene.run(&[]).exits(78);
    assert!(scene.path("told").exists() && scene.path("m.prom").exists(), "who runs it is to know");
}

// ---- usage errors ------------------------------------------------------------------------------

#[rstest]
#[case::option(&["--frobnicate"])]
#[case::short_option(&["-Z"])]
#[case::missing_value(&["-n"])]
#[case::missing_key(&["-g"])]
#[case::key_without_a_dot(&["-g", "remote"])]
#[case::bad_number(&["-n", "x"])]
#[case::bad_duration(&["--run-interval", "often"])]
#[case::bad_format(&["--log-format", "xml"])]
#[case::bad_color(&["--color", "red"])]
#[case::two_directories(&["tasks.d", "tasks.d"])]
#[case::unknown_chain(&["list", "nightly"])]
#[case::option_of_another(&["check", "--count", "3"])]
#[case::times_before_check(&["-n", "2", "check"])]
#[case::only_before_list(&["--only", "a", "list"])]
#[case::halt_before_check(&["-H", "check"])]
#[case::dry_run_before_list(&["--dry-run", "list"])]
#[case::interval_before_list(&["--run-interval", "5", "list"])]
fn a_wrong_call_is_64_and_runs_nothing(#[case] args: &[&str]) {
    let run = one().task("halt.sh", "exit 0").run(args).exits(64).ran_nothing();
    assert_eq!(run.stdout_text(), "", "{run}");
    assert!(!run.stderr.is_empty());
}

#[rstest]
#[case("chekc", "check")]
#[case("lst", "list")]
fn a_lone_word_that_is_nothing_gets_a_hint(#[case] word: &str, #[case] meant: &str) {
    one().run(&[word]).exits(64).ran_nothing().says(word).says("did you mean").says(meant);
}

#[rstest]
#[case::file("runner.cfg")]
#[case::nothing("tasks.dd")]
fn a_lone_word_that_is_no_directory_is_64(#[case] word: &str) {
    one().run(&[word]).exits(64).ran_nothing().says(word);
}

#[test]
fn help_and_version_go_to_stdout() {
    one().run(&["--help"]).exits(0).prints("--config").prints("check").ran_nothing();
    one().run(&["-h"]).exits(0).prints("--config");
    one().run(&["--version"]).exits(0).prints(env!("CARGO_PKG_VERSION"));
    one().run(&["check", "--help"]).exits(0);
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        one().run(&["completions", shell]).exits(0).prints("runner");
    }
    let run = one().dir("man").run(&["man", "man"]).exits(0);
    let pages: Vec<_> = std::fs::read_dir(run.path("man")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(pages.iter().any(|p| p == "runner.1" || p == "runner.8"), "{pages:?}");
}

#[test]
fn errors_are_json_too_when_asked() {
    let run = Scene::new().config("[runner]\nmax_time = soon\n").run(&["list", "--json"]).exits(78).says("runner.cfg:2");
    let error = run.json()["error"].clone();
    assert_eq!(error["code"], 78);
    assert!(error["message"].as_str().unwrap().contains("max_time"));
    assert!(error["file"].as_str().unwrap().ends_with("runner.cfg"));
    assert_eq!(error["line"], 2);
}

// ---- a chain inside itself ---------------------------------------------------------------------

#[test]
fn a_chain_inside_its_own_run_is_refused() {
    Scene::new().task("1-a.sh", "\"$SUT\" -c \"$SCENE/runner.cfg\"; say $?").run(&[]).exits(0).logged(["1-a.sh 1", "- 75"]);
}

#[test]
fn a_look_inside_the_run_is_fine() {
    Scene::new()
        .task("1-a.sh", "\"$SUT\" -c \"$SCENE/runner.cfg\" list >\"$SCENE/listed\"; say $?; \"$SUT\" check >/dev/null; say $?")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "- 0", "- 0"]);
}

#[test]
fn another_chain_inside_a_run_is_fine() {
    Scene::new()
        .file("other.cfg", "[runner]\ntask_dir = other.d\n")
        .task_at("other.d/5-inner.sh", "exit 0")
        .task("1-a.sh", "STATE_DIRECTORY=\"$SCENE/state.d\" \"$SUT\" -c \"$SCENE/other.cfg\"; say $?")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "5-inner.sh 1", "- 0"]);
}

// ---- where it writes ---------------------------------------------------------------------------

#[test]
fn a_run_writes_its_words_to_stderr_and_nothing_to_stdout() {
    let run = assert_eventful(eventful().run(&["-v"]));
    assert_eq!(run.stdout_text(), "");
    assert!(!run.stderr.is_empty());
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let run = one().run(&["-q"]).exits(0);
    assert_eq!(run.stderr_text(), "");
    let run = eventful().run(&["-q"]).exits(3);
    assert!(!run.stderr.is_empty(), "a halt is worth a word even then");
}

#[test]
fn verbose_says_more() {
    let length = |args: &[&str]| one().run(args).exits(0).stderr.len();
    let (quiet, plain, verbose, very) = (length(&["-q"]), length(&[]), length(&["-v"]), length(&["-vv"]));
    assert!(quiet <= plain && plain <= verbose && verbose <= very, "{quiet} {plain} {verbose} {very}");
    assert!(quiet < verbose);
}

#[rstest]
#[case::list(&["list"])]
#[case::list_json(&["list", "--json"])]
#[case::check(&["check"])]
#[case::help(&["--help"])]
#[case::dry_run(&["--dry-run"])]
#[case::get(&["-g", "hg.remote"])]
#[case::completions(&["completions", "bash"])]
fn a_closed_pipe_ends_it_quietly(#[case] args: &[&str]) {
    let scene = (0..300).fold(one(), |scene, n| scene.task(format!("{n}-some-task.sh"), "exit 0"));
    let run = scene.through(&["broken-pipe", "1"]).run(args);
    let quiet = run.status.code() == Some(0) || run.status.signal() == Some(13);
    assert!(quiet, "{run}");
    assert_eq!(run.stderr_text(), "");
}

#[rstest]
#[case::get(&["-g", "hg.remote"])]
#[case::list(&["-l"])]
fn a_closed_pipe_ends_runner_config_quietly(#[case] args: &[&str]) {
    let run = one().through(&["broken-pipe", "1"]).runner_config(args);
    assert!(run.status.code() == Some(0) || run.status.signal() == Some(13), "{run}");
    assert_eq!(run.stderr_text(), "");
}

#[rstest]
#[case::text(&["-vv"])]
#[case::json(&["-vv", "--log-format", "json"])]
#[case::logfmt(&["-vv", "--log-format", "logfmt"])]
#[case::syslog(&["-vv", "--syslog"])]
fn a_full_disk_under_its_words_changes_no_run(#[case] args: &[&str]) {
    assert_eventful(eventful().stderr_to("/dev/full").run(args));
    assert_eventful(eventful().stdout_to("/dev/full").stderr_to("/dev/full").run(args));
    assert_eventful(eventful().config("[runner]\nmax_parallel = 2\n").stdout_to("/dev/full").stderr_to("/dev/full").run(args));
}

#[rstest]
#[case::gone(&["broken-pipe", "2"])]
#[case::both_gone(&["broken-pipe", "1", "broken-pipe", "2"])]
#[case::closed(&["close", "2"])]
#[case::both_closed(&["close", "1", "close", "2"])]
fn nobody_listening_changes_no_run(#[case] actions: &[&str]) {
    assert_eventful(eventful().through(actions).run(&["-vv"]));
    assert_eventful(eventful().through(actions).run(&["-vv", "--log-format", "json"]));
}

#[test]
fn a_full_disk_under_a_result_is_no_success() {
    let run = one().stdout_to("/dev/full").run(&["list"]);
    assert!(!run.status.success(), "{run}");
    assert_ne!(run.status.code(), Some(2));
    assert!(!run.stderr_text().contains("panicked"), "{run}");
}

#[test]
fn syslog_without_a_daemon_changes_no_run() {
    assert_eventful(eventful().run(&["--syslog"]));
}

// ---- how it writes -----------------------------------------------------------------------------

fn is_rfc_3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let zone = text.ends_with('Z') || bytes.len() > 6 && matches!(bytes[bytes.len() - 6], b'+' | b'-') && bytes[bytes.len() - 3] == b':';
    let date = digits(0..4) && digits(5..7) && digits(8..10) && bytes[4] == b'-' && bytes[7] == b'-';
    date && bytes[10] == b'T' && digits(11..13) && bytes[13] == b':' && digits(14..16) && digits(17..19) && zone
}

#[test]
fn each_json_line_is_an_object_that_tells_time_level_and_message() {
    let run = assert_eventful(eventful().run_logged(&[]));
    assert_eq!(run.messages().len(), run.stderr_text().lines().count(), "{run}");
    for message in run.messages() {
        assert!(is_rfc_3339(message["time"].as_str().unwrap()), "{message}");
        assert!(message["level"].is_string() && message["message"].is_string(), "{message}");
    }
    for kind in ["run_started", "task_started", "task_ended", "run_retry", "halt_started", "halt_ended", "run_ended"] {
        let events = run.events(kind);
        assert!(!events.is_empty(), "{kind}{run}");
        for event in events {
            assert_eq!(event["chain"], "main", "{event}");
            assert!(!event["run_id"].as_str().unwrap().is_empty(), "{event}");
        }
    }
    let ended = run.events("task_ended");
    assert_eq!(ended.iter().map(|e| e["task"].as_str().unwrap()).collect::<Vec<_>>(), ["1-a.sh", "1-a.sh", "2-b.sh"]);
    assert_eq!(ended.iter().map(|e| e["result"].as_str().unwrap()).collect::<Vec<_>>(), ["RETRY", "OK", "HALT"]);
    assert_eq!(ended.iter().map(|e| e["exit_code"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 0, 2]);
    assert_eq!(ended.iter().map(|e| e["try_num"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 2]);
    assert!(ended.iter().all(|e| e["duration_ms"].is_u64() && e["timed_out"] == false && e["signal"].is_null()), "{run}");
}

/// The keys of a logfmt line; None if it is none.
fn logfmt_keys(line: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || key.contains([' ', '"']) {
            return None;
        }
        keys.push(key.to_owned());
        let end = if after.starts_with('"') { end_of_quoted(after)? } else { after.find(' ').unwrap_or(after.len()) };
        rest = match &after[end..] {
            "" => "",
            more => more.strip_prefix(' ')?,
        };
    }
    Some(keys)
}

fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[test]
fn each_logfmt_line_is_pairs() {
    let run =
        assert_eventful(eventful().task("1-a b=\"c\".sh", "exit 0").run(&["-v", "--only", "a", "--only", "b", "--log-format", "logfmt"]));
    assert!(!run.stderr.is_empty());
    for line in run.stderr_text().lines() {
        let keys = logfmt_keys(line).unwrap_or_else(|| panic!("no logfmt: {line}"));
        for key in ["time", "level", "message"] {
            assert!(keys.iter().any(|k| k == key), "{line}");
        }
    }
}

#[test]
fn no_task_name_breaks_a_line() {
    let run = Scene::new()
        .script("tasks.d/1-new\nline \"x\" =.sh", "exit 0")
        .script("tasks.d/2-\u{1b}[31mred.sh", "exit 0")
        .run_logged(&[])
        .exits(0)
        .never_says("\u{1b}");
    assert_eq!(run.tasks_of("task_started"), ["1-new\nline \"x\" =.sh", "2-\u{1b}[31mred.sh"]);
}

#[rstest]
#[case::always(&["--color", "always"], None, true)]
#[case::never(&["--color", "never"], None, false)]
#[case::auto(&["--color", "auto"], None, false)]
#[case::default(&[], None, false)]
#[case::no_color(&["--color", "auto"], Some(("NO_COLOR", "1")), false)]
#[case::forced(&[], Some(("CLICOLOR_FORCE", "1")), true)]
#[case::option_over_no_color(&["--color", "always"], Some(("NO_COLOR", "1")), true)]
#[case::option_over_force(&["--color", "never"], Some(("CLICOLOR_FORCE", "1")), false)]
#[case::json_has_none(&["--color", "always", "--log-format", "json"], None, false)]
fn color_is_where_it_belongs(#[case] args: &[&str], #[case] variable: Option<(&str, &str)>, #[case] colored: bool) {
    let scene = match variable {
        Some((name, value)) => eventful().env(name, value),
        None => eventful(),
    };
    let run = assert_eventful(scene.run(&[&["-v"], args].concat()));
    assert_eq!(run.stderr_text().contains('\u{1b}'), colored, "{run}");
}

#[test]
fn under_the_journal_each_line_has_its_priority() {
    let scene = eventful().file("journal", "");
    let file = std::fs::metadata(scene.path("journal")).unwrap();
    let path = scene.path("journal");
    let stream = format!("{}:{}", file.dev(), file.ino());
    let run = assert_eventful(scene.env("JOURNAL_STREAM", stream).stderr_to(path).run(&["-v"]));
    let text = run.text_of("journal");
    assert!(!text.is_empty());
    for line in text.lines() {
        let bytes = line.as_bytes();
        assert!(bytes[0] == b'<' && bytes[1].is_ascii_digit() && bytes[2] == b'>', "{line}");
        assert!(bytes[1] <= b'7', "{line}");
    }
}

#[test]
fn elsewhere_no_line_has_one() {
    let run = assert_eventful(eventful().env("JOURNAL_STREAM", "1:2").run(&["-v"]));
    assert!(!run.stderr_text().lines().any(|l| l.starts_with('<')), "{run}");
}

#[test]
fn the_result_of_the_main_chain_is_printed_when_it_is_asked_for() {
    let scene = Scene::new().task("1-a.sh", "echo mine; exit 5").config("[runner]\nstop_codes = 5\n");
    let run = scene.run(&["--json"]).exits(5);
    let text = run.stdout_text();
    let (first, document) = text.split_once('\n').unwrap();
    assert_eq!(first, "mine", "{run}");
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let one = &document["runs"][0];
    assert_eq!((document["version"].as_u64(), document["runs"].as_array().unwrap().len()), (Some(1), 1));
    assert_eq!((&one["chain"], &one["outcome"], &one["task"]), (&"main".into(), &"stopped".into(), &"1-a.sh".into()));
    assert!(one["exit_code"] == 5 && one["run_id"].as_str().is_some_and(|id| !id.is_empty()), "{one}");
    assert_eq!(scene.run(&[]).exits(5).stdout_text(), "mine\n");
    let twice = Scene::new().tasks(["1-a.sh"]).run(&["-n", "2", "--json"]).exits(0).json();
    assert_eq!(twice["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn the_help_of_a_command_parts_what_is_its_own_from_what_all_take() {
    let run = Scene::new().run(&["work", "--help"]).exits(0);
    let text = run.stdout_text();
    let (own, every) = text.split_once("Options of every command:").unwrap_or_else(|| panic!("{text}"));
    assert!(own.contains("--drain") && own.contains("With --drain: exit with 1") && !own.contains("--log-format"), "{text}");
    assert!(every.contains("--log-format") && every.contains("--strict") && !every.contains("--fail"), "{text}");
}

#[test]
fn an_option_of_a_run_is_told_from_one_that_is_unknown() {
    let scene = Scene::new().config("[chain:a]\ntask_dir = tasks.d\n");
    scene.run(&["now", "--dry-run"]).exits(64).says("--dry-run is an option of a run: see runner run --help").never_says("'-- --dry-run'");
    scene.run(&["now", "--nonsense"]).exits(64).never_says("option of a run");
}
