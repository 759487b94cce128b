//! The daemon over HTTP: the tick from outside, what it shows, and what it does not listen on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::scene::{Running, Scene, is_root_or_skipped, until};

/// A daemon with these sections, which answers on a socket file of the scene.
fn daemon(sections: &str) -> Scene {
    let scene = Scene::new().dir("a");
    let (state, socket) = (scene.path("state"), scene.path("http"));
    scene.env("STATE_DIRECTORY", state).config(&format!("[daemon]\nlisten = {}\n{sections}\n", socket.display()))
}

/// Asks, and tells the code and the body of the answer.
pub(crate) fn ask(running: &Running, method: &str, path: &str) -> (u16, String) {
    ask_with(running, method, path, "")
}

/// The same with further lines of a head.
fn ask_with(running: &Running, method: &str, path: &str, head: &str) -> (u16, String) {
    let mut socket = UnixStream::connect(running.path("http")).unwrap();
    socket.set_read_timeout(Some(crate::scene::DEADLINE)).unwrap();
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) fn json(running: &Running, path: &str) -> serde_json::Value {
    let (code, body) = ask(running, "GET", path);
    assert_eq!(code, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn a_tick_from_outside_names_what_it_begins_and_begins_it_once() {
    // Nothing is due by itself before the next New Year; a chain seen for the first time has nothing to catch up.
    let mut running = daemon("[chain:a]\ntask_dir = a\nschedule = * * * * *\nrandom_delay = 0\n")
        .task_at("a/1-a.sh", "say $RUNNER_TRIGGER $RUNNER_RUN_ID")
        .start(&["daemon"]);
    running.wait_for_message("answers on", "");
    // The slot of the minute in which the daemon began was not its; that of the next one is anybody's.
    let begun = |answer: &str| serde_json::from_str::<serde_json::Value>(answer).unwrap()["runs"].as_array().unwrap().clone();
    let (code, first) = ask(&running, "POST", "/cron");
    assert_eq!(code, 200, "{first}");
    let (code, second) = ask(&running, "GET", "/cron");
    assert_eq!(code, 200, "{second}");
    assert!(begun(&first).len() + begun(&second).len() <= 2, "{first} {second}");
    assert_eq!(ask(&running, "PUT", "/cron").0, 405);
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn it_shows_what_runs_and_what_is_due() {
    let mut running = daemon("[chain:a]\ntask_dir = a\nschedule = every 1s\n[chain:off]\ntask_dir = a\nenabled = no\nschedule = @daily\n")
        .task_at("a/1-a.sh", "play notify 'STATUS=half <b>way</b>' notify X_RUNNER_PROGRESS=50 notify-barrier touch begun wait-file go")
        .start(&["daemon"]);
    running.wait_for_file("begun");
    let status = json(&running, "/status.json");
    let chain = &status["chains"][0];
    assert_eq!((&chain["name"], &chain["running"][0]["tasks"][0]["progress"]), (&"a".into(), &50.into()), "{status}");
    assert_eq!(chain["running"][0]["max_tries"], 5, "as the configuration has it: {status}");
    assert_eq!(status["chains"][1]["waits_because"], "it is not enabled");
    assert!(chain["next"][0].as_str().is_some_and(|next| next.parse::<jiff::Timestamp>().is_ok()), "{status}");
    let (code, page) = ask(&running, "GET", "/");
    assert!(code == 200 && page.contains("half &lt;b&gt;way&lt;/b&gt;") && !page.contains("<b>way"), "{page}");
    std::fs::write(running.path("go"), "").unwrap();
    running.wait_for_message("chain a: done", "");
    let (code, metrics) = ask(&running, "GET", "/metrics");
    assert!(code == 200 && metrics.contains("job_duration_seconds"), "{metrics}");
    assert_eq!(ask(&running, "GET", "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(ask(&running, "GET", "/nothing").0, 404);
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn a_refused_configuration_is_shown_and_the_old_one_answers() {
    let scene = daemon("[chain:a]\ntask_dir = a\nschedule = 0 0 29 2 *\n");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "");
    let good = std::fs::read_to_string(scene.config_file()).unwrap();
    std::fs::write(scene.config_file(), good.replace("0 0 29 2 *", "0 0 31 2 *")).unwrap();
    running.signal(Signal::HUP);
    running.wait_for_message("the old one stays", "");
    let refused = &json(&running, "/status.json")["configuration"]["refused"];
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("schedule")), "{refused}");
    assert_eq!(refused["line"], 5, "{refused}");
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

/// With a token that others could have written, at the start and while it runs.
#[test]
fn a_token_that_is_not_trusted_lets_nobody_in() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = daemon("token_file = token\n[chain:a]\ntask_dir = a\nschedule = @yearly\n").file("token", "the-old-token-of-all\n");
    let scene = scene.mode("token", 0o666);
    scene.run(&["daemon"]).exits(78).says("runner.cfg:3: token_file: ").says("not trusted: ").says("token can be written by everybody");
    let scene = scene.mode("token", 0o600);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "");
    let with = |running: &Running, token: &str| {
        ask_with(running, "GET", "/status.json", &format!("Authorization: Bearer the-{token}-token-of-all\r\n"))
    };
    // Of the token: that the history is not known yet is another remark.
    let remarks = |(code, body): (u16, String)| {
        assert_eq!(code, 200, "{body}");
        let status = serde_json::from_str::<serde_json::Value>(&body).unwrap();
        let all = status["remarks"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|remark| remark["kind"] == "token_refused").collect::<Vec<_>>()
    };
    assert_eq!(remarks(with(&running, "old")), [] as [serde_json::Value; 0]);
    let scene = scene.file("fresh", "the-new-token-of-all\n").mode("fresh", 0o622);
    std::fs::rename(scene.path("fresh"), scene.path("token")).unwrap();
    assert_eq!([with(&running, "new").0, with(&running, "new").0], [403, 403]);
    let trouble = remarks(with(&running, "old"));
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    assert!(trouble[0]["text"].as_str().unwrap().ends_with("; the old token stays in force"), "{trouble:?}");
    scene.run(&["status"]).exits(0).says("a daemon would not take it over: ").says("token can be written by everybody");
    let page = ask_with(&running, "GET", "/", "Authorization: Bearer the-old-token-of-all\r\n").1;
    assert!(page.contains("the old token stays in force"), "{page}");
    let scene = scene.mode("token", 0o600);
    assert_eq!([with(&running, "old").0, with(&running, "new").0], [403, 200]);
    assert!(remarks(with(&running, "new")).is_empty());
    assert!(!scene.run(&["status"]).exits(0).stderr_text().contains("token"));
    running.signal(Signal::TERM);
    let told = running.finish().exits(0);
    assert_eq!(told.stderr_text().matches("the old token stays in force").count(), 1, "{told}");
    // Who says that it may be so is heard, at both times.
    let scene = scene.mode("token", 0o666);
    let mut running = scene.start(&["-s", "runner.trust=warn", "daemon"]);
    running.wait_for_message("answers on", "");
    std::fs::write(scene.path("token"), "the-old-token-of-all\n").unwrap();
    assert_eq!([with(&running, "old").0, with(&running, "new").0], [200, 403]);
    running.signal(Signal::TERM);
    running.finish().exits(0).says("token can be written by everybody").never_says("the old token stays in force");
}

#[test]
fn what_daemon_says_is_judged() {
    let with = |lines: &str| Scene::new().config(&format!("[daemon]\n{lines}\n")).run(&["daemon"]);
    with("listen = 7780").exits(78).says("runner.cfg:2: listen: `7780` is no address with a port");
    with("listen = 0.0.0.0:7780").exits(78).says("runner.cfg:2: listen:").says("token_file");
    with("listen = 127.0.0.1:0\nallow = 300.1.1.1").exits(78).says("runner.cfg:3: allow:");
    with("listen = 127.0.0.1:0\ntoken_file = not-there").exits(78).says("token_file");
}

#[test]
fn a_port_that_is_taken_is_no_way_to_start() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    Scene::new()
        .config(&format!("[daemon]\nlisten = {address}\n"))
        .run(&["daemon"])
        .exits(74)
        .says("another program or another daemon has it");
}

/// The chain of this name, once it is as wanted: what others ran is asked for when somebody looks.
fn chain_when(running: &Running, name: &str, is_wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let of = || {
        let status = json(running, "/status.json");
        status["chains"].as_array().unwrap().iter().find(|chain| chain["name"] == name).cloned().unwrap_or_default()
    };
    until("a chain as it is wanted", || is_wanted(&of()));
    of()
}

#[test]
fn after_a_restart_it_shows_what_ran_before_and_then_what_others_run() {
    let rules = "schedule = 0 0 29 2 *\nmax_tries = 1\n";
    let scene = daemon(&format!("[chain:a]\ntask_dir = a\n{rules}[chain:bad]\ntask_dir = bad\n{rules}"))
        .task_at("a/1-a.sh", "exit 0")
        .task_at("bad/1-a.sh", "[ -e \"$SCENE/healed\" ]")
        .task("1-main.sh", "exit 0");
    scene.run(&["now"]).exits(1);
    let good = scene.run(&["status", "--json"]).exits(0).json()["chains"][0]["last_success"].clone();
    assert!(good.is_string(), "{good}");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "");
    let bad = chain_when(&running, "bad", |bad| bad["runs"][0]["outcome"] == "gave_up");
    assert!(bad["last_success"].is_null() && bad["runs"][0]["max_tries"] == 1, "{bad}");
    let a = chain_when(&running, "a", |a| a["runs"][0]["outcome"] == "done");
    assert_eq!((&a["last_success"], a["runs"].as_array().unwrap().len()), (&good, 1));
    let (_, page) = ask(&running, "GET", "/");
    assert!(page.contains("1 chain</strong>") || page.contains("1 chain failed"), "{page}");
    let (_, metrics) = ask(&running, "GET", "/metrics");
    for line in ["runner_last_run_outcome{chain=\"bad\",outcome=\"gave_up\"} 1", "runner_last_success_timestamp_seconds{chain=\"a\"} 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(
        !metrics.contains("runner_last_success_timestamp_seconds{chain=\"bad\"}") && !metrics.contains("runner_runs_total{"),
        "{metrics}"
    );
    // Somebody heals it by hand, and the main chain runs.
    std::fs::write(running.path("healed"), "").unwrap();
    scene.run(&["now", "bad"]).exits(0);
    scene.run(&[]).exits(0);
    let bad = chain_when(&running, "bad", |bad| bad["runs"][0]["outcome"] == "done");
    assert!(bad["last_success"].is_string() && bad["runs"][0]["trigger"] == "now", "{bad}");
    let (_, metrics) = ask(&running, "GET", "/metrics");
    assert!(metrics.contains("runner_last_run_exit_code{chain=\"bad\"} 0\n"), "{metrics}");
    chain_when(&running, "main", |main| main["runs"][0]["outcome"] == "done");
    let (_, page) = ask(&running, "GET", "/");
    assert!(page.contains("No chain failed"), "{page}");
    // One of `now` that is killed is one that failed.
    let scene = scene.task_at("bad/1-a.sh", "play touch begun wait-file go");
    let mut killed = scene.start(&["now", "bad"]);
    killed.wait_for_file("begun");
    chain_when(&running, "bad", |bad| bad["running"].as_array().is_some_and(|running| running.len() == 1));
    killed.signal(Signal::KILL);
    killed.finish().dies_of(Signal::KILL);
    let bad = chain_when(&running, "bad", |bad| bad["runs"][0]["outcome"] == "lost");
    assert!(bad["runs"][0]["ended_at"].is_string() && bad["running"].as_array().unwrap().is_empty(), "{bad}");
    std::fs::write(running.path("go"), "").unwrap();
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn a_run_whose_hook_runs_is_over_and_keeps_its_chain() {
    let scene = daemon("[chain:a]\ntask_dir = a\nschedule = @boot\nchain_hook = bin/hook.sh\n")
        .task_at("a/1-a.sh", "exit 0")
        .script("bin/hook.sh", "case $1 in *'\"end\"'*) play touch begun wait-file go ;; esac");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "").wait_for_file("begun");
    let status = json(&running, "/status.json");
    let chain = &status["chains"][0];
    let id = chain["runs"][0]["id"].as_str().unwrap();
    assert_eq!((chain["running"].as_array().unwrap().len(), &chain["runs"][0]["outcome"]), (0, &"done".into()), "{status}");
    let words = format!("its run {id} is over but for its chain_hook (process ");
    assert!(chain["waits_because"].as_str().unwrap().starts_with(&words), "{status}");
    assert!(ask(&running, "GET", "/").1.contains(&words));
    std::fs::write(running.path("go"), "").unwrap();
    until("it is over", || json(&running, "/status.json")["chains"][0]["waits_because"].is_null());
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn a_clock_that_is_none_has_no_next_slot() {
    let scene = daemon("[chain:a]\ntask_dir = a\nschedule = every 1h\n");
    let (here, later) = (runner::store::Owner::look(), jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(48)).unwrap());
    std::fs::create_dir_all(scene.path("state")).unwrap();
    let mut store = runner::store::sqlite::Sqlite::open(&scene.path("state/runner.db")).unwrap();
    runner::store::Store::set_watermarks(&mut store, &here.machine, &[("a".to_owned(), later)], &here, later).unwrap();
    drop(store);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "").wait_for_message("before the newest stored time", "");
    until("it is told", || json(&running, "/status.json")["remarks"][0]["kind"] == "no_clock");
    let status = json(&running, "/status.json");
    let chain = &status["chains"][0];
    assert_eq!(
        (&chain["next"], &chain["waits_because"]),
        (&serde_json::Value::Array(Vec::new()), &status["remarks"][0]["text"]),
        "{status}"
    );
    let (_, page) = ask(&running, "GET", "/");
    assert!(page.contains("only @boot fires") && !page.contains("Due next"), "{page}");
    running.signal(Signal::TERM);
    let told = running.finish().exits(0).stderr_text().matches("before the newest stored time").count();
    assert_eq!(told, 1, "however often it was looked at");
}

