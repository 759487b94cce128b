//! Trust: what others could write is never executed by root.

use std::process::Command;

use rstest::rstest;

use crate::scene::{Outcome, Scene, is_root_or_skipped, runner_binary, succeeds};

/// Some user and group that are not ours.
const OTHER: u32 = 65_534;

/// A scene that uses everything which could be executed; each of them would leave a line in the log.
fn whole() -> Scene {
    Scene::new()
        .script("bin/hook.sh", "say hook")
        .script("bin/chain.sh", "say chain")
        .script("bin/interpreter", "say interpreter\nexec /bin/sh \"$@\"")
        .config("[runner]\ntask_hook = bin/hook.sh\nchain_hook = bin/chain.sh\ninterpreter = bin/interpreter\ninclude_dir = conf.d\n")
        .file("conf.d/a.cfg", "[hg]\nk = v\n")
        .tasks(["1-a.sh", "halt.sh"])
}

#[track_caller]
fn assert_refused(scene: &Scene, culprit: &str) -> Outcome {
    scene.run(&["check"]).exits(78).prints(culprit);
    scene.run(&[]).exits(78).logged([]).says(culprit)
}

#[test]
fn what_only_root_can_write_is_fine() {
    if is_root_or_skipped() {
        let run = whole().run(&[]).exits(0);
        assert_eq!(run.log().len(), 6, "{run}");
    }
}

#[rstest]
#[case::configuration("runner.cfg", 0o666)]
#[case::drop_in("conf.d/a.cfg", 0o666)]
#[case::drop_in_directory("conf.d", 0o777)]
#[case::task_directory("tasks.d", 0o777)]
#[case::task("tasks.d/1-a.sh", 0o777)]
#[case::halt_task("tasks.d/halt.sh", 0o777)]
#[case::task_hook("bin/hook.sh", 0o777)]
#[case::chain_hook("bin/chain.sh", 0o777)]
#[case::interpreter("bin/interpreter", 0o777)]
#[case::directory_of_hooks("bin", 0o777)]
fn what_anybody_can_write_is_refused(#[case] path: &str, #[case] mode: u32) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = whole();
    // It has to be there before its mode can be changed.
    scene.run(&["list"]).exits(0);
    assert_refused(&scene.mode(path, mode), path.rsplit('/').next().unwrap());
}

/// Whoever reads it wants to know which line is to be changed; the configuration itself is named by none.
#[rstest]
#[case::configuration("runner.cfg", None)]
#[case::drop_in("conf.d/a.cfg", Some(2))]
#[case::task_directory("tasks.d", Some(3))]
#[case::task("tasks.d/1-a.sh", Some(3))]
#[case::halt_task("stop.sh", Some(4))]
#[case::task_hook("bin/hook.sh", Some(5))]
#[case::chain_hook("bin/chain.sh", Some(6))]
#[case::interpreter("bin/interpreter", Some(9))]
#[case::lock("locks/l", Some(7))]
fn the_line_that_led_there_is_told(#[case] path: &str, #[case] line: Option<u32>) {
    if !is_root_or_skipped() {
        return;
    }
    let config = "[runner]\ninclude_dir = conf.d\ntask_dir = tasks.d\nhalt_task = ../stop.sh\ntask_hook = bin/hook.sh\n\
                  chain_hook = bin/chain.sh\nlock = file:locks/l\n[task:a]\ninterpreter = bin/interpreter\n";
    let scene = Scene::new()
        .script("bin/hook.sh", "exit 0")
        .script("bin/chain.sh", "exit 0")
        .script("stop.sh", "exit 0")
        .script("bin/interpreter", "exec /bin/sh \"$@\"")
        .config(config)
        .file("conf.d/a.cfg", "[hg]\nk = v\n")
        .tasks(["1-a.sh", "2-b.sh"]);
    scene.run(&[]).exits(0);
    let said = match line {
        // Of the lock the file itself is named first.
        Some(line) => format!("{}:{line}: ", scene.config_file().display()),
        None => " not trusted: ".to_owned(),
    };
    let run = scene.owner(path, OTHER, 0).run(&[]).exits(78);
    let text = run.stderr_text();
    let told = text.lines().find(|told| told.contains("not trusted: ")).unwrap_or_default();
    assert!(told.contains(&said) && told.contains(path) && (line.is_some() || !told.contains("runner.cfg:")), "{run}");
}

