//! Who is told of runs: textfile, Pushgateway, InfluxDB; file, Consul, etcd. And that none of them touches a run.

use std::fs;
use std::process::Command;
#[cfg(feature = "net")]
use std::process::Stdio;

#[cfg(feature = "net")]
use base64::Engine as _;
#[cfg(feature = "net")]
use base64::engine::general_purpose::STANDARD;
#[cfg(all(feature = "schedule", feature = "store"))]
use rustix::process::Signal;
#[cfg(any(feature = "schedule", feature = "net"))]
use serde_json::Value;

#[cfg(feature = "net")]
use crate::push_servers::{Double, Manner, Server, free_port};
#[cfg(any(feature = "net", all(feature = "schedule", feature = "store")))]
use crate::running::until;
use crate::scene::{Scene, skipped, spawn, succeeds};

/// promtool has nothing to say of these metrics.
pub(crate) fn promtool_is_content(scene: &Scene, text: &str) {
    if !succeeds(Command::new("promtool").arg("--version")) {
        skipped("promtool is not installed");
        return;
    }
    let (file, said) = (scene.path("to-check"), scene.path("promtool-said"));
    fs::write(&file, text).unwrap();
    let mut promtool = Command::new("promtool");
    let out = fs::File::create(&said).unwrap();
    promtool.args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap()).stdout(out.try_clone().unwrap()).stderr(out);
    let ended = spawn(&mut promtool).unwrap().0.wait().unwrap();
    let said = fs::read_to_string(&said).unwrap();
    // It would have names of jobslib end with a unit.
    assert!(ended.success() && said.is_empty(), "promtool: {said}\n{text}");
}

fn read(scene: &Scene, name: &str) -> String {
    fs::read_to_string(scene.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn has_line(text: &str, start: &str) -> bool {
    text.lines().any(|line| line.starts_with(start))
}

#[test]
fn a_textfile_tells_of_success_and_of_failure() {
    let scene = Scene::new().config("[metrics]\ntextfile = out.prom\n[runner]\nmax_tries = 2\n").task("1-a.sh", "[ ! -e \"$SCENE/bad\" ]");
    scene.run(&[]).exits(0);
    let good = read(&scene, "out.prom");
    let success = good.lines().find(|line| line.starts_with("runner_last_success_timestamp_seconds{chain=\"main\"} ")).unwrap().to_owned();
    assert!(has_line(&good, "job_duration_seconds{chain=\"main\",status=\"succeeded\"} "), "{good}");
    promtool_is_content(&scene, &good);
    fs::write(scene.path("bad"), "").unwrap();
    scene.run(&[]).exits(1);
    let bad = read(&scene, "out.prom");
    for line in [
        success.as_str(),
        "runner_last_run_exit_code{chain=\"main\"} 1",
        "runner_last_run_outcome{chain=\"main\",outcome=\"gave_up\"} 1",
        "runner_last_run_tries{chain=\"main\"} 2",
        "runner_last_run_failed_tries{chain=\"main\"} 2",
        "job_duration_seconds{chain=\"main\",status=\"failed\"} ",
    ] {
        assert!(has_line(&bad, line), "{line}\n{bad}");
    }
    assert!(!bad.contains("succeeded") && !bad.contains("\"done\""), "{bad}");
    promtool_is_content(&scene, &bad);
}

#[test]
fn it_is_written_before_the_halt_task_which_may_take_the_machine_away() {
    Scene::new()
        .config("[metrics]\ntextfile = out.prom\n")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "grep -q 'outcome=\"halted\"' \"$SCENE/out.prom\" && say told")
        .run(&[])
        .exits(3)
        .logged(["1-a.sh 1", "halt.sh -", "- told"]);
}

#[test]
fn a_run_that_does_not_begin_is_told_and_hides_nothing() {
    let scene = Scene::new().config("[metrics]\ntextfile = out.prom\n[liveness]\nfile = alive\n").tasks(["1-a.sh"]);
    scene.run(&[]).exits(0);
    let alive = read(&scene, "alive");
    let scene = scene.config("[task:1-a.sh]\ndepends_on = nobody\n");
    scene.run(&[]).exits(78);
    let text = read(&scene, "out.prom");
    assert!(has_line(&text, "runner_last_refusal_timestamp_seconds{chain=\"main\",reason=\"task_dir\"} "), "{text}");
    assert!(has_line(&text, "runner_last_run_exit_code{chain=\"main\"} 0"), "{text}");
    assert_eq!(read(&scene, "alive"), alive);
    promtool_is_content(&scene, &text);
}

#[cfg(feature = "schedule")]
#[test]
fn chains_side_by_side_share_a_textfile_and_have_their_own_signs_of_life() {
    let chain = |name: &str| format!("[chain:{name}]\ntask_dir = {name}\nmax_tries = 1\n");
    let sections: String = ["a", "b", "c", "bad"].map(chain).concat();
    let scene = Scene::new().config(&format!("[metrics]\ntextfile = out.prom\n[liveness]\nfile = alive-{{chain}}\n{sections}"));
    let scene = scene.tasks_at("a", ["1-a.sh"]).tasks_at("b", ["1-a.sh"]).tasks_at("c", ["1-a.sh"]).task_at("bad/1-a.sh", "exit 7");
    scene.run(&["now"]).exits(1);
    let text = read(&scene, "out.prom");
    for chain in ["a", "b", "c"] {
        assert!(has_line(&text, &format!("runner_last_success_timestamp_seconds{{chain=\"{chain}\"}} ")), "{text}");
        let alive: Value = serde_json::from_str(&read(&scene, &format!("alive-{chain}"))).unwrap();
        assert!(alive["chain"] == chain && alive["timestamp"].is_i64() && alive["time_utc"] == alive["time_local"], "{alive}");
        assert_eq!(alive["time_utc"].as_str().unwrap().len(), "2027-01-15 08:00:00".len());
    }
    assert!(has_line(&text, "job_duration_seconds{chain=\"bad\",status=\"failed\"} ") && !scene.path("alive-bad").exists(), "{text}");
    promtool_is_content(&scene, &text);
}

#[cfg(all(feature = "schedule", feature = "store"))]
#[test]
fn the_daemon_tells_of_its_runs_and_of_slots_it_gave_up() {
    let scene = Scene::new()
        .config("[metrics]\ntextfile = out.prom\n[chain:a]\ntask_dir = a\nschedule = every 1s\n")
        .task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["daemon"]);
    let told = |line: &'static str| {
        let file = scene.path("out.prom");
        move || has_line(&fs::read_to_string(&file).unwrap_or_default(), line)
    };
    running.wait_for_file("begun");
    until("the slot that was given up", told("runner_last_refusal_timestamp_seconds{chain=\"a\",reason=\"skipped\"}"));
    fs::write(scene.path("go"), "").unwrap();
    until("the run", told("runner_last_run_exit_code{chain=\"a\"} 0"));
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn what_cannot_be_written_is_a_warning() {
    let with = |lines: &str| Scene::new().config(lines).tasks(["1-a.sh"]);
    with("[metrics]\ntextfile = no/where.prom\n").run(&[]).exits(0).says("[metrics] textfile").says("no/where.prom");
    with("[liveness]\nfile = no/where\n").run(&[]).exits(0).says("[liveness] file");
    // Whoever reads a textfile of somebody else's has not lost it.
    let scene = with("[metrics]\ntextfile = theirs.prom\n").file("theirs.prom", "up 1\n");
    scene.run(&[]).exits(0).says("not written by runner");
    assert_eq!(read(&scene, "theirs.prom"), "up 1\n");
}

