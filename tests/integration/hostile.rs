//! What a hostile user or an unlucky operator puts in the way: files that are no files, names that are more than a
//! name, readers that do not read.

use std::fmt::Write as _;
use std::path::Path;

use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::scene::{Scene, is_root_or_skipped};

fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

// ---- configurations ----------------------------------------------------------------------------

#[test]
fn a_pipe_is_no_configuration_and_nobody_waits_for_its_writer() {
    let scene = Scene::new().config("[runner]\ninclude_dir = conf.d\n").dir("conf.d").tasks(["1-a.sh"]);
    make_fifo(&scene.path("pipe.cfg"));
    let pipe = scene.path("pipe.cfg");
    scene.run(&["-c", pipe.to_str().unwrap(), "check"]).exits(78).says("pipe.cfg cannot be read: it is a pipe");
    scene.runner_config(&["-c", pipe.to_str().unwrap(), "-l"]).exits(78).says("it is a pipe");
    make_fifo(&scene.path("conf.d/10-pipe.cfg"));
    scene.run(&[]).exits(78).ran_nothing().says("10-pipe.cfg cannot be read: it is a pipe");
}

#[test]
fn a_file_without_end_is_no_configuration() {
    Scene::new().tasks(["1-a.sh"]).run(&["-c", "/dev/zero", "check"]).exits(78).ran_nothing().says("/dev/zero").says("longer than 16 MiB");
}

#[test]
fn a_section_may_hold_very_many_keys() {
    let mut text = "[mine]\n".to_owned();
    for number in 0..60_000 {
        writeln!(text, "key{number} = {number}").unwrap();
    }
    let scene = Scene::new().config(&text);
    scene.runner_config(&["-g", "mine.key59999"]).exits(0).prints_line("59999");
}

// ---- names -------------------------------------------------------------------------------------

#[test]
fn a_name_with_a_line_feed_makes_no_line_of_its_own() {
    let name = "10-a\nforged: 0 errors\u{1b}[31m";
    let scene = Scene::new()
        .config("[runner]\noutput = prefix\nmax_tries = 1\nhalt_on_give_up = no\n[task:last]\noutput = capture\n")
        .task(name, "echo out")
        .task("20-last", "echo tail; exit 1")
        .file("tasks.d/left\nforged: out", "");
    for args in [&["list"][..], &["check"], &["--dry-run"], &[]] {
        let run = scene.run(args);
        let all = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr_text());
        assert!(!all.contains('\u{1b}') && !all.lines().any(|line| line.starts_with("forged")), "{args:?}: {all}");
        assert!(all.contains("\\nforged"), "{args:?}: {all}");
    }
}

#[test]
fn no_log_carries_control_characters_of_a_name() {
    let scene = Scene::new().task("10-a\u{9b}31m\u{7f}b\rc", "exit 0");
    for format in ["text", "json", "logfmt"] {
        let run = scene.run(&["--log-format", format]).exits(0);
        let text = run.stderr_text();
        assert!(text.lines().count() > 2 && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        let read =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["task"].as_str() == Some("10-a\u{9b}31m\u{7f}b\rc");
        assert!(format != "json" || text.lines().any(read), "{text}");
    }
}

// ---- readers -----------------------------------------------------------------------------------

#[test]
fn a_terminal_that_nobody_reads_delays_nothing() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let scene = Scene::new()
        .config("[runner]\noutput = prefix\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a.sh", "i=0; while [ $i -lt 8000 ]; do i=$((i + 1)); echo 'nobody reads any of these lines'; done")
        .task("2-b.sh", "exit 7")
        .stdout_to(&name)
        .stderr_to(&name);
    scene.run(&[]).exits(1).ran(["1-a.sh", "2-b.sh"]);
}

#[test]
fn a_limit_of_the_size_of_files_loses_lines_of_the_log_and_nothing_else() {
    Scene::new()
        .script("tasks.d/1-a.sh", "exit 0")
        .script("tasks.d/2-b.sh", "kill -XFSZ $$")
        .config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n[task:b]\nhalt_codes = 2\n")
        .under(&["sh", "-c", "ulimit -f 0; exec \"$@\"", "sh"])
        .run(&[])
        .exits(1);
}

