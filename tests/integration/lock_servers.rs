//! The servers that locks live in, for real: PostgreSQL and etcd, each on a free port of the loopback, in a temporary
//! directory, ended with this program however that ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::lock_command::send;
use crate::running::pause_briefly;
use crate::scene::{skipped, spawn};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A server under a shell that ends it, and removes its directory, when our end of its pipe is closed: the kernel does
/// that for us.
pub(crate) struct Server {
    guard: Child,
    pipe: Option<ChildStdin>,
    pub(crate) port: u16,
    directory: TempDir,
}

impl Server {
    fn start(directory: TempDir, port: u16, words: &[String]) -> Self {
        // A server that ends before its time is started again.
        const GUARD: &str = r#"
            while :; do "$@" </dev/null & echo $! >"$PID.new"; mv "$PID.new" "$PID"; wait $!; sleep 0.1; done & again=$!
            read -r _
            kill $again; server=$(cat "$PID"); kill -CONT $server; kill -QUIT $server
            # Dead is enough: process 1 of a container may bury nobody.
            while [ -e /proc/$server/stat ] && ! grep -q ') Z ' /proc/$server/stat; do sleep 0.05; done
            rm -rf "$DIR""#;
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD, "guard"])
            .args(words)
            .env("PID", directory.path().join("pid"))
            .env("DIR", directory.path())
            .stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let (mut guard, _) = spawn(&mut command).unwrap();
        let pipe = guard.stdin.take();
        Self { guard, pipe, port, directory }
    }

    /// The server's own process.
    pub(crate) fn pid(&self) -> i32 {
        fs::read_to_string(self.directory.path().join("pid")).unwrap().trim().parse().unwrap()
    }

    /// Stops it with all its processes, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        let pid = self.pid();
        // The first one starts the others: stopped before them, it goes on after them.
        let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let mut all = vec![pid];
        if frozen {
            send(pid, signal);
        }
        all.extend(children().split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        for pid in all.into_iter().rev().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    #[track_caller]
    fn wait_until(&self, ready: impl Fn() -> bool) {
        let begun = Instant::now();
        while !ready() {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < START, "the server does not answer: {}", log());
            pause_briefly();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.guard.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn open_directory(prefix: &str) -> TempDir {
    let open = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix(prefix).permissions(open).tempdir().unwrap()
}

// ---- PostgreSQL --------------------------------------------------------------------------------

/// The newest PostgreSQL that is installed.
fn postgres_programs() -> Option<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut all: Vec<_> = entries.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).collect();
    all.sort();
    all.pop()
}

/// PostgreSQL refuses to be root.
fn as_somebody(words: &[&str]) -> Vec<String> {
    let root = rustix::process::geteuid().is_root();
    let user: &[&str] = &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let prefix = if root { user } else { &[] };
    prefix.iter().chain(words).map(|word| (*word).to_owned()).collect()
}

#[track_caller]
fn run(words: &[String], input: &str) {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, _) = spawn(&mut command).unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The password of the user `locked`, who needs one.
pub(crate) const PASSWORD: &str = "wide-open-sesame";

/// A PostgreSQL of one's own.
pub(crate) fn start_postgres() -> Option<Server> {
    postgres_programs().map(|bin| start_postgres_from(&bin, &[], "127.0.0.1"))
}

/// The PostgreSQL of all tests; `None`, and told, where there is none.
pub(crate) fn postgres() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(start_postgres).as_ref();
    if server.is_none() {
        skipped("PostgreSQL is not installed");
    }
    server
}

/// One that is started by this command and listens on this address.
pub(crate) fn start_postgres_under(under: &[String], host: &str) -> Option<Server> {
    postgres_programs().map(|bin| start_postgres_from(&bin, under, host))
}

