//! The HTTP server on real sockets, with clients that are slow, rude, many, or somebody else. Each test has a server
//! of its own on a free port of the loopback; the limits are short where a test waits for one to pass.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use runner::config::keys::Trust;
use runner::http::guard::{Allow, Guard};
use runner::http::listen::{ListenAddress, Listener};
use runner::http::response::{Code, Response};
use runner::http::server::{Handler, Limits, Reply, Server};
use runner::http::site::{Fired, Route, View, fired};
use runner::http::token::TokenFile;
use runner::status::Status;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::scene::{skipped, spawn, until};

/// A status as it was first written.
const STATUS: &str = include_str!("../data/status-v1.json");
/// Longer than any answer takes; only there in order to fail.
const DEADLINE: Duration = Duration::from_secs(60);
const HOST: &str = "Host: localhost\r\n\r\n";

fn answer_all() -> Handler {
    let status: Arc<Status> = Arc::new(serde_json::from_str(STATUS).unwrap());
    Box::new(move |route: Route, reply: Reply| match route {
        Route::Tick => reply.send(fired(&[Fired { chain: "nightly".into(), run_id: "id-1".into() }])),
        Route::View(view) => reply.show(view, Arc::clone(&status)),
    })
}

fn patient() -> Limits {
    Limits { time: DEADLINE, ..Limits::default() }
}

fn hasty() -> Limits {
    Limits { time: Duration::from_secs(1), ..Limits::default() }
}

fn start(listen: &str, guard: Guard, limits: Limits, handler: Handler) -> (Server, SocketAddr) {
    let listener = Listener::bind(&ListenAddress::parse(listen).unwrap()).unwrap();
    let server = Server::start(vec![listener], guard, limits, handler).unwrap();
    let address = tcp(&server.addresses()[0]);
    (server, address)
}

fn tcp(address: &ListenAddress) -> SocketAddr {
    match address {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(path) => panic!("{}", path.display()),
    }
}

fn simple() -> (Server, SocketAddr) {
    start("127.0.0.1:0", Guard::default(), patient(), answer_all())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// All that comes until the other end closes. A reset is an end, too.
fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end came: {error}"),
        Ok(_) | Err(_) => String::from_utf8(bytes).unwrap(),
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    // It may be refused before all of it is sent.
    let _ = stream.write_all(request.as_bytes());
    rest(stream)
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\n{HOST}"))
}

fn code(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).unwrap_or_default()
}

#[test]
fn each_path_is_answered_in_its_own_kind() {
    let (_server, address) = simple();
    let table = [
        ("/", "text/html; charset=utf-8", "build-07.example.org"),
        ("/style.css", "text/css; charset=utf-8", "color-scheme"),
        ("/status.json", "application/json", "\"version\": 1"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "\nrunner_running{chain=\"rebuild\"} 1\n"),
        ("/healthz", "text/plain; charset=utf-8", "ok\n"),
        ("/cron", "application/json", "\"run_id\": \"id-1\""),
    ];
    for (path, kind, words) in table {
        let answer = get(address, path);
        assert!(answer.contains(words) && answer.contains(&format!("\r\nContent-Type: {kind}\r\n")), "{path}: {answer}");
        for header in ["Content-Security-Policy: default-src 'none'", "X-Content-Type-Options: nosniff", "Cache-Control: no-store"] {
            assert!(answer.contains(header), "{path}: {answer}");
        }
    }
    let (whole, head) = (get(address, "/metrics"), ask(address, &format!("HEAD /metrics HTTP/1.1\r\n{HOST}")));
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let length = |answer: &str| answer.lines().find_map(|line| line.strip_prefix("Content-Length: ").map(str::to_owned));
    assert_eq!(length(&head), length(&whole));
    assert_eq!(code(&ask(address, &format!("POST /cron HTTP/1.1\r\n{HOST}"))), 200);
    assert!(ask(address, &format!("PUT /cron HTTP/1.1\r\n{HOST}")).contains("\r\nAllow: GET, POST\r\n"));
    assert_eq!(code(&get(address, "/nowhere")), 404);
    assert_eq!(code(&get(address, "/?run=none")), 404);
}

