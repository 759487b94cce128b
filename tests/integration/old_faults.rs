//! The faults of the old runner, one test for each: none of them may come back.

use crate::scene::Scene;

const EIGHT: [&str; 8] = ["0-a.sh", "1-b.sh", "2-c.sh", "3-d.sh", "4-e.sh", "5-f.sh", "6-g.sh", "7-h.sh"];

/// Eight tasks, of which those at `failing` fail once.
fn eight(config: &str, failing: &[usize]) -> Scene {
    EIGHT.iter().enumerate().fold(Scene::new().config(config), |scene, (at, task)| {
        scene.task(task, if failing.contains(&at) { "once && exit 1; exit 0" } else { "exit 0" })
    })
}

#[test]
fn fault_01_a_retry_skipped_tasks() {
    for retry_from in ["start", "failed"] {
        for at in [2, 4, 7] {
            let run = eight(&format!("[runner]\nretry_from = {retry_from}\n"), &[at]).run(&[]).exits(0);
            let log = run.log();
            assert_eq!(log.iter().filter(|l| l.starts_with(EIGHT[at])).count(), 2, "{run}");
            for task in EIGHT {
                assert!(log.iter().any(|l| l.starts_with(task)), "{task} never ran{run}");
            }
            assert!(log.last().unwrap().starts_with("7-h.sh"), "{run}");
        }
    }
}

#[test]
fn fault_02_a_retry_began_at_the_failed_task() {
    eight("", &[1])
        .run(&[])
        .exits(0)
        .logged(["0-a.sh 1", "1-b.sh 1", "0-a.sh 2", "1-b.sh 2", "2-c.sh 2", "3-d.sh 2", "4-e.sh 2", "5-f.sh 2", "6-g.sh 2", "7-h.sh 2"]);
}

#[test]
fn fault_03_jitter_was_never_read() {
    // Eight waits of up to 0.3 s each: that they are all next to nothing will not be seen.
    Scene::new()
        .config("[runner]\nretry_jitter = 0.3\nmax_tries = 9\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .slower_than(150)
        .quicker_than(9);
}

#[test]
fn fault_04_values_of_one_task_stayed_text() {
    Scene::new()
        .config("[runner]\nsleep_time = 60\n[a]\nmax_time = 0.3\nmax_tries = 2\nsleep_time = 0\nretry_jitter = 0\n")
        .task("1-a.sh", "play pause")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "1-a.sh", "halt.sh"])
        .quicker_than(9);
}

#[test]
fn fault_05_one_task_used_up_the_tries_of_another() {
    Scene::new()
        .config("[runner]\nmax_tries = 3\nretry_from = failed\n")
        .task("1-a.sh", "[ \"$RUNNER_TRY\" = 3 ]")
        .task("2-b.sh", "[ \"$RUNNER_TRY\" = 3 ]")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 3", "2-b.sh 1", "2-b.sh 2", "2-b.sh 3"]);
    Scene::new()
        .config("[runner]\nmax_tries = 9\n[b]\nmax_tries = 2\n")
        .task("1-a.sh", "[ \"$RUNNER_TRY\" -ge 4 ]")
        .task("2-b.sh", "once && exit 1; exit 0")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 3", "1-a.sh 4", "2-b.sh 4", "1-a.sh 5", "2-b.sh 5"]);
}

#[test]
fn fault_06_a_time_out_left_the_first_copy_running() {
    let body = "if [ \"$RUNNER_TRY\" = 1 ]; then\n\
        play ignore TERM child { ignore TERM pid-file child pause } daemon { pid-file daemon pause } pid-file first pause\n\
        fi\n\
        for left in first child daemon; do [ -e \"/proc/$(cat \"$SCENE/$left\")\" ] && exit 2; done\nexit 0";
    Scene::new()
        .config("[runner]\nmax_time = 0.6\nkill_after = 0.2\n")
        .task("1-a.sh", body)
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "1-a.sh 2"])
        .nothing_alive();
}

#[test]
fn fault_07_what_could_not_be_started_was_a_crash() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\n")
        .file("tasks.d/1-a.sh", "#!/no/such/interpreter\n")
        .mode("tasks.d/1-a.sh", 0o755)
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["halt.sh"])
        .says("1-a.sh");
    Scene::new().task("1-plain.sh", "exit 1").mode("tasks.d/1-plain.sh", 0o644).tasks(["2-b.sh"]).run(&[]).exits(0).ran(["2-b.sh"]);
    Scene::new().config("[runner]\ntask_hook = /no/such/hook\n").tasks(["1-a.sh"]).run(&[]).exits(0).ran(["1-a.sh"]);
    let run = Scene::new().config("[runner]\ninterpreter = /no/such/interpreter\nmax_tries = 2\n").tasks(["1-a.sh"]).run(&[]);
    assert!(matches!(run.status.code(), Some(1 | 78)), "{run}");
    run.ran_nothing().says("/no/such/interpreter");
}

