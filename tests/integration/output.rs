//! What tasks print: as it is, marked with its task, or only when they failed.

use rstest::rstest;

use crate::scene::{Outcome, Scene};

fn scene(output: &str) -> Scene {
    Scene::new().config(&format!("[runner]\nmax_tries = 1\nhalt_on_give_up = no\noutput = {output}\n"))
}

/// Both streams, line by line.
fn lines(run: &Outcome) -> Vec<String> {
    let both = format!("{}\n{}", run.stdout_text(), run.stderr_text());
    both.lines().map(str::to_owned).collect()
}

/// The one line that has this in it.
#[track_caller]
fn line_with(run: &Outcome, fragment: &str) -> String {
    let found: Vec<String> = lines(run).into_iter().filter(|l| l.contains(fragment)).collect();
    assert_eq!(found.len(), 1, "{fragment}{run}");
    found[0].clone()
}

// ---- inherit -----------------------------------------------------------------------------------

#[test]
fn inherited_output_is_untouched() {
    let run = scene("inherit").task("1-a.sh", "play bytes 00ff610a62 err oops").run(&["-q"]).exits(0);
    assert_eq!(run.stdout, b"\x00\xff\x61\x0a\x62");
    assert_eq!(run.stderr_text(), "oops");
}

#[test]
fn inherited_descriptors_are_those_of_runner() {
    let run = scene("inherit").task("1-a.sh", "play report r.json").run(&[]).exits(0);
    assert_eq!(run.report("r.json")["fds"]["1"], run.stdout_file().to_str().unwrap());
}

#[test]
fn one_at_a_time_inherits_and_several_are_marked() {
    let fds = |width: &str| {
        let run = scene("auto").config(&format!("max_parallel = {width}\n")).task("1-a.sh", "play report r.json").run(&[]).exits(0);
        (run.report("r.json")["fds"]["1"].clone(), run.stdout_file().to_str().unwrap().to_owned())
    };
    let (one, file) = fds("1");
    assert_eq!(one, file);
    let (several, file) = fds("2");
    assert_ne!(several, file);
}

// ---- prefix ------------------------------------------------------------------------------------

#[test]
fn each_line_is_marked_with_its_task() {
    let run =
        scene("prefix").task("1-alpha.sh", "echo first; echo second >&2").task("2-beta.sh", "printf 'third\\nfourth'").run(&[]).exits(0);
    for (task, text) in [("alpha", "first"), ("alpha", "second"), ("beta", "third"), ("beta", "fourth")] {
        let line = line_with(&run, text);
        assert!(line.find(task).unwrap() < line.find(text).unwrap(), "{line}");
    }
}

#[test]
fn lines_of_several_tasks_do_not_mix() {
    let many = "i=0; while [ $i -lt 300 ]; do echo \"<$me line $i of a long long long story>\"; i=$((i+1)); done";
    let run = scene("prefix").config("max_parallel = 4\n").task("1-a.sh", many).task("1-b.sh", many).task("1-c.sh", many).run(&[]).exits(0);
    let all = lines(&run);
    for task in ["1-a.sh", "1-b.sh", "1-c.sh"] {
        let own: Vec<&String> = all.iter().filter(|l| l.contains(&format!("<{task} line"))).collect();
        assert_eq!(own.len(), 300);
        for (n, line) in own.iter().enumerate() {
            assert!(line.ends_with(&format!("<{task} line {n} of a long long long story>")), "{line}");
        }
    }
}

#[rstest]
#[case::into_a_file(&[])]
// The pipe is full again and again, for a moment each time.
#[case::into_a_pipe(&["sh", "-c", "\"$0\" \"$@\" | cat"])]
fn all_that_is_marked_is_shown_however_much_it_is(#[case] under: &[&str]) {
    let task = "play out 'the begin\n' flood 1000000 out 'the end\n'";
    let run = scene("prefix").task("1-a.sh", task).under(under).run(&[]).exits(0);
    let all = lines(&run);
    assert!(all.iter().any(|l| l.ends_with("the begin")));
    assert!(all.iter().any(|l| l.ends_with("the end")));
    assert_eq!(all.iter().filter(|l| l.contains("flood xxx")).count(), 1_000_000 / 64);
}