#[test]
fn what_is_no_request_is_told_so() {
    let (_server, address) = simple();
    let body = "x".repeat(8192);
    let table = [
        ("\r\nhello\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/3.0\r\n{HOST}"), 505),
        (format!("GET /{} HTTP/1.1\r\n{HOST}", "x".repeat(100_000)), 431),
        (format!("GET / HTTP/1.1\r\n{}{HOST}", "X-Y: z\r\n".repeat(100)), 431),
        (format!("GET / HTTP/1.1\r\nX-Y: {}\r\n{HOST}", "z".repeat(2_000_000)), 431),
        (format!("POST /cron HTTP/1.1\r\nContent-Length: 9000\r\n{HOST}{body}"), 413),
        (format!("POST /cron HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{HOST}5\r\nhello\r\n0\r\n\r\n"), 411),
        (format!("POST /cron HTTP/1.1\r\nContent-Length: 8192\r\n{HOST}{body}"), 200),
        // A second request in the same breath is not read.
        (format!("GET /healthz HTTP/1.1\r\n{HOST}GET /cron HTTP/1.1\r\n{HOST}"), 200),
    ];
    for (request, wanted) in table {
        let mut stream = connect(address);
        // Whoever sends more than is read may be cut off, but not before the answer is there.
        let _ = stream.write_all(request.as_bytes());
        let mut begin = [0; 12];
        match stream.read_exact(&mut begin) {
            Ok(()) => assert_eq!(code(&format!("{} ", String::from_utf8_lossy(&begin))), wanted, "{:.60}", request),
            Err(error) => assert!(request.len() > 1_000_000, "{:.60}: {error}", request),
        }
        assert!(!rest(stream).contains("id-1") || wanted == 200);
    }
}

#[test]
fn a_request_may_come_byte_by_byte_and_from_one_who_only_listens_then() {
    let (_server, address) = simple();
    let mut stream = connect(address);
    stream.set_nodelay(true).unwrap();
    for byte in format!("GET /healthz HTTP/1.1\r\nX-Long: {}\r\n{HOST}", "y".repeat(300)).bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(rest(stream).ends_with("\r\n\r\nok\n"));
    // Half a request and then nothing more: nobody waits for an answer.
    let mut half = connect(address);
    half.write_all(b"GET / HT").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(half), "");
}

#[test]
fn who_takes_too_long_is_sent_away() {
    let (_server, address) = start("127.0.0.1:0", Guard::default(), hasty(), answer_all());
    let silent = connect(address);
    let mut slow = connect(address);
    let mut reader = slow.try_clone().unwrap();
    // One byte at a time for as long as somebody reads them; the time counts from the beginning.
    slow.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    reader.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut answer = Vec::new();
    for _ in 0..10_000 {
        let _ = slow.write_all(b"y");
        let mut buffer = [0; 1024];
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    assert_eq!(code(&String::from_utf8(answer).unwrap()), 408);
    assert_eq!(rest(silent), "", "who said nothing is told nothing");
    assert_eq!(code(&get(address, "/healthz")), 200);
}

#[test]
fn a_hundred_at_once_are_answered_and_a_hundred_that_say_nothing_keep_nobody_out() {
    let (_server, address) = simple();
    let many: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(format!("GET /metrics HTTP/1.1\r\n{HOST}").as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(many.into_iter().all(|stream| code(&rest(stream)) == 200));
    let silent: Vec<_> = (0..100)
        .map(|at| {
            let mut stream = connect(address);
            if at % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(code(&get(address, "/healthz")), 200);
    drop(silent);
    assert_eq!(code(&get(address, "/metrics")), 200);
}

#[test]
fn who_does_not_read_keeps_nobody_waiting() {
    let big: Handler = Box::new(|_, reply| reply.send(Response::new(Code::Ok, runner::http::response::Kind::Text, vec![b'x'; 32 << 20])));
    let limits = Limits { time: Duration::from_secs(3), ..Limits::default() };
    let (_server, address) = start("127.0.0.1:0", Guard::default(), limits, big);
    let mut lazy = connect(address);
    lazy.write_all(format!("GET / HTTP/1.1\r\n{HOST}").as_bytes()).unwrap();
    // Another is served meanwhile, whole.
    assert!(get(address, "/").len() > 32 << 20);
    // And the first one is cut off; what had gone out is less than all.
    until("the one who does not read is cut off", || (&lazy).write_all(b"y").is_err());
}

#[test]
fn the_socket_says_who_asks_and_the_host_is_ours() {
    let guard = Guard::new(Allow::parse("10.0.0.0/8").unwrap(), None);
    let (_server, address) = start("127.0.0.1:0", guard, patient(), answer_all());
    let lies = "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n";
    let answer = ask(address, &format!("GET / HTTP/1.1\r\n{lies}{HOST}"));
    assert!(code(&answer) == 403 && answer.contains("your address is not in [daemon] allow"), "{answer}");
    assert_eq!(code(&get(address, "/nowhere")), 403, "who is refused learns of no path");
    assert_eq!(code(&get(address, "/healthz")), 200);
    let (_server, address) = simple();
    for (host, wanted) in [("localhost", 200), ("127.0.0.1:1", 200), ("[::1]", 200), ("rebound.example", 403), ("", 403)] {
        assert_eq!(code(&ask(address, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))), wanted, "{host}");
    }
    assert_eq!(code(&ask(address, "GET http://rebound.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n")), 403);
    assert_eq!(code(&ask(address, "GET / HTTP/1.0\r\n\r\n")), 403);
}

#[test]
fn strangers_who_say_nothing_keep_neither_us_nor_other_strangers_out() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = ["127.0.0.1:0", dir.path().join("socket").to_str().unwrap()].map(|text| {
        let address = ListenAddress::parse(text).unwrap();
        Listener::bind(&address).unwrap()
    });
    let guard = Guard::new(Allow::parse("10.0.0.0/8").unwrap(), None);
    let server = Server::start(listeners.into(), guard, patient(), answer_all()).unwrap();
    let address = tcp(&server.addresses()[0]);
    // Half of the places; whoever comes beyond that is cut off at once.
    let silent: Vec<_> = (0..40).map(|_| connect(address)).collect();
    let mut ours = UnixStream::connect(dir.path().join("socket")).unwrap();
    ours.write_all(format!("GET / HTTP/1.1\r\n{HOST}").as_bytes()).unwrap();
    assert_eq!(code(&rest(ours)), 200);
    until("a stranger is answered", || {
        let mut stream = connect(address);
        let _ = stream.write_all(format!("GET /healthz HTTP/1.1\r\n{HOST}").as_bytes());
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).is_ok_and(|()| begin.ends_with(b"200"))
    });
    drop(silent);
}

#[test]
fn addresses_of_both_kinds_are_the_same_machine() {
    let Ok(listener) = Listener::bind(&ListenAddress::parse("[::]:0").unwrap()) else {
        return skipped("no IPv6 here");
    };
    let port = tcp(listener.address()).port();
    let guard = Guard::new(Allow::parse("127.0.0.1").unwrap(), None);
    let _server = Server::start(vec![listener], guard, patient(), answer_all()).unwrap();
    // IPv4 comes to an IPv6 socket as ::ffff:127.0.0.1.
    assert_eq!(code(&get(SocketAddr::from(([127, 0, 0, 1], port)), "/")), 200);
    assert_eq!(code(&get(format!("[::1]:{port}").parse().unwrap(), "/")), 403, "::1 is not in allow");
}

#[test]
fn a_socket_file_is_answered_like_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let listener = Listener::bind(&ListenAddress::Unix(path.clone())).unwrap();
    let server = Server::start(vec![listener], Guard::default(), patient(), answer_all()).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\n{HOST}").as_bytes()).unwrap();
    assert_eq!(code(&rest(stream)), 200);
    server.stop();
    assert!(!path.exists());
}