#[test]
fn what_the_keys_say_is_judged() {
    let with = |lines: &str| Scene::new().config(lines).tasks(["1-a.sh"]).run(&[]);
    with("[metrics]\npushgateway = metrics:9091\n").exits(78).says("runner.cfg:2: pushgateway = metrics:9091: expected http://HOST:9091");
    with("[metrics]\ninfluxdb = http://me:hunter2@h?db=a\n").exits(78).says("password_file=FILE").says("http://me:***@h");
    with("[liveness]\netcd = etcd://h\n").exits(78).says("expected etcd://HOST:2379/KEY");
}

// ---- servers -----------------------------------------------------------------------------------

#[cfg(feature = "net")]
#[test]
fn a_pushgateway_keeps_the_last_success_of_a_chain_that_fails() {
    let Some(gateway) = Server::pushgateway() else { return };
    let scene = Scene::new()
        .config(&format!("[metrics]\npushgateway = http://127.0.0.1:{}\n[runner]\nmax_tries = 1\n", gateway.port))
        .task("1-a.sh", "[ ! -e \"$SCENE/bad\" ]");
    scene.run(&[]).exits(0).never_says("warning");
    fs::write(scene.path("bad"), "").unwrap();
    scene.run(&[]).exits(1).never_says("warning");
    let (_, text) = gateway.ask("GET", "/metrics", "");
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("job=\"runner\"") && line.contains("chain=\"main\"")).collect();
    let has = |name: &str, part: &str| ours.iter().any(|line| line.starts_with(name) && line.contains(part));
    assert!(has("runner_last_success_timestamp_seconds{", "instance=\""), "{text}");
    assert!(
        has("runner_last_run_outcome{", "gave_up") && has("job_duration_seconds{", "failed") && !has("job_duration_seconds{", "succeeded")
    );
    promtool_is_content(&scene, &text);
}