#[test]
fn fault_08_names_lost_their_dashes_and_dots() {
    Scene::new()
        .config("[foo-bar.v2]\nmax_tries = 1\n[a]\ndepends_on = foo-bar.v2\n[b]\ndepends_on = 6-foo-bar.v2.py\n")
        .tasks(["1-a.sh", "2-b.sh", "6-foo-bar.v2.py"])
        .run(&[])
        .exits(0)
        .ran(["6-foo-bar.v2.py", "1-a.sh", "2-b.sh"]);
    Scene::new().config("[a]\ndepends_on = foobarv2\n").tasks(["1-a.sh", "6-foo-bar.v2.py"]).run(&[]).exits(78).ran_nothing();
    Scene::new().config("[a]\ndepends_on = b\n[b]\ndepends_on = a\n").tasks(["1-a.sh", "2-b.sh"]).run(&[]).exits(78);
}

#[test]
fn fault_09_the_order_was_left_to_chance() {
    let scene = ["z", "y", "x", "w", "v"]
        .iter()
        .fold(Scene::new(), |scene, name| scene.file(format!("conf.d/{name}.cfg"), format!("[hg]\nk = {name}\n")));
    let scene = scene
        .config("[runner]\ninclude_dir = conf.d\n[a]\ndepends_on = e, d, c\n[b]\ndepends_on = c, e, d\n")
        .tasks(["5-e.sh", "5-d.sh", "5-c.sh", "5-b.sh", "5-a.sh"]);
    scene.runner_config(&["-g", "hg.k"]).exits(0).prints_line("z");
    for _ in 0..3 {
        std::fs::write(scene.path("log"), "").unwrap();
        scene.run(&[]).exits(0).ran(["5-c.sh", "5-d.sh", "5-e.sh", "5-a.sh", "5-b.sh"]);
    }
}

#[test]
fn fault_10_left_overs_and_directories_were_run() {
    Scene::new()
        .tasks(["1-a.sh", "1-a.sh~", "1-a.sh.bak", "1-a.sh.dpkg-old", "#1-a.sh#", ".1-a.sh.swp"])
        .dir("tasks.d/2-directory")
        .run(&[])
        .exits(0)
        .ran(["1-a.sh"]);
}

#[test]
fn fault_11_a_quote_broke_the_hook() {
    let name = "1-it's \"a\" $(task).sh";
    let run =
        Scene::new().hook_keeper("bin/hook.sh", "").config("[runner]\ntask_hook = bin/hook.sh\n").task(name, "exit 0").run(&[]).exits(0);
    assert!(run.hook_calls().iter().all(|call| call["task"] == name));
    assert_eq!(run.hook_calls().len(), 2);
}

#[test]
fn fault_12_a_hook_could_block_for_as_long_as_a_task() {
    Scene::new()
        .script("bin/hook.sh", "play pause")
        .config("[runner]\ntask_hook = bin/hook.sh\nmax_time = 600\nhook_max_time = 0.3\nkill_after = 0.2\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0)
        .ran(["1-a.sh"])
        .quicker_than(9);
}

#[test]
fn fault_13_a_missing_key_was_no_failure_and_a_blank_broke_the_command() {
    Scene::in_directory_named("runner scene ")
        .config("[hg]\nremote = there\n")
        .task("1-a.sh", "say $($RUNNER_CONFIG_CMD -g hg.remote); $RUNNER_CONFIG_CMD -g hg.missing && say found; exit 0")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "- there"]);
    Scene::new().run(&["-g", "hg.missing"]).exits(1);
}

#[test]
fn fault_14_halt_after_ignored_interpreter_and_environment() {
    Scene::new()
        .script("bin/interpreter", "say interpreted\nexec /bin/sh \"$@\"")
        .config("[runner]\ninterpreter = bin/interpreter\n[env]\nCOLOUR = red\n")
        .task("halt.sh", "say \"$COLOUR\"")
        .mode("tasks.d/halt.sh", 0o644)
        .run(&["-n", "1", "-H"])
        .exits(0)
        .logged(["- interpreted", "halt.sh -", "- red"]);
}

#[test]
fn fault_15_it_looked_once_a_second_or_once_in_twenty() {
    let tasks: Vec<String> = (0..30).map(|n| format!("{n}-task.sh")).collect();
    Scene::new().config("[runner]\nmax_time = 0\n").tasks(tasks.iter().map(String::as_str)).run(&[]).exits(0).quicker_than(5);
}

#[test]
fn fault_16_exit_2_means_halt_to_tools_that_do_not_know_it() {
    let grep = "grep -q pattern /no/such/file";
    let scene = || Scene::new().task("1-a.sh", grep).tasks(["halt.sh"]);
    scene().run(&[]).exits(3).ran(["1-a.sh", "halt.sh"]);
    scene().config("[runner]\nhalt_codes = 99\nmax_tries = 2\nhalt_on_give_up = no\n").run(&[]).exits(1).ran(["1-a.sh", "1-a.sh"]);
    scene().run(&["check"]).exits(0).prints("halt_codes");
    scene().config("[runner]\nhalt_codes = 99\n").run(&["check"]).exits(0).never_prints("halt_codes");
}