#[test]
fn the_token_opens_and_a_new_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "first-token-of-all\n").unwrap();
    let guard = Guard::new(Allow::default(), Some(TokenFile::open(&path, Trust::Refuse).unwrap().0));
    let (_server, address) = start("127.0.0.1:0", guard, patient(), answer_all());
    let with = |token: &str| code(&ask(address, &format!("POST /cron HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{HOST}")));
    assert_eq!([code(&get(address, "/")), code(&get(address, "/healthz"))], [403, 200]);
    assert_eq!([with("first-token-of-all"), with("first-token-of-al"), with("")], [200, 403, 403]);
    fs::write(dir.path().join("new"), "second-token-of-all\n").unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    assert_eq!([with("first-token-of-all"), with("second-token-of-all")], [403, 200]);
    fs::remove_file(&path).unwrap();
    assert_eq!(with("second-token-of-all"), 403);
}

#[test]
fn an_answer_may_come_later_from_another_thread_and_its_absence_is_told() {
    let (send, receive) = channel();
    let (_server, address) =
        start("127.0.0.1:0", Guard::default(), patient(), Box::new(move |route, reply| send.send((route, reply)).unwrap()));
    let asker = std::thread::spawn(move || get(address, "/cron"));
    let (route, late) = receive.recv_timeout(DEADLINE).unwrap();
    assert_eq!(route, Route::Tick);
    // Others are answered while the first one waits.
    let other = std::thread::spawn(move || get(address, "/healthz"));
    let (route, reply) = receive.recv_timeout(DEADLINE).unwrap();
    assert_eq!(route, Route::View(View::Health));
    drop(reply);
    assert_eq!(code(&other.join().unwrap()), 503);
    late.send(fired(&[]));
    assert!(asker.join().unwrap().contains("\"runs\": []"));
}