#[rstest]
#[case::configuration("runner.cfg")]
#[case::drop_in("conf.d/a.cfg")]
#[case::task_directory("tasks.d")]
#[case::task("tasks.d/1-a.sh")]
#[case::halt_task("tasks.d/halt.sh")]
#[case::hook("bin/hook.sh")]
#[case::interpreter("bin/interpreter")]
fn what_belongs_to_somebody_else_is_refused(#[case] path: &str) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = whole();
    scene.run(&["list"]).exits(0);
    assert_refused(&scene.owner(path, OTHER, 0), path.rsplit('/').next().unwrap());
}

#[rstest]
#[case("tasks.d/1-a.sh", 0o775)]
#[case("tasks.d", 0o775)]
#[case("runner.cfg", 0o664)]
#[case("bin/hook.sh", 0o775)]
fn what_a_group_can_write_is_refused_unless_it_is_that_of_root(#[case] path: &str, #[case] mode: u32) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = whole();
    scene.run(&["list"]).exits(0);
    let scene = scene.owner(path, 0, 0).mode(path, mode);
    let run = scene.run(&[]).exits(0);
    assert_eq!(run.log().len(), 6, "{run}");
    std::fs::write(run.path("log"), "").unwrap();
    assert_refused(&scene.owner(path, 0, OTHER).mode(path, mode), path.rsplit('/').next().unwrap());
}

/// Whoever names a shell executes what the shell is given.
#[rstest]
#[case("task_hook = sh -e bin/hook.sh")]
#[case("chain_hook = /bin/sh ./bin/hook.sh tasks.d/1-a.sh")]
#[case("interpreter = env A=b sh bin/hook.sh")]
fn the_file_that_an_interpreter_is_given_counts(#[case] key: &str) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().script("bin/hook.sh", "exit 0").tasks(["1-a.sh"]).config(&format!("[runner]\n{key}\nmax_tries = 1\n"));
    scene.run(&[]).exits(0);
    std::fs::write(scene.path("log"), "").unwrap();
    let scene = scene.mode("bin/hook.sh", 0o777);
    scene.run(&[]).exits(78).logged([]).says("bin/hook.sh can be written by everybody");
    // What else it may read is not ours to judge.
    scene
        .file("data", "")
        .mode("data", 0o777)
        .mode("bin/hook.sh", 0o755)
        .run(&["-s", "runner.chain_hook=/bin/sh ./bin/hook.sh ./data"])
        .exits(0);
}

#[test]
fn the_target_of_a_link_counts() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().task_at("elsewhere/b.sh", "exit 0").link("tasks.d/2-b.sh", "../elsewhere/b.sh").tasks(["1-a.sh"]);
    scene.run(&[]).exits(0).ran(["1-a.sh", "2-b.sh"]);
    std::fs::write(scene.path("log"), "").unwrap();
    assert_refused(&scene.mode("elsewhere/b.sh", 0o777), "b.sh");
}

#[test]
fn the_directory_of_a_links_target_counts() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().task_at("elsewhere/b.sh", "exit 0").link("tasks.d/2-b.sh", "../elsewhere/b.sh").mode("elsewhere", 0o777);
    assert_refused(&scene, "elsewhere");
}

#[test]
fn a_link_in_the_middle_counts() {
    if !is_root_or_skipped() {
        return;
    }
    // Whoever can write the directory of the second link can point it anywhere.
    let scene = Scene::new()
        .task_at("good/b.sh", "exit 0")
        .dir("open")
        .link("open/b.sh", "../good/b.sh")
        .link("tasks.d/2-b.sh", "../open/b.sh")
        .mode("open", 0o777);
    assert_refused(&scene, "open");
}

#[test]
fn every_directory_above_counts() {
    if !is_root_or_skipped() {
        return;
    }
    let scene =
        Scene::new().config("[runner]\ntask_dir = open/inner/tasks.d\n").task_at("open/inner/tasks.d/1-a.sh", "exit 0").mode("open", 0o777);
    assert_refused(&scene, "open");
}

