//! `runner check` and `runner list`: what they find and show, in words and as JSON.

use rstest::rstest;
use serde_json::Value;

use crate::scene::{Outcome, Scene};
#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
use crate::scene::{is_root_or_skipped, set_mode};

fn good() -> Scene {
    Scene::new().tasks(["1-a.sh", "2-b.sh", "halt.sh"])
}

fn findings(run: &Outcome) -> Vec<Value> {
    run.json()["findings"].as_array().unwrap().clone()
}

fn task<'a>(listed: &'a Value, file: &str) -> &'a Value {
    listed["tasks"].as_array().unwrap().iter().find(|t| t["file"] == file).unwrap()
}

/// A value of `list --json` as text, whatever type it has there.
fn value_of(listed: &Value, file: &str, key: &str) -> String {
    let value = &task(listed, file)["settings"][key]["value"];
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn origin_of(listed: &Value, file: &str, key: &str) -> String {
    task(listed, file)["settings"][key]["origin"].as_str().unwrap().to_owned()
}

// ---- check -------------------------------------------------------------------------------------

#[test]
fn a_good_configuration_has_no_error() {
    let run = good().run(&["check", "--json"]).exits(0);
    let document = run.json();
    assert_eq!(document["version"], 1);
    assert_eq!(document["errors"], 0);
    assert_eq!(document["warnings"], 0);
}

#[test]
fn check_runs_nothing() {
    good().run(&["check"]).exits(0).ran_nothing();
}

#[test]
fn each_finding_has_its_file_and_line() {
    let scene = good().config("[hg]\nk = v\n[runner]\nmax_trys = 1\nmax_time = soon\n[b]\ndepends_on = nobody\n");
    let run = scene.run(&["check"]).exits(78);
    let text = run.stdout_text();
    for place in ["runner.cfg:4: error:", "runner.cfg:5: error:"] {
        assert!(text.lines().any(|l| l.contains(place)), "{place}{run}");
    }
    let run = scene.run(&["check", "--json"]).exits(78);
    let errors: Vec<Value> = findings(&run).into_iter().filter(|f| f["severity"] == "error").collect();
    assert_eq!(run.json()["errors"], errors.len());
    assert!(errors.len() >= 2);
    for error in &errors {
        assert!(error["file"].as_str().unwrap().ends_with("runner.cfg"), "{error}");
        assert!(error["line"].as_u64().unwrap() > 2, "{error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn severities_are_error_warning_and_note() {
    let run = Scene::new().config("[hg]\nurl = http://me:s3cret@x/\n").tasks(["1-a.sh", "1-a.sh~"]).run(&["check", "--json"]);
    for finding in findings(&run) {
        assert!(["error", "warning", "note"].contains(&finding["severity"].as_str().unwrap()), "{finding}");
    }
}

#[test]
fn a_file_that_is_left_out_is_told() {
    good().task("3-c.sh.bak", "exit 0").run(&["check"]).exits(0).prints("3-c.sh.bak");
}

#[test]
fn a_password_in_a_url_is_warned_of_and_not_shown() {
    let run = good().config("[db]\nurl = postgresql://me:s3cret@db/x\n").run(&["check", "--json"]).never_prints("s3cret");
    assert!(findings(&run).iter().any(|f| f["severity"] == "warning" && f["line"] == 2), "{run}");
}

#[test]
fn a_password_in_a_parameter_is_warned_of_and_not_shown() {
    let config = "[runner]\ndatabase = postgresql://127.0.0.1:1/db?user=me&password=s3cret\n[db]\nu = https://me:s3cr/et@h/x\n";
    let scene = good().config(config);
    let run = scene.run(&["check", "--json"]).never_prints("s3cr");
    let warned: Vec<u64> = findings(&run).iter().filter(|f| f["severity"] == "warning").filter_map(|f| f["line"].as_u64()).collect();
    assert_eq!(warned, [2, 4], "{run}");
    let listed = scene.runner_config(&["-c", scene.config_file().to_str().unwrap(), "-l"]).exits(0).never_prints("s3cr");
    listed.prints("user=me&password=***").prints("u = https://me:***@h/x");
    #[cfg(feature = "store")]
    scene.run(&["history"]).never_says("s3cr").never_prints("s3cr");
}

#[test]
fn a_repeated_key_is_found() {
    let run = good().config("[runner]\nmax_tries = 1\nmax_tries = 2\n").run(&["check"]);
    assert!(run.stdout_text().contains("runner.cfg:3") || run.stdout_text().contains("runner.cfg:2"), "{run}");
    run.prints("max_tries");
}

#[test]
fn a_task_directory_that_is_missing_is_an_error() {
    Scene::new().config("[runner]\ntask_dir = nowhere.d\n").run(&["check"]).exits(78).prints("nowhere.d");
}

#[test]
fn a_hook_that_is_missing_is_found() {
    good().config("[runner]\ntask_hook = bin/missing.sh\n").run(&["check"]).prints("runner.cfg:2").prints("missing.sh");
}

#[test]
fn both_intervals_are_found() {
    good().config("[runner]\nrun_interval = 5\nsleep_interval = 5\n").run(&["check"]).exits(78).prints("interval");
}

#[test]
fn a_cycle_is_found() {
    let run = good().config("[a]\ndepends_on = b\n[b]\ndepends_on = a\n").run(&["check"]).exits(78);
    run.prints("1-a.sh").prints("2-b.sh");
}

#[test]
fn a_file_that_cannot_be_read_is_one_finding() {
    let run = Scene::new().raw_config("[runner]\nwhat\n").run(&["check", "--json"]).exits(78);
    let errors: Vec<Value> = findings(&run).into_iter().filter(|f| f["severity"] == "error").collect();
    assert_eq!(errors[0]["line"], 2, "{run}");
    assert!(errors[0]["file"].as_str().unwrap().ends_with("runner.cfg"), "{run}");
}

// ---- list --------------------------------------------------------------------------------------

#[test]
fn a_list_has_the_order_and_what_was_left_out() {
    let run = good().task("3-c.sh~", "exit 0").run(&["list"]).exits(0).ran_nothing();
    let text = run.stdout_text();
    let place = |file: &str| text.find(file).unwrap_or_else(|| panic!("{file}{run}"));
    assert!(place("1-a.sh") < place("2-b.sh"));
    place("3-c.sh~");
}

#[test]
fn the_json_of_a_list_has_a_fixed_shape() {
    let scene = good().config("[b]\ndepends_on = a\n").task("3-c.sh~", "exit 0");
    let listed = scene.run(&["list", "--json"]).exits(0).json();
    assert_eq!(listed["version"], 1);
    assert_eq!(listed["chain"], "main");
    assert_eq!(listed["task_dir"], scene.path("tasks.d").to_str().unwrap());
    let b = task(&listed, "2-b.sh");
    assert_eq!(b["name"], "b");
    assert_eq!(b["depends_on"], serde_json::json!(["1-a.sh"]));
    assert!(b.get("stage").is_some());
    assert!(b["settings"].as_object().unwrap().len() >= 6);
    assert_eq!(task(&listed, "1-a.sh")["depends_on"], serde_json::json!([]));
    let left_out = listed["left_out"].as_array().unwrap();
    assert_eq!(left_out.len(), 2);
    assert!(left_out.iter().all(|l| l["file"].is_string() && l["reason"].is_string()));
}

#[test]
fn main_can_be_named() {
    let scene = good();
    assert_eq!(scene.run(&["list", "main", "--json"]).exits(0).json(), scene.run(&["list", "--json"]).exits(0).json());
}

#[test]
fn an_unknown_chain_is_a_usage_error_with_a_likely_name() {
    good().run(&["list", "mian"]).exits(64).says("did you mean").says("main");
}

#[test]
fn each_setting_says_where_it_comes_from() {
    let scene = good()
        .config("[runner]\ninclude_dir = conf.d\nmax_tries = 9\nkill_after = 7\n[a]\nmax_tries = 2\n[task:b]\nnice = 3\n")
        .file("conf.d/x.cfg", "[runner]\nkill_after = 8\n");
    let listed = scene.run(&["list", "--json", "-s", "runner.umask=077"]).exits(0).json();
    assert_eq!(value_of(&listed, "1-a.sh", "max_tries"), "2");
    assert!(origin_of(&listed, "1-a.sh", "max_tries").ends_with("runner.cfg:6"));
    assert_eq!(value_of(&listed, "2-b.sh", "max_tries"), "9");
    assert!(origin_of(&listed, "2-b.sh", "max_tries").ends_with("runner.cfg:3"));
    assert_eq!(value_of(&listed, "2-b.sh", "nice"), "3");
    assert!(origin_of(&listed, "2-b.sh", "nice").ends_with("runner.cfg:8"));
    assert!(origin_of(&listed, "1-a.sh", "kill_after").ends_with("conf.d/x.cfg:2"));
    assert!(origin_of(&listed, "1-a.sh", "umask").contains("command line"));
    assert!(origin_of(&listed, "1-a.sh", "max_time").contains("default"));
}

#[rstest]
#[case("max_tries", "5")]
#[case("sweep", "on-failure")]
fn the_defaults_are_the_documented_ones(#[case] key: &str, #[case] value: &str) {
    let listed = good().run(&["list", "--json"]).exits(0).json();
    assert_eq!(value_of(&listed, "1-a.sh", key), value);
}

#[test]
fn a_list_shows_no_password() {
    let run = good().config("[task:a]\nargs = postgresql://me:s3cret@db/x\n").run(&["list", "--json"]).exits(0);
    run.never_prints("s3cret").prints("***");
}

#[test]
fn a_list_of_an_empty_directory_is_empty() {
    let listed = Scene::new().run(&["list", "--json"]).exits(0).json();
    assert_eq!(listed["tasks"], serde_json::json!([]));
}

#[test]
fn a_directory_on_the_command_line_can_be_listed_with_set() {
    let scene = good().task_at("other.d/5-x.sh", "exit 0");
    let listed = scene.run(&["list", "--json", "-s", "runner.task_dir=other.d"]).exits(0).json();
    assert_eq!(task(&listed, "5-x.sh")["name"], "x");
}

// ---- check of named chains ---------------------------------------------------------------------

/// The findings as `line severity message`.
fn told(run: &Outcome) -> Vec<String> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let line = |finding: &Value| finding["line"].as_u64().map_or("-".to_owned(), |line| line.to_string());
    findings(run).iter().map(|one| format!("{} {} {}", line(one), text(one, "severity"), text(one, "message"))).collect()
}

fn assert_told(run: &Outcome, parts: &[&str]) {
    let told = told(run);
    for part in parts {
        assert!(told.iter().any(|line| line.contains(part)), "nothing like {part} in {told:#?}");
    }
}

#[test]
fn who_only_has_named_chains_needs_no_main_task_dir() {
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).raw_config("[chain:a]\ntask_dir = a\nschedule = @daily\n");
    let run = scene.run(&["check", "--json"]).exits(0);
    assert!(!told(&run).iter().any(|line| line.contains("runs once")), "{run}");
    Scene::new().raw_config("[runner]\n").run(&["check"]).exits(78).prints("there is no task directory");
}

#[test]
fn the_directory_the_hooks_and_the_sections_of_each_chain_are_judged() {
    let config = "[chain:a]\ntask_dir = a\nchain_hook = ./gone\n[chain:b]\ntask_dir = nowhere\n[chain:c]\nmax_tries = many\n";
    let run = good().tasks_at("a", ["1-x.sh"]).config(config).run(&["check", "--json"]).exits(78);
    assert_told(
        &run,
        &["3 error chain_hook = ", "5 error the task directory", "6 error [chain:c] needs a task_dir", "7 error max_tries = many"],
    );
}

#[test]
fn a_section_of_a_task_has_to_be_of_some_chain() {
    let config = "[chain:night]\ntask_dir = a\n[task:x]\nmax_time = 3\n[task:a]\nmax_time = 3\n[env:xx]\nA = 1\n[task:nihgt/x]\nmax_time = 1\n[task:night/y]\nmax_time = 1\n";
    let run = good().tasks_at("a", ["1-x.sh"]).config(config).run(&["check", "--json"]).exits(78);
    assert_told(
        &run,
        &[
            "7 error [env:xx]: no chain has a task that is called `xx`",
            "9 error [task:nihgt/x]: no chain is called `nihgt`; did you mean `night`?",
        ],
    );
    assert_told(&run, &["11 error [task:night/y]: no task is called `y`"]);
    assert_eq!(run.json()["errors"], 3, "{run}");
}

#[test]
fn a_section_of_nobody_is_told_by_check_strict_and_the_log() {
    // A chain that is none can be told from the configuration alone; so can variables for a task of one chain.
    let scene = good().config("[task:mian/a]\nmax_time = 1\n[env:main/a]\nA = 1\n[task:main/a]\nmax_time = 5\n");
    let texts = [
        "runner.cfg:1: {}[task:mian/a]: no chain is called `mian`; did you mean `main`?",
        "runner.cfg:3: {}[env:main/a]: no task is called `main/a`",
    ];
    for (args, code, mark) in [(&["check"][..], 78, "error: "), (&["--strict", "--dry-run"], 78, ""), (&["--dry-run"], 0, "")] {
        let run = scene.run(args).exits(code);
        let said = format!("{}{}", run.stdout_text(), run.stderr_text());
        texts.iter().for_each(|text| assert!(said.contains(&text.replace("{}", mark)), "{args:?}: {text}{run}"));
    }
    // Whether another chain has the task only its directory tells.
    let scene = good()
        .tasks_at("n", ["1-x.sh"])
        .config("[chain:night]\ntask_dir = n\n[task:zz]\nmax_time = 1\n[task:x]\nmax_time = 3\n[task:night/y]\nmax_time = 3\n");
    let (text, of_chain) = ("[task:zz]: no chain has a task that is called `zz`", "[task:night/y]: no task is called `y`");
    scene.run(&["check"]).exits(78).prints(text).prints(of_chain).never_prints("[task:x]");
    scene.run(&["--strict"]).exits(78).says(text).says(of_chain).never_says("[task:x]").ran_nothing();
    scene.run(&["--dry-run"]).exits(0).never_says("task:");
    #[cfg(all(feature = "schedule", feature = "store"))]
    scene.run(&["tick"]).exits(0).says(text).says(of_chain);
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[test]
fn what_is_doubtful_in_a_schedule_is_told_with_the_line_of_its_rule() {
    let config = "[chain:a]\ntask_dir = a\ntimezone = Europe/Prague\nschedule =\n  0 0 13 * fri\n  daily 2:30\n  30 2 * * *\n  * 2 * * *\n\
                  random_delay = 1h\n[chain:i]\ntask_dir = a\nidle = yes\nwindow = 0\nscope = cluster\n";
    let run = good().tasks_at("a", ["1-x.sh"]).config(config).run(&["check", "--json"]).exits(78);
    let told_of =
        ["5 warning schedule: day of month", "6 note schedule: the clock skips", "7 warning schedule: this rule names the same moments"];
    assert_told(&run, &told_of);
    assert_told(
        &run,
        &[
            "8 warning schedule: the minute is `*`",
            "9 warning random_delay is 1 h, and two slots are only 1 min apart",
            "13 error window = 0",
            "14 error scope = cluster",
        ],
    );
    let run =
        good().tasks_at("a", ["1-x.sh"]).config("[chain:a]\ntask_dir = a\nschedule = @daily\n  61 * * * *\n").run(&["check", "--json"]);
    assert_told(&run.exits(78), &["4 error schedule: minute `61`"]);
}

/// What `check` says of a chain of each minute with these keys, whose last runs took so many seconds, the oldest first.
#[cfg(all(feature = "schedule", feature = "store"))]
fn check_after(keys: &str, seconds: &[u64]) -> (crate::scene::Scene, Outcome) {
    use runner::store::Store;
    let scene = good().tasks_at("a", ["1-x.sh"]).config(&format!("[chain:a]\ntask_dir = a\nschedule = * * * * *\n{keys}\n"));
    let record = |(number, seconds): (usize, &u64)| runner::store::record::RunRecord {
        duration_ms: Some(seconds * 1000),
        ..crate::status::run(&format!("r{number}"), "a", "done", 10_000 - i64::try_from(number).unwrap())
    };
    std::fs::create_dir(scene.path(crate::scene::STATE_DIR)).unwrap();
    crate::status::store(&scene).put_runs(&seconds.iter().enumerate().map(record).collect::<Vec<_>>()).unwrap();
    let run = scene.run(&["check"]).exits(0);
    (scene, run)
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[rstest]
#[case("", "a slot that comes meanwhile is given up (overlap = skip)")]
#[case("overlap = queue", "the others are given up (overlap = queue)")]
#[case("overlap = replace", "a run is stopped when the next slot comes (overlap = replace)")]
fn slots_that_always_find_their_chain_running_are_a_warning(#[case] keys: &str, #[case] expected: &str) {
    let (scene, run) = check_after(keys, &[1, 75, 63, 61, 70, 300, 90, 62, 80, 63, 64]);
    let gap = if keys.contains("queue") { "slots are 60.0 s apart on average" } else { "two slots are only 60.0 s apart" };
    let text = format!("{gap}, and each of the last 10 runs that were done took longer, 61.0 s at least: ");
    run.prints(&format!("runner.cfg:3: warning: schedule: {text}")).prints(expected);
    scene.run(&["why", "a"]).exits(0).prints(&text).prints("-> a longer time between slots, in ").prints("runner.cfg:3, or tasks");
}

/// Killed each time, such a chain never does what it is for, and nothing of it was done that could be judged.
#[cfg(all(feature = "schedule", feature = "store"))]
#[rstest]
#[case::none("replace", 3, Some("each of the last 3 runs was stopped by the next slot, none came to its end: a run is stopped when"))]
#[case::some("replace", 2, Some("of the last 3 runs 2 were stopped by the next slot, and the others took 70.0 s at least: a run is"))]
#[case::of_another_time("skip", 3, None)]
fn a_chain_that_each_slot_stops_is_a_warning(#[case] overlap: &str, #[case] replaced: usize, #[case] expected: Option<&str>) {
    use runner::store::Store;
    let keys = format!("[chain:a]\ntask_dir = a\nschedule = * * * * *\noverlap = {overlap}\n");
    let scene = good().tasks_at("a", ["1-x.sh"]).config(&keys);
    let record = |number: usize| {
        let outcome = if number < replaced { "signalled" } else { "done" };
        let (slot, run) = ("2026-11-21T12:01:00Z".to_owned(), format!("r{number}"));
        runner::store::record::RunRecord {
            duration_ms: Some(70_000),
            message: (outcome == "signalled").then(|| runner::event::StoppedBy::Slot(slot).words(15)),
            ..crate::status::run(&run, "a", outcome, 10_000 - i64::try_from(number).unwrap())
        }
    };
    std::fs::create_dir(scene.path(crate::scene::STATE_DIR)).unwrap();
    crate::status::store(&scene).put_runs(&(0..3).map(record).collect::<Vec<_>>()).unwrap();
    let (check, why) = (scene.run(&["check"]).exits(0), scene.run(&["why", "a"]).exits(0));
    match expected {
        Some(words) => {
            let text = format!("two slots are only 60.0 s apart, and {words}");
            check.prints(&format!("runner.cfg:3: warning: schedule: {text}"));
            why.prints(&text)
        }
        None => check.never_prints("slots are only"),
    };
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[rstest]
#[case::a_quick_one("", &[70, 70, 5])]
#[case::too_few("", &[70, 70])]
#[case::nobody_fires_it("enabled = no", &[70, 70, 70])]
fn what_may_have_been_an_accident_is_no_warning(#[case] keys: &str, #[case] seconds: &[u64]) {
    let (scene, run) = check_after(keys, seconds);
    run.never_prints("took longer");
    scene.run(&["why", "a"]).exits(0).never_prints("took longer");
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[test]
fn check_makes_no_database_and_says_nothing_of_one_that_it_cannot_read() {
    let scene = good().tasks_at("a", ["1-x.sh"]).config("[chain:a]\ntask_dir = a\nschedule = * * * * *\n");
    let without = scene.run(&["check"]).exits(0).stdout_text();
    assert!(!scene.path(crate::scene::STATE_DIR).exists());
    let (scene, with) = check_after("", &[70, 70, 70]);
    assert_ne!(with.stdout_text().matches("warning").count(), without.matches("warning").count());
    std::fs::write(scene.path(crate::scene::STATE_DIR).join("runner.db"), "no database").unwrap();
    let broken = scene.run(&["check"]).exits(0);
    assert_eq!(broken.stdout_text().matches("warning").count(), without.matches("warning").count(), "{broken}");
    assert_eq!(broken.stderr_text(), "");
}

// ---- check of the daemon -----------------------------------------------------------------------

#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
#[rstest]
#[case("listen = 7780", "5 error listen: `7780` is no address with a port")]
#[case("listen = localhost:778000", "5 error listen: `localhost:778000` is no address with a port")]
#[case("listen = 127.0.0.1", "5 error listen: `127.0.0.1` is no address with a port")]
#[case("listen = 0.0.0.0:17780", "5 error listen: 0.0.0.0:17780 can be reached from other machines, and that needs a token_file")]
#[case("allow = 10.0.0.0/99\nlisten = 127.0.0.1:0", "5 error allow: ")]
#[case("listen = 127.0.0.1:0\ntoken_file = gone", "6 error token_file: ")]
#[case("listen = 127.0.0.1:0\ntoken_file = empty", "6 error token_file: ")]
fn what_the_daemon_refuses_is_an_error_of_check_and_both_name_the_line(#[case] lines: &str, #[case] expected: &str) {
    let config = format!("[chain:a]\ntask_dir = a\nschedule = @daily\n[daemon]\n{lines}\n");
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).file("empty", "\n").raw_config(config);
    let run = scene.run(&["check", "--json"]).exits(78);
    assert_told(&run, &[expected]);
    let (line, message) = expected.split_once(" error ").unwrap();
    scene.run(&["daemon"]).exits(78).says(&format!("runner.cfg:{line}: {message}"));
}

#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
#[test]
fn a_token_that_is_a_poor_secret_is_a_warning_with_its_line() {
    let config = "[chain:a]\ntask_dir = a\n[daemon]\nlisten = 127.0.0.1:0\ntoken_file = token\n";
    let run = Scene::new().tasks_at("a", ["1-a.sh"]).file("token", "short\n").raw_config(config).run(&["check", "--json"]).exits(0);
    assert_told(&run, &["5 warning token_file: ", "which can be guessed"]);
    // A token that nobody asks for may be missing.
    let config = "[chain:a]\ntask_dir = a\n[daemon]\ntoken_file = gone\n";
    Scene::new().tasks_at("a", ["1-a.sh"]).raw_config(config).run(&["check"]).exits(0);
}

#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
#[test]
fn a_token_that_only_the_user_of_the_daemon_may_read_is_no_error_of_check() {
    if !is_root_or_skipped() {
        return;
    }
    let config = "[chain:a]\ntask_dir = a\n[daemon]\nlisten = 127.0.0.1:0\ntoken_file = token\n";
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).file("token", "0123456789abcdef\n").mode("token", 0o600).raw_config(config);
    assert_eq!(scene.run(&["check", "--json"]).exits(0).json()["warnings"], 0);
    set_mode(scene.root(), 0o755);
    let scene = scene.under(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert_told(&scene.run(&["check", "--json"]).exits(0), &["5 warning token_file: ", "Permission denied"]);
    scene.run(&["daemon"]).exits(78).says("runner.cfg:5: token_file: ");
}

// ---- who has no main chain ---------------------------------------------------------------------

#[test]
fn a_queue_alone_is_a_whole_configuration() {
    let config = "[queue:default]\ntask_dir = q.d\n[task:mail]\nmax_time = 5\n[task:gone]\nmax_time = 5\n";
    let scene = Scene::new().tasks_at("q.d", ["mail.sh"]).raw_config(config);
    let run = scene.run(&["check", "--json"]).exits(78);
    assert_told(&run, &["5 error [task:gone]: no chain has a task that is called `gone`"]);
    assert_eq!(run.json()["errors"], 1, "{run}");
    Scene::new()
        .raw_config("[queue:default]\ntask_dir = q.d\n")
        .run(&["check"])
        .exits(78)
        .prints("runner.cfg:2: error: the task directory");
    // A task of a queue is no slip of the main chain, which is not the only one that has tasks.
    let scene = good().config("[queue:default]\ntask_dir = q.d\n[task:mail]\nmax_time = 5\n").tasks_at("q.d", ["mail.sh"]);
    scene.run(&["check"]).exits(0);
    scene.run(&["--strict"]).exits(0);
}

#[rstest]
#[case(&["list"])]
#[case(&["--dry-run"])]
#[case(&[])]
fn who_asks_for_a_main_chain_is_told_of_the_others(#[case] args: &[&str]) {
    let scene = Scene::new().raw_config("[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = b\n[queue:q]\ntask_dir = c\n");
    let run = scene.run(args).exits(78).says("there is no main chain, [runner] has no task_dir; chains: a, b (");
    run.says("runner list a)").says("queues: q (");
    Scene::new().raw_config("[runner]\n").run(args).exits(78).says("there is no task directory: name one");
}

// ---- the cause, and not what follows from it ---------------------------------------------------

#[rstest]
#[case("[runner\ntask_dir = tasks.d\n")]
#[case("[runner]\nwhat\ntask_dir = tasks.d\n")]
fn of_a_file_that_cannot_be_read_only_the_line_is_told(#[case] config: &str) {
    let scene = good().raw_config(config);
    let run = scene.run(&["check", "--json"]).exits(78);
    let errors: Vec<Value> = findings(&run).into_iter().filter(|f| f["severity"] == "error").collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error["line"].is_u64()), "{run}");
    scene.run(&["list"]).exits(78).never_says("no task directory").says("runner.cfg:");
    scene.run(&["list", "night"]).exits(78).never_says("no chain is called").says("runner.cfg:");
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[rstest]
#[case("now")]
#[case("schedule")]
#[case("status")]
#[case("why")]
fn nobody_misses_a_chain_in_a_file_that_cannot_be_read(#[case] command: &str) {
    let scene = Scene::new().raw_config("[chain:a]\ntask_dir = a\n[my\n");
    scene.run(&[command, "a"]).exits(78).never_says("no chain is called").says("runner.cfg:3:");
}

#[test]
fn of_a_task_directory_that_is_not_there_only_that_is_told() {
    let scene = Scene::new().raw_config("[runner]\ntask_dir = nowhere.d\nhalt_task = stop.sh\n");
    let run = scene.run(&["check", "--json"]).exits(78);
    assert_told(&run, &["2 error the task directory"]);
    assert!(!told(&run).iter().any(|line| line.contains("halt task")), "{run}");
    // One that stands elsewhere is missing for a reason of its own.
    let scene = Scene::new().raw_config("[runner]\ntask_dir = nowhere.d\nhalt_task = /nowhere/stop.sh\n");
    assert_told(&scene.run(&["check", "--json"]).exits(78), &["2 error the task directory", "3 error the halt task /nowhere/stop.sh"]);
}

// ---- programs that would not start -------------------------------------------------------------

#[test]
fn an_interpreter_of_one_task_has_to_be_there_as_that_of_all() {
    let config = "[task:a]\ninterpreter = bshx -e\n[chain:n]\ntask_dir = n\n[task:x]\ninterpreter = ./gone\n[queue:q]\ntask_dir = q\n[task:y]\ninterpreter = zshx\n";
    let scene = good().tasks_at("n", ["1-x.sh"]).tasks_at("q", ["y.sh"]).config(config);
    let run = scene.run(&["check", "--json"]).exits(78).ran_nothing();
    let line = config.lines().position(|line| line.contains("bshx")).unwrap() + 1;
    assert_told(&run, &[&format!("{line} error interpreter = bshx: there is no such program")]);
    assert_told(&run, &["6 error interpreter = ", "/gone: there is no such program", "10 error interpreter = zshx"]);
    assert_eq!(run.json()["errors"], 3, "{run}");
}

#[rstest]
#[case("#!/usr/bin/pithon3\nx\n", "the interpreter `/usr/bin/pithon3` in the first line of")]
#[case("", "is empty: begin it with a line such as #!/bin/sh")]
#[case("#!/bin/sh\r\nexit 0\r\n", "the interpreter `/bin/sh\\r` in the first line of")]
#[case("#!/bin/sh -e\r\nexit 0\r\n", "ends with a carriage return, which `/bin/sh` takes for a part of its argument")]
#[case("#!/usr/bin/env pithon3\n", "`pithon3`, which the first line of")]
#[case("#!/usr/bin/env -S pithon3 -u\n", "`pithon3`, which the first line of")]
#[case("echo hello\n", "is no program: begin it with a line such as #!/bin/sh")]
#[case("#!\n", "has a first line that names no interpreter")]
#[case("#!/etc\n", "the interpreter `/etc` in the first line of")]
#[case("\u{feff}#!/bin/sh\n", "begins with a byte order mark")]
fn a_first_line_that_starts_nothing_is_a_warning(#[case] content: &str, #[case] expected: &str) {
    let config = "[runner]\ntask_hook = ./hook\n[chain:n]\ntask_dir = n\n[queue:q]\ntask_dir = q\n";
    let mut scene = good().config(config);
    for path in ["tasks.d/3-x", "n/1-x", "q/x", "hook"] {
        scene = scene.file(path, content).mode(path, 0o755);
    }
    let run = scene.run(&["check", "--json"]).exits(0);
    let found: Vec<String> = told(&run).into_iter().filter(|line| line.contains(expected)).collect();
    assert_eq!(found.len(), 4, "{run}");
    assert!(found.iter().all(|line| line.contains("warning") && line.contains("cannot start: ")), "{found:?}");
    // And so it is when it runs.
    let run = good().file("tasks.d/3-x", content).mode("tasks.d/3-x", 0o755).run(&["--only", "3-x", "-s", "runner.max_tries=1"]);
    // What a shell makes of an option it does not know is its own affair.
    if !content.contains("sh -e") {
        run.exits(1);
    }
}

#[rstest]
#[case("#!/bin/sh\nexit 0\n")]
#[case("#! /bin/sh -e\n")]
#[case("#!/usr/bin/env -S A=1 sh -e\n")]
#[case("#!/usr/bin/env -i sh\n")]
#[case("MZ\0binary of another system")]
fn a_first_line_that_may_start_is_no_finding(#[case] content: &str) {
    let scene = good().file("tasks.d/3-x", content).mode("tasks.d/3-x", 0o755);
    let run = scene.run(&["check", "--json"]).exits(0);
    assert_eq!(run.json()["warnings"], 0, "{run}");
    // What an interpreter reads needs no such line.
    let scene = good().file("tasks.d/3-x", "echo hello\n").config("[runner]\ninterpreter = sh\n");
    assert_eq!(scene.run(&["check", "--json"]).exits(0).json()["warnings"], 0);
}

#[test]
fn a_hook_and_a_halt_task_that_nobody_may_execute_are_warnings() {
    let config = "[runner]\nchain_hook = ./hook\nhalt_task = stop\n";
    let scene = good().config(config).file("hook", "#!/bin/sh\n").mode("hook", 0o644).file("tasks.d/stop", "#!/bin/sh\n");
    let run = scene.run(&["check", "--json"]).exits(0);
    assert_told(&run, &["warning chain_hook cannot start: ", "/hook may not be executed", "the halt task cannot start: "]);
}

// ---- slips in the name of a section ------------------------------------------------------------

#[test]
fn a_section_that_is_nearly_one_of_ours_is_a_note() {
    let config = "[tasks:a]\nmax_time = 1\n[Chain:n]\ntask_dir = n\n[runer]\nmax_tries = 2\n[hg]\nremote = x\n[demon]\nmax_time = 1\n";
    let scene = good().task("4-demon.sh", "exit 0").config(config);
    let run = scene.run(&["check", "--json", "-s", "Runner.max_tries=1"]).exits(0);
    assert_told(
        &run,
        &[
            "1 note nothing is read from [tasks:a], it is the user's own section; did you mean [task:a]?",
            "3 note nothing is read from [Chain:n], it is the user's own section; did you mean [chain:n]?",
            "5 note nothing is read from [runer], it is the user's own section; did you mean [runner]?",
            "- note nothing is read from [Runner], it is the user's own section; did you mean [runner]?",
        ],
    );
    assert!(!told(&run).iter().any(|line| line.contains("[hg]") || line.contains("[demon]")), "{run}");
}