fn start_postgres_from(bin: &Path, under: &[String], host: &str) -> Server {
    let directory = open_directory("runner-postgres-");
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        run(&["chown", "postgres:", data.to_str().unwrap()].map(str::to_owned), "");
    }
    let (data, program) = (data.to_str().unwrap().to_owned(), |name: &str| bin.join(name).to_str().unwrap().to_owned());
    run(&as_somebody(&[&program("initdb"), "-A", "trust", "-U", "postgres", "--no-sync", "-D", &data]), "");
    let access = format!("{data}/pg_hba.conf");
    let old = fs::read_to_string(&access).unwrap();
    fs::write(&access, format!("host all locked 127.0.0.1/32 scram-sha-256\n{old}\nhost all all 10.0.0.0/8 trust\n")).unwrap();
    let sql = format!("create role locked superuser login password '{PASSWORD}';\n");
    run(&as_somebody(&[&program("postgres"), "--single", "-F", "-D", &data, "postgres"]), &sql);
    let port = free_port();
    let options = ["-F", "-h", host, "-k", &data];
    let port_text = port.to_string();
    let words = as_somebody(&[&[program("postgres").as_str(), "-D", &data, "-p", &port_text][..], &options].concat());
    let words = [under, &words].concat();
    let server = Server::start(directory, port, &words);
    let status = format!("{data}/postmaster.pid");
    server.wait_until(|| fs::read_to_string(&status).is_ok_and(|text| text.contains("\nready")));
    server
}

// ---- etcd --------------------------------------------------------------------------------------

/// The etcd of all tests; `None`, and told, where there is none.
pub(crate) fn etcd() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(start_etcd).as_ref();
    if server.is_none() {
        skipped("etcd is not installed");
    }
    server
}

/// An etcd of one's own.
pub(crate) fn start_etcd() -> Option<Server> {
    start_etcd_under(&[], "127.0.0.1", healthy)
}

/// One that is started by this command and listens on this address, and is `ready` when that says so of its port.
pub(crate) fn start_etcd_under(under: &[String], host: &str, ready: impl Fn(u16) -> bool) -> Option<Server> {
    start_etcd_as(under, ("http", host), &[], ready)
}

/// One that speaks TLS only, with `server.crt` of this directory, and to those only who show a certificate of `ca.crt`.
pub(crate) fn start_etcd_over_tls(dir: &Path, ready: impl Fn(u16) -> bool) -> Option<Server> {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (own, key, root) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let more = ["--cert-file", &own, "--key-file", &key, "--trusted-ca-file", &root, "--client-cert-auth"];
    start_etcd_as(&[], ("https", "127.0.0.1"), &more, ready)
}

/// One in which `root` has this password, and nobody else may do anything.
pub(crate) fn etcd_that_asks(password: &str) -> Option<Server> {
    let server = start_etcd()?;
    let post = |path: &str, body: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        write!(stream, "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{path}: {answer}");
    };
    post("/v3/auth/user/add", &format!(r#"{{"name": "root", "password": "{password}"}}"#));
    post("/v3/auth/role/add", r#"{"name": "root"}"#);
    post("/v3/auth/user/grant", r#"{"user": "root", "role": "root"}"#);
    post("/v3/auth/enable", "{}");
    Some(server)
}

fn start_etcd_as(under: &[String], (scheme, host): (&str, &str), more: &[&str], ready: impl Fn(u16) -> bool) -> Option<Server> {
    if !["/usr/bin/etcd", "/usr/local/bin/etcd"].iter().any(|file| Path::new(file).exists()) {
        return None;
    }
    let (directory, port) = (open_directory("runner-etcd-"), free_port());
    let (clients, peers) = (format!("{scheme}://{host}:{port}"), format!("http://127.0.0.1:{}", free_port()));
    let cluster = format!("t={peers}");
    let data = directory.path().join("data").to_str().unwrap().to_owned();
    let words = [
        ["etcd", "--name", "t"].as_slice(),
        &["--data-dir", &data],
        &["--listen-client-urls", &clients, "--advertise-client-urls", &clients],
        &["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers, "--initial-cluster", &cluster],
        more,
    ]
    .concat();
    let words: Vec<String> = under.iter().cloned().chain(words.iter().map(|word| (*word).to_owned())).collect();
    let server = Server::start(directory, port, &words);
    server.wait_until(|| ready(port));
    Some(server)
}

fn healthy(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("true")
}
