//! The stores of the locks that are measured: PostgreSQL and etcd of the benchmark's own, on the loopback, and the double of
//! Consul that the tests have. PostgreSQL does not sync what it commits, etcd does.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server, which ends with this value.
pub struct Server {
    child: Child,
    dir: TempDir,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(mut command: Command, dir: TempDir, port: u16, ready: impl Fn(&Self) -> bool) -> Self {
        let log = fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let server = Self { child: command.spawn().unwrap(), dir, port };
        let begun = Instant::now();
        while !ready(&server) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", fs::read_to_string(server.dir.path().join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The newest PostgreSQL that is installed, as a user without rights where we are root.
pub fn postgres() -> Option<Server> {
    let entries = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join("bin")).collect();
    all.sort();
    let programs = all.pop()?;
    let dir = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    }
    let command = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if is_root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(programs.join(program)).current_dir("/");
        command
    };
    let data = dir.path().join("data");
    let made = command("initdb").args(["-U", "me", "-A", "trust", "--no-sync", "-D"]).arg(&data).stdout(Stdio::null()).status();
    assert!(made.unwrap().success(), "initdb");
    let port = free_port();
    let mut server = command("postgres");
    server.arg("-F").arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"]).arg(dir.path());
    let status = data.join("postmaster.pid");
    Some(Server::start(server, dir, port, |_| fs::read_to_string(&status).is_ok_and(|text| text.contains("\nready"))))
}

/// etcd, if it is installed.
pub fn etcd() -> Option<Server> {
    Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
    let mut server = Command::new("setpriv");
    server.args(["--pdeathsig", "KILL", "etcd", "--name", "t", "--data-dir"]).arg(dir.path().join("data"));
    server.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    server.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("t={peers}")]);
    Some(Server::start(server, dir, port, |server| healthy(server.port)))
}

fn healthy(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("true")
}
