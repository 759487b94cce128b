//! A PostgreSQL server of the benchmark's own, which syncs what it commits; and the bare loop on it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A server that runs, by a user without rights where we are root.
pub struct Server {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    /// The bare loop.
    pub bare: PathBuf,
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg(format!("{PROGRAMS}/{program}")).current_dir("/");
    command
}

impl Server {
    /// Starts one; `None` where there is no PostgreSQL 15, no libpq to build with or no room.
    pub fn start() -> Option<Self> {
        // Not /tmp, which may be memory.
        let dir = tempfile::Builder::new().prefix("runner-bench-").tempdir_in("/var/tmp").ok()?;
        let bare = dir.path().join("bare");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/queue_bare_server.c");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-I/usr/include/postgresql", "-o"]).arg(&bare).arg(source).arg("-lpq").stderr(Stdio::null());
        if !cc.status().is_ok_and(|status| status.success()) {
            return None;
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).ok()?;
        }
        let data = dir.path().join("data");
        let mut initdb = as_nobody("initdb");
        initdb.args(["-U", "me", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"]).arg(&data).stdout(Stdio::null());
        if !initdb.status().is_ok_and(|status| status.success()) {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut server = as_nobody("postgres");
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=", "-c", "max_connections=40"]);
        server.arg("-c").arg(format!("unix_socket_directories={}", dir.path().display())).stderr(Stdio::piped());
        let mut child = server.spawn().ok()?;
        let mut lines = BufReader::new(child.stderr.take()?).lines();
        if !lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready to accept connections")) {
            return None;
        }
        // Read on, or it would wait for us one day.
        std::thread::spawn(move || lines.count());
        fs::metadata(&data).ok()?;
        Some(Self { child, dir, port, bare })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgresql://me@/postgres?host={}&port={}", self.dir.path().display(), self.port)
    }

    /// Does something without parameters.
    pub fn run(&self, sql: &str) {
        let mut client = postgres::Client::connect(&self.url(), postgres::NoTls).unwrap();
        client.batch_execute(&format!("SET search_path TO runner; {sql}")).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