/// A slot that waits for the run before it, and idle ones that wait for others, say so in the same words wherever one looks.
#[test]
fn a_slot_that_waits_says_for_whom() {
    let due = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(90)).unwrap();
    let due = due.strftime("schedule = %M %H * * *\ntimezone = UTC\n").to_string();
    let idle = |name: &str| format!("[chain:{name}]\ntask_dir = i\nidle = yes\nwindow = 2h\n{due}");
    let queued = "[chain:q]\ntask_dir = q\noverlap = queue\nschedule = every 1s\n";
    let scene = daemon(&format!("[chain:a]\ntask_dir = a\n{due}{}{}{queued}", idle("i"), idle("j")))
        .task_at("a/1-a.sh", "play touch begun-a wait-file go")
        .task_at("q/1-q.sh", "play touch begun-q wait-file go")
        .tasks_at("i", ["1-i.sh"]);
    let (here, past) = (runner::store::Owner::look(), jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_mins(4)).unwrap());
    let marks = ["a", "i", "j"].map(|chain| (chain.to_owned(), past));
    std::fs::create_dir_all(scene.path("state")).unwrap();
    let mut store = runner::store::sqlite::Sqlite::open(&scene.path("state/runner.db")).unwrap();
    runner::store::Store::set_watermarks(&mut store, &here.machine, &marks, &here, past).unwrap();
    drop(store);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "").wait_for_file("begun-a").wait_for_file("begun-q");
    let of = |status: &serde_json::Value, chain: &str| {
        let all = status["chains"].as_array().unwrap();
        let found = all.iter().find(|known| known["name"] == chain).unwrap();
        found["waits_because"].as_str().unwrap_or_default().to_owned()
    };
    let words = [
        ("i", "its slot waits for a: it is idle; its window ends in 1 h 5"),
        ("j", "its slot waits for a: it is idle; its window ends in 1 h 5"),
        ("q", "its slot waits for the end of the run before it"),
    ];
    for (chain, words) in words {
        until("the daemon says so", || of(&json(&running, "/status.json"), chain).starts_with(words));
        until("the page says so", || ask(&running, "GET", "/").1.contains(words));
        until("status says so", || of(&scene.run(&["status", "--json"]).exits(0).json(), chain).starts_with(words));
        assert!(scene.run(&["status"]).exits(0).stdout_text().contains(words));
        assert!(scene.run(&["why", chain]).exits(0).stdout_text().contains(words));
    }
    std::fs::write(running.path("go"), "").unwrap();
    until("nobody waits for a", || of(&json(&running, "/status.json"), "j").is_empty());
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn a_history_that_cannot_be_asked_is_no_good_news() {
    let scene = daemon("[chain:a]\ntask_dir = a\nschedule = 0 0 29 2 *\n").file("state", "a file is in the way");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("state", "").wait_for_message("answers on", "");
    let status = json(&running, "/status.json");
    assert_eq!(status["remarks"][0]["kind"], "history_unknown", "{status}");
    let why = status["chains"][0]["waits_because"].as_str().unwrap_or_default();
    assert!(why.starts_with("the database has not answered yet"), "its chains are there, and say why none runs: {status}");
    let (code, why) = ask(&running, "POST", "/cron");
    assert!(code == 503 && why.starts_with("the database has not answered yet"), "not `nothing is due`: {code} {why}");
    let (_, page) = ask(&running, "GET", "/");
    assert!(page.contains("Not known yet") && !page.contains("No chain failed"), "{page}");
    running.signal(Signal::TERM);
    running.finish().exits(0);
}