// ---- what changes under way --------------------------------------------------------------------

#[test]
fn a_pipe_in_the_place_of_a_task_is_not_waited_for() {
    Scene::new()
        .config("[runner]\ninterpreter = sh\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a.sh", "rm \"$RUNNER_TASK_DIR/2-b.sh\"; mkfifo \"$RUNNER_TASK_DIR/2-b.sh\"")
        .task("2-b.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh"])
        .says("2-b.sh: it is no regular file");
}

// ---- files that are no programs ----------------------------------------------------------------

#[rstest]
#[case::empty(b"", "is empty")]
#[case::text(b"echo hello\n", "is no program: begin it with a line such as #!/bin/sh")]
#[case::other_machine(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff\x01\0\0\0", "is a program for another kind of machine")]
#[case::byte_order_mark(b"\xef\xbb\xbf#!/bin/sh\nexit 0\n", "begins with a byte order mark")]
#[case::no_interpreter(b"#!\nexit 0\n", "has a first line that names no interpreter")]
fn a_file_that_is_no_program_is_told_apart(#[case] content: &[u8], #[case] told: &str) {
    Scene::new()
        .config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n")
        .file("tasks.d/1-a", content)
        .mode("tasks.d/1-a", 0o755)
        .run(&[])
        .exits(1)
        .says(told);
}

#[test]
fn a_file_that_the_user_of_a_task_may_not_read_asks_for_no_halt() {
    if !is_root_or_skipped() {
        return;
    }
    Scene::new()
        .config("[runner]\ninterpreter = sh\nuser = nobody\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a", "exit 0")
        .mode("tasks.d/1-a", 0o700)
        .run(&[])
        .exits(1)
        .ran_nothing()
        .says("1-a may not be read by the user nobody");
}

// ---- files that are no files where runner keeps its own -----------------------------------------

#[rstest]
#[case::lock("l")]
#[case::token("l.token")]
#[case::owner("l.owner")]
fn a_pipe_beside_a_lock_holds_nobody_up(#[case] name: &str) {
    let scene = Scene::new().dir("locks");
    make_fifo(&scene.path("locks").join(name));
    let key = format!("file:{}", scene.path("locks/l").display());
    // A token or a record that cannot be read is none; a lock has to be a file.
    scene.run(&["lock", &key, "--", "true"]).exits(if name == "l" { 74 } else { 0 });
}

#[test]
fn a_token_that_could_not_grow_is_not_believed() {
    let scene = Scene::new().file("locks/l.token", "18446744073709551615\n");
    let key = format!("file:{}", scene.path("locks/l").display());
    let token = |number: u32| {
        let run = scene.run(&["lock", &key, "--", "sh", "-c", "echo $RUNNER_LOCK_TOKEN"]).exits(0);
        assert_eq!(run.stderr_text().contains("not believed"), number == 1, "{run}");
        run.stdout_text().trim().parse::<u64>().unwrap()
    };
    let (one, two) = (token(1), token(2));
    assert!(one < two && two < u64::MAX / 2, "{one} {two}");
}

#[cfg(feature = "store")]
#[rstest]
#[case::database("runner.db")]
#[case::journal("runner.db-wal")]
fn a_pipe_is_no_database_and_nobody_waits_for_its_writer(
    #[case] name: &str,
    #[values(&["history"], &["queue", "list"], &["enqueue", "1-a.sh"])] command: &[&str],
) {
    let scene = Scene::new().dir("state").tasks(["1-a.sh"]).config("[queue:default]\ntask_dir = tasks.d\n");
    let state = scene.path("state");
    let scene = scene.env("STATE_DIRECTORY", &state);
    if name != "runner.db" {
        scene.run(&["enqueue", "1-a.sh"]).exits(0);
        let _ = std::fs::remove_file(state.join(name));
    }
    make_fifo(&state.join(name));
    scene.run(command).exits(74).says("is no database of runner").says("no regular file");
}

