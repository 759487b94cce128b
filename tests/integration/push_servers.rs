//! Servers that are told of runs: InfluxDB 1, Pushgateway and etcd for real, on free ports of loopback and in temporary
//! directories, ended with the test. And a double for those that Debian has no package of, which says so.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tempfile::TempDir;

use crate::running::{DEADLINE, pause_briefly};
use crate::scene::{skipped, spawn, succeeds};

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A real server.
pub(crate) struct Server {
    child: Child,
    _dir: TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a program until it answers `ready` with 2xx; a port that somebody else took meanwhile is given up.
    fn start(program: &str, ready: &str, prepare: impl Fn(&mut Command, &TempDir, u16)) -> Option<Self> {
        if !succeeds(Command::new("sh").args(["-c", &format!("command -v {program}")])) {
            skipped(&format!("{program} is not installed"));
            return None;
        }
        for _ in 0..5 {
            let (dir, port) = (tempfile::Builder::new().prefix("runner-push-").tempdir().unwrap(), free_port());
            // Ended with the thread that starts it, however that ends.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", program]).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin").env("HOME", dir.path());
            prepare(&mut command, &dir, port);
            let log = fs::File::create(dir.path().join("log")).unwrap();
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(dir.path());
            let mut server = Self { child: spawn(&mut command).unwrap().0, _dir: dir, port };
            let begun = Instant::now();
            while begun.elapsed() < DEADLINE {
                if (200..300).contains(&server.ask("GET", ready, "").0) {
                    return Some(server);
                }
                if server.child.try_wait().unwrap().is_some() {
                    break;
                }
                pause_briefly();
            }
        }
        panic!("{program} does not start");
    }

    pub(crate) fn influxdb() -> Option<Self> {
        Self::start("influxd", "/ping", |command, dir, port| {
            let path = |name: &str| dir.path().join(name);
            command
                .args(["run", "-config", "/dev/null"])
                .env("INFLUXDB_META_DIR", path("meta"))
                .env("INFLUXDB_DATA_DIR", path("data"))
                .env("INFLUXDB_DATA_WAL_DIR", path("wal"))
                .env("INFLUXDB_BIND_ADDRESS", "127.0.0.1:0")
                .env("INFLUXDB_HTTP_BIND_ADDRESS", format!("127.0.0.1:{port}"))
                .env("INFLUXDB_HTTP_AUTH_ENABLED", "true")
                .env("INFLUXDB_MONITOR_STORE_ENABLED", "false")
                .env("INFLUXDB_REPORTING_DISABLED", "true");
        })
    }

    pub(crate) fn pushgateway() -> Option<Self> {
        Self::start("prometheus-pushgateway", "/-/ready", |command, _, port| {
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        })
    }

    pub(crate) fn etcd() -> Option<Self> {
        Self::start("etcd", "/health", |command, dir, port| {
            let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
            command.arg("--data-dir").arg(dir.path().join("data"));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
            command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
        })
    }

    /// Asks it; status 0 where it does not answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let asked = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
            socket.set_read_timeout(Some(DEADLINE))?;
            let length = body.len();
            write!(socket, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a double behaves.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// Answers every question with this status and body.
    Answers(u16, &'static str),
    /// The first ones with 503, then as above.
    FailsFirst(usize, u16, &'static str),
    /// Takes questions and never says anything.
    Hangs,
}

/// A double, no server: it keeps what it is asked and answers as it was told to. It stands for Consul and InfluxDB 2, of
/// which Debian has no package, and for servers that are ill.
pub(crate) struct Double {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Double {
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for mut socket in listener.incoming().flatten() {
                let Some(question) = read_question(&socket) else { continue };
                let count = {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.push(question);
                    kept.len()
                };
                let (status, body) = match manner {
                    Manner::Answers(status, body) => (status, body),
                    Manner::FailsFirst(times, ..) if count <= times => (503, "not yet"),
                    Manner::FailsFirst(_, status, body) => (status, body),
                    Manner::Hangs => {
                        held.push(socket);
                        continue;
                    }
                };
                let length = body.len();
                let _ = write!(socket, "HTTP/1.1 {status} so\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            }
        });
        Self { port, asked }
    }

    /// What it was asked, head and body.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read_question(socket: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(socket);
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        text.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(text + &String::from_utf8_lossy(&body))
}