#[cfg(feature = "net")]
#[test]
fn influxdb_gets_a_point_of_each_run_under_the_names_of_jobslib_too() {
    let Some(influx) = Server::influxdb() else { return };
    let ask = |query: &str| influx.ask("POST", &format!("/query?u=root&p=secret&db=jobs&q={}", query.replace(' ', "%20")), "").1;
    ask("CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    ask("CREATE DATABASE jobs");
    let config = |file: &str| format!("[metrics]\ninfluxdb = http://root@127.0.0.1:{}?db=jobs&password_file={file}\n", influx.port);
    let scene = Scene::new().config(&config("password")).file("password", "secret\n").file("wrong", "hunter2\n").task("1-a.sh", "exit 0");
    scene.run(&[]).exits(0).never_says("warning");
    let points: Value = serde_json::from_str(&ask("SELECT * FROM runner_run")).unwrap();
    let series = &points["results"][0]["series"][0];
    let at = |name: &str| series["columns"].as_array().unwrap().iter().position(|column| column == name).unwrap();
    let value = |name: &str| &series["values"][0][at(name)];
    assert_eq!(
        (value("chain"), value("outcome"), value("exit_code"), value("trigger")),
        (&"main".into(), &"done".into(), &0.into(), &"boot".into())
    );
    let old = ask("SELECT value,status,task,type FROM job_duration_seconds");
    assert!(old.contains("\"succeeded\",\"main\",\"task\""), "{old}");
    assert!(ask("SELECT value FROM last_successful_run_timestamp").contains("\"value\""));
    // A wrong password is a warning that does not hold it.
    let scene = scene.raw_config(format!("[runner]\ntask_dir = tasks.d\n{}", config("wrong")));
    scene.run(&["-vv"]).exits(0).says("[metrics] influxdb").says("answers 401").never_says("hunter2");
}

#[cfg(feature = "net")]
#[test]
fn etcd_has_the_sign_of_life_where_users_log_in() {
    let Some(etcd) = Server::etcd() else { return };
    let post = |path: &str, body: &str| {
        let (code, text) = etcd.ask("POST", path, body);
        assert_eq!(code, 200, "{path}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let key = STANDARD.encode("jobs/main/alive");
    post("/v3/auth/user/add", r#"{"name": "root", "password": "secret"}"#);
    post("/v3/auth/role/add", r#"{"name": "root"}"#);
    post("/v3/auth/user/grant", r#"{"user": "root", "role": "root"}"#);
    post("/v3/auth/enable", "{}");
    // The first of the two hosts is not there.
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), etcd.port);
    let scene = Scene::new()
        .config(&format!("[liveness]\netcd = etcd://root@{hosts}/jobs/{{chain}}/alive?password_file=password\n"))
        .file("password", "secret\n")
        .tasks(["1-a.sh"]);
    scene.run(&[]).exits(0).never_says("warning");
    let token = post("/v3/auth/authenticate", r#"{"name": "root", "password": "secret"}"#)["token"].as_str().unwrap().to_owned();
    let body = format!("{{\"key\": \"{key}\"}}");
    let head = format!("/v3/kv/range HTTP/1.0\r\nAuthorization: {token}\r\nX-Rest:");
    let answer: Value = serde_json::from_str(&etcd.ask("POST", &head, &body).1).unwrap();
    let record = STANDARD.decode(answer["kvs"][0]["value"].as_str().unwrap()).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert!(record["chain"] == "main" && record["fqdn"].is_string() && record["timestamp"].is_i64(), "{record}");
}

#[cfg(feature = "net")]
#[test]
fn consul_and_influxdb_2_are_asked_as_their_pages_say() {
    let (consul, influx) = (Double::start(Manner::Answers(200, "true\n")), Double::start(Manner::Answers(204, "")));
    let scene = Scene::new()
        .config(&format!("[liveness]\nconsul = consul://127.0.0.1:{}/jobs/{{chain}}/a%20b?token_file=token\n", consul.port))
        .config(&format!("[metrics]\ninfluxdb = http://127.0.0.1:{}?org=my%20org&bucket=b&token_file=token\n", influx.port))
        .file("token", "hunter2\n")
        .tasks(["1-a.sh"]);
    scene.run(&["-vv"]).exits(0).never_says("warning").never_says("hunter2");
    let asked = &consul.asked()[0];
    assert!(asked.starts_with("PUT /v1/kv/jobs/main/a%20b HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_ascii_lowercase().contains("\r\nx-consul-token: hunter2\r\n") && asked.contains("{\"fqdn\":\""), "{asked}");
    let asked = &influx.asked()[0];
    assert!(asked.starts_with("POST /api/v2/write?org=my%20org&bucket=b&precision=ms HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.to_ascii_lowercase().contains("\r\nauthorization: token hunter2\r\n") && asked.contains("\nrunner_run,chain=main"),
        "{asked}"
    );
}

#[cfg(feature = "net")]
#[test]
fn a_server_that_is_ill_or_away_is_a_warning_and_no_more() {
    let ill = Double::start(Manner::Answers(500, "it hurts"));
    let pushed = |port: u16| Scene::new().config(&format!("[metrics]\npushgateway = http://127.0.0.1:{port}\n")).tasks(["1-a.sh"]);
    pushed(ill.port).run(&[]).exits(0).says("[metrics] pushgateway").says("answers 500 it hurts");
    assert_eq!(ill.asked().len(), 3, "it is asked again");
    pushed(free_port()).run(&[]).exits(0).says("[metrics] pushgateway: http://127.0.0.1:");
    let slow = Double::start(Manner::FailsFirst(2, 200, ""));
    pushed(slow.port).run(&[]).exits(0).never_says("warning");
    assert_eq!(slow.asked().len(), 3);
    // What is refused for good is not asked again.
    let no = Double::start(Manner::Answers(400, "no"));
    pushed(no.port).run(&[]).exits(0).says("answers 400 no");
    assert_eq!(no.asked().len(), 1);
}

#[cfg(feature = "net")]
#[test]
fn a_server_that_hangs_is_left_behind_and_the_others_are_told() {
    let hanging = Double::start(Manner::Hangs);
    let scene = Scene::new()
        .config(&format!("[metrics]\npushgateway = http://127.0.0.1:{port}\ntextfile = out.prom\n", port = hanging.port))
        .config(&format!("[liveness]\nconsul = consul://127.0.0.1:{}/k\nfile = alive\n", hanging.port))
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "exit 0");
    scene.run(&[]).exits(3).quicker_than(15).says("pushgateway: there is no answer within 3 s").logged(["1-a.sh 1", "halt.sh -"]);
    assert!(read(&scene, "out.prom").contains("halted") && !scene.path("alive").exists());
}

#[cfg(all(feature = "net", feature = "schedule", feature = "store"))]
#[test]
fn the_daemon_waits_for_nobody_and_ends_in_time() {
    let hanging = Double::start(Manner::Hangs);
    let scene = Scene::new()
        .config(&format!("[metrics]\npushgateway = http://127.0.0.1:{}\n[chain:a]\ntask_dir = a\nschedule = every 1s\n", hanging.port))
        .task_at("a/1-a.sh", "once one || once two || once three || touch \"$SCENE/four\"");
    let mut running = scene.start(&["daemon"]);
    // A question takes 10 s: in that time the fourth run has begun.
    running.wait_for_file("four");
    assert!(hanging.asked().len() < 4, "the others wait in the queue");
    running.signal(Signal::TERM);
    running.finish().exits(0).says("it is left behind");
}

#[cfg(feature = "net")]
#[test]
fn https_is_spoken_and_a_stranger_is_not_believed() {
    if !succeeds(Command::new("openssl").arg("version")) || !succeeds(Command::new("python3").arg("-V")) {
        skipped("openssl or python3 is not installed");
        return;
    }
    let scene = Scene::new().tasks(["1-a.sh"]);
    let mut make = Command::new("openssl");
    make.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(' '));
    make.args("-addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE -keyout key.pem -out cert.pem".split(' '));
    make.current_dir(scene.root()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(spawn(&mut make).unwrap().0.wait().unwrap().success());
    let port = free_port();
    let program = "import http.server, ssl\n\
        class H(http.server.BaseHTTPRequestHandler):\n\
        \x20 def do_POST(self):\n\
        \x20   self.rfile.read(int(self.headers['content-length'])); self.send_response(200); self.end_headers()\n\
        s = http.server.ThreadingHTTPServer(('127.0.0.1', PORT), H)\n\
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('cert.pem', 'key.pem')\n\
        s.socket = c.wrap_socket(s.socket, server_side=True, do_handshake_on_connect=False)\n\
        s.serve_forever()";
    let mut serve = Command::new("setpriv");
    serve.args(["--pdeathsig", "KILL", "python3", "-c", &program.replace("PORT", &port.to_string())]);
    serve.current_dir(scene.root()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = spawn(&mut serve).unwrap().0;
    until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let scene = scene.config(&format!("[metrics]\npushgateway = https://localhost:{port}?ca_file=cert.pem\n"));
    let trusted = scene.run(&[]);
    let scene = scene.raw_config(format!("[runner]\ntask_dir = tasks.d\n[metrics]\npushgateway = https://localhost:{port}\n"));
    let stranger = scene.run(&[]);
    let _ = server.kill();
    let _ = server.wait();
    stranger.exits(0).says("ca_file=FILE");
    trusted.exits(0).never_says("warning");
}