/// The same of the files that the address of a database names.
#[cfg(feature = "postgres")]
#[rstest]
#[case::password("password_file")]
#[case::passwords("passfile")]
#[case::certificates("sslmode=verify-full&sslrootcert")]
fn a_pipe_is_no_password_and_no_certificate(#[case] key: &str) {
    let scene = Scene::new().tasks(["1-a.sh"]);
    let pipe = scene.path("pipe");
    make_fifo(&pipe);
    let database = format!("runner.database=postgresql://me@127.0.0.1:1/x?connect_timeout=2&{key}={}", pipe.display());
    scene.run(&["-s", &database, "history"]).exits(74).says("it is no regular file");
}

#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
#[test]
fn a_pipe_is_no_token_and_nobody_waits_for_its_writer() {
    let scene = Scene::new().config("[daemon]\nlisten = 127.0.0.1:0\ntoken_file = pipe\n").tasks(["1-a.sh"]);
    make_fifo(&scene.path("pipe"));
    for command in ["check", "daemon"] {
        let run = scene.run(&[command]).exits(78);
        assert!(format!("{run}").contains("it is no regular file"), "{run}");
    }
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[test]
fn a_pipe_where_the_mark_of_a_chain_would_be_holds_nobody_up() {
    let scene = Scene::new().config("[chain:a]\ntask_dir = tasks.d\n").tasks(["1-a.sh"]).dir("state/running");
    make_fifo(&scene.path("state/running/a"));
    let state = scene.path("state");
    let scene = scene.env("STATE_DIRECTORY", state);
    scene.run(&["status"]).exits(0);
    scene.run(&["now", "a"]).exits(0).ran(["1-a.sh"]).says("other programs cannot see that it runs");
}

// ---- names that turn the direction of writing -------------------------------------------------

#[test]
fn a_name_cannot_read_as_another() {
    let scene = Scene::new()
        .config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("10-a\u{202e}hs.b", "exit 1")
        .file("tasks.d/left\u{2066}", "");
    for args in [&["list"][..], &["check"], &["--dry-run"], &[]] {
        let run = scene.run(args);
        let all = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr_text());
        assert!(!all.contains(['\u{202e}', '\u{2066}']) && all.contains("\\u{20"), "{args:?}: {all}");
    }
}

#[cfg(feature = "store")]
#[test]
fn what_a_task_is_called_makes_no_line_of_its_own_in_its_record() {
    let scene = Scene::new()
        .config("[runner]\noutput = capture\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("10-a\nforged: 0 errors", "echo out; exit 1");
    let state = scene.path("state");
    let scene = scene.env("STATE_DIRECTORY", state);
    scene.run(&[]).exits(1);
    let runs = scene.run(&["--json", "history"]).exits(0).json();
    let run = scene.run(&["show", runs["runs"][0]["run_id"].as_str().unwrap()]).exits(0);
    assert!(!run.stdout_text().lines().any(|line| line.starts_with("forged")) && run.stdout_text().contains("out"), "{run}");
}

/// Whatever writes to it, or waits for it.
#[cfg(all(feature = "schedule", feature = "store"))]
#[rstest]
fn why_a_database_cannot_be_used_is_told_once(
    #[values(&["daemon"], &["tick"], &["work"], &["work", "--drain"], &["queue", "run", "1"], &["enqueue", "1-a.sh"], &["status"], &["history"])]
    command: &[&str],
    #[values(false, true)] newer: bool,
) {
    let config = "[chain:a]\ntask_dir = tasks.d\nschedule = @yearly\n[queue:default]\ntask_dir = tasks.d\n[daemon]\nqueues = default\n";
    let scene = Scene::new().task("1-a.sh", "exit 0").config(config);
    let (scene, why) = if newer {
        scene.run(&["enqueue", "1-a.sh"]).exits(0);
        rusqlite::Connection::open(scene.path("state.d/runner.db")).unwrap().pragma_update(None, "user_version", 999).unwrap();
        (scene, "is of version 999")
    } else {
        (scene.file("state.d/runner.db", "this is something else, and it is long enough".repeat(50)), "is no database of runner")
    };
    let run = scene.run(command).exits(74).logged([]);
    assert_eq!(run.stderr_text().matches(why).count(), 1, "{run}");
}