// ---- capture -----------------------------------------------------------------------------------

#[test]
fn what_a_good_task_printed_is_not_shown() {
    let run = scene("capture").task("1-a.sh", "echo hello; echo yonder >&2").run(&[]).exits(0);
    assert!(!lines(&run).iter().any(|l| l.contains("hello") || l.contains("yonder")), "{run}");
}

#[test]
fn what_a_failed_task_printed_is_shown() {
    let run = scene("capture").task("1-a.sh", "echo splendid").task("2-b.sh", "echo hello; echo yonder >&2; exit 1").run(&[]).exits(1);
    line_with(&run, "hello");
    line_with(&run, "yonder");
    assert!(!lines(&run).iter().any(|l| l.contains("splendid")), "{run}");
}

#[rstest]
#[case::killed("echo hello; kill -KILL $$", 1)]
#[case::timed_out("echo hello; play pause", 1)]
#[case::halting("echo hello; exit 2", 3)]
fn every_failure_shows_it(#[case] body: &str, #[case] code: i32) {
    let run = scene("capture").config("max_time = 0.6\n").task("1-a.sh", body).tasks(["halt.sh"]).run(&[]).exits(code);
    line_with(&run, "hello");
}

#[test]
fn each_failed_try_shows_its_own() {
    let run = Scene::new()
        .config("[runner]\nmax_tries = 3\noutput = capture\n")
        .task("1-a.sh", "echo \"this is try $RUNNER_TRY.\"; [ \"$RUNNER_TRY\" = 3 ]")
        .run(&[])
        .exits(0);
    line_with(&run, "this is try 1.");
    line_with(&run, "this is try 2.");
    assert!(!lines(&run).iter().any(|l| l.contains("this is try 3.")));
}

#[test]
fn the_last_64_kib_are_kept() {
    let run =
        scene("capture").task("1-a.sh", "play out 'the begin\n' flood 300000 out 'the end\n' exit 1").run(&[]).exits(1).quicker_than(9);
    let all = lines(&run);
    assert!(!all.iter().any(|l| l.contains("the begin")));
    assert!(all.iter().any(|l| l.contains("the end")));
    let kept = all.iter().filter(|l| l.contains("flood xxx")).count() * 64;
    assert!((50_000..=65_536).contains(&kept), "{kept}");
}

// ---- whatever it is ----------------------------------------------------------------------------

#[rstest]
#[case("prefix")]
#[case("capture")]
fn bytes_that_are_no_text_do_no_harm(#[case] output: &str) {
    let run = scene(output).task("1-a.sh", "play out 'first words\n' bytes ff00fec3280a80 out '\nlast words\n' exit 1").run(&[]).exits(1);
    line_with(&run, "first words");
    line_with(&run, "last words");
}

#[rstest]
#[case("inherit")]
#[case("prefix")]
#[case("capture")]
fn a_flood_holds_nobody_up(#[case] output: &str) {
    scene(output).task("1-a.sh", "play flood 5000000").task("2-b.sh", "exit 0").run(&[]).exits(0).ran(["1-a.sh", "2-b.sh"]);
}

#[rstest]
#[case("prefix")]
#[case("capture")]
fn a_line_without_end_holds_nobody_up(#[case] output: &str) {
    let run =
        scene(output).task("1-a.sh", "head -c 2000000 /dev/zero | tr '\\0' y; echo; echo told; exit 1").run(&[]).exits(1).quicker_than(9);
    assert!(lines(&run).iter().any(|l| l.contains("told")));
}

#[test]
fn one_task_may_have_another_output() {
    let run = scene("capture")
        .config("[task:b]\noutput = inherit\n")
        .task("1-a.sh", "echo hidden")
        .task("2-b.sh", "echo shown")
        .run(&[])
        .exits(0);
    line_with(&run, "shown");
    assert!(!lines(&run).iter().any(|l| l.contains("hidden")));
}