#[test]
fn a_sticky_directory_above_is_fine() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().config("[runner]\ntask_dir = open/tasks.d\n").task_at("open/tasks.d/1-a.sh", "exit 0").mode("open", 0o1777);
    assert_eq!(scene.run(&[]).exits(0).ran(["1-a.sh"]).mode_of("open"), 0o1777);
}

#[test]
fn the_working_directory_does_not_count() {
    if is_root_or_skipped() {
        let scene = Scene::new().tasks(["1-a.sh"]).dir("open").mode("open", 0o777).working_directory("open");
        scene.run(&[]).exits(0).ran(["1-a.sh"]);
    }
}

#[test]
fn a_file_that_is_no_task_does_not_count() {
    if is_root_or_skipped() {
        let scene = Scene::new().tasks(["1-a.sh"]).task("2-old.sh.bak", "exit 0").mode("tasks.d/2-old.sh.bak", 0o777);
        scene.run(&[]).exits(0).ran(["1-a.sh"]);
    }
}

#[test]
fn it_can_be_only_told() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().config("[runner]\ntrust = warn\n").tasks(["1-a.sh"]).mode("tasks.d/1-a.sh", 0o777);
    scene.run_logged(&[]).exits(0).ran(["1-a.sh"]).warns().says("1-a.sh");
}

/// Whoever can write the configuration could have written that it is to be trusted.
#[test]
fn a_configuration_does_not_excuse_itself() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = whole().config("trust = warn\n");
    scene.run(&["list"]).exits(0);
    let scene = scene.mode("runner.cfg", 0o666);
    assert_refused(&scene, "runner.cfg");
    scene.run_logged(&["-s", "runner.trust=warn"]).exits(0).warns().says("runner.cfg");
}

#[test]
fn a_directory_from_the_command_line_counts_as_well() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().no_config().tasks(["1-a.sh"]).mode("tasks.d", 0o777);
    scene.run(&["tasks.d"]).exits(78).ran_nothing().says("tasks.d");
}

/// Whoever is not root executes what others can write only for themselves.
#[test]
fn a_user_without_rights_to_lose_is_not_asked() {
    let scene = Scene::new().file("tasks.d/1-a.sh", "#!/bin/sh\nexit 0\n").mode("tasks.d/1-a.sh", 0o777);
    // The build may lie where nobody else may look: a copy does not.
    let scene = scene.file("runner", std::fs::read(runner_binary()).unwrap()).mode("runner", 0o755);
    let mut command = Command::new(scene.path("runner"));
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(scene.path("runner"));
    }
    assert!(succeeds(command.arg("tasks.d").current_dir(scene.root()).env_remove("RUNNER_CONFIG")));
}

#[rstest]
#[case::of_the_task("[task:a]\ninterpreter = own\n")]
#[case::of_all("[runner]\ninterpreter = own\n")]
fn an_interpreter_is_judged_where_the_task_will_find_it(#[case] key: &str) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().script("safe/own", "say safe").script("open/own", "say open").mode("open/own", 0o777).tasks(["1-a.sh"]);
    let path = |dir: &str| format!("{}:/usr/bin:/bin", scene.path(dir).display());
    let (safe, open) = (path("safe"), path("open"));
    let scene = scene.config(key).config(&format!("[env]\nPATH = {safe}\n[env:a]\nPATH = {open}\n"));
    assert_refused(&scene, "open/own");
}

#[test]
fn an_access_control_list_that_lets_others_write_is_refused() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().tasks(["1-a.sh"]);
    // user::rwx, user:65534:rwx, group::r-x, mask::rwx, other::r-x (linux/posix_acl_xattr.h).
    let entries = [(1_u16, 7_u16, u32::MAX), (2, 7, OTHER), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)];
    let bytes = |(tag, rights, id): (u16, u16, u32)| [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat();
    let list: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(entries.into_iter().flat_map(bytes)).collect();
    let task = scene.path("tasks.d/1-a.sh");
    match rustix::fs::setxattr(&task, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()) {
        Ok(()) => drop(assert_refused(&scene, "user 65534 through its access control list")),
        // A file system that knows no lists has none to find.
        Err(error) => assert_eq!(error, rustix::io::Errno::NOTSUP),
    }
}