#[test]
fn who_gets_no_answer_is_told_in_time_and_a_fault_harms_nobody_else() {
    let mut kept = Vec::new();
    let handler: Handler = Box::new(move |route, reply| match route {
        Route::Tick => kept.push(reply),
        Route::View(View::Metrics) => panic!("a fault of the handler's, made by a test"),
        Route::View(_) => reply.send(Response::text(Code::Ok, "fine")),
    });
    let (_server, address) = start("127.0.0.1:0", Guard::default(), hasty(), handler);
    assert!(get(address, "/cron").contains("did not answer in time"));
    assert_eq!([code(&get(address, "/metrics")), code(&get(address, "/"))], [503, 200]);
}

#[test]
fn a_reload_keeps_what_stays_and_a_taken_port_keeps_everything() {
    let (mut server, first) = simple();
    let half = connect(first);
    let taken = Listener::bind(&ListenAddress::parse("127.0.0.1:0").unwrap()).unwrap();
    let listen = |address: &ListenAddress| vec![ListenAddress::Tcp(first), address.clone()];
    let error = server.reload(Guard::default(), &listen(taken.address())).unwrap_err().to_string();
    assert!(error.contains(&taken.address().to_string()) && error.contains("another daemon has it"), "{error}");
    assert_eq!((server.addresses().len(), code(&get(first, "/"))), (1, 200));
    let everywhere = ListenAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], first.port())));
    let error = server.reload(Guard::default(), &[everywhere]).unwrap_err().to_string();
    assert!(error.contains("restart the daemon") && !server.has_ended(), "{error}");
    server.reload(Guard::new(Allow::parse("10.0.0.0/8").unwrap(), None), &listen(&ListenAddress::parse("127.0.0.1:0").unwrap())).unwrap();
    let second = tcp(&server.addresses()[1]);
    assert_eq!([code(&get(first, "/")), code(&get(second, "/")), code(&get(second, "/healthz"))], [403, 403, 200]);
    server.reload(Guard::default(), &[ListenAddress::Tcp(second)]).unwrap();
    assert_eq!(code(&get(second, "/")), 200);
    until("the first port is closed", || TcpStream::connect(first).is_err());
    // It ends at once, whoever is still there; then the port is free.
    server.stop();
    assert_eq!(rest(half), "");
    assert!(TcpStream::connect(second).is_err());
}

#[test]
fn any_bytes_leave_the_server_standing() {
    let (_server, address) = start("127.0.0.1:0", Guard::default(), hasty(), answer_all());
    let pieces = proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "(GET|POST|[A-Z]{1,9}) [ -~]{0,20} HTTP/[0-9.]{1,3}\r\n".prop_map(String::into_bytes),
            "[A-Za-z-]{1,12}: [ -~]{0,30}\r\n".prop_map(String::into_bytes),
            Just(b"\r\n".to_vec()),
        ],
        0..8,
    );
    let mut cases = TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() });
    let sent = cases.run(&pieces, |pieces| {
        let mut stream = connect(address);
        let _ = pieces.iter().try_for_each(|piece| stream.write_all(piece));
        let _ = stream.shutdown(Shutdown::Write);
        let answer = rest(stream);
        prop_assert!(answer.is_empty() || code(&answer) >= 200, "{answer}");
        Ok(())
    });
    sent.unwrap();
    assert_eq!(code(&get(address, "/healthz")), 200);
}

/// Its child is this program again, with this test alone and few descriptors: the limit is the whole process's.
#[test]
fn without_a_descriptor_it_waits_until_there_is_one_and_does_not_spin() {
    const CHILD: &str = "HTTP_TEST_WITH_FEW_DESCRIPTORS";
    const NAME: &str = "http::without_a_descriptor_it_waits_until_there_is_one_and_does_not_spin";
    if std::env::var_os(CHILD).is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--test-threads=1"]).env(CHILD, "1").stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = spawn(&mut child).unwrap().0.wait_with_output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return;
    }
    let (_server, address) = simple();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // One more, which the client's end takes.
    let next = fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::Nofile, Rlimit { current: Some(u64::try_from(next).unwrap() + 1), ..limit }).unwrap();
    let mut client = connect(address);
    assert!(fs::File::open("/dev/null").is_err(), "no descriptor is left");
    client.write_all(format!("GET /healthz HTTP/1.1\r\n{HOST}").as_bytes()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let spent = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    let before = spent();
    assert!(client.read(&mut [0]).is_err(), "nobody could be accepted");
    assert!(spent() - before < Duration::from_millis(150), "it spins");
    setrlimit(Resource::Nofile, limit).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(code(&rest(client)), 200);
}

#[test]
fn prometheus_takes_the_metrics() {
    let (_server, address) = simple();
    let answer = get(address, "/metrics");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok((mut child, _)) = spawn(&mut promtool) else {
        return skipped("promtool is not installed (package prometheus)");
    };
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}\n{body}");
}
