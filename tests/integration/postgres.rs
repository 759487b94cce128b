//! A PostgreSQL server of the test's own, on loopback and in a temporary directory, run by a user without rights and
//! ended with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::scene::{set_mode, skipped, spawn, succeeds};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// A user and a group without rights, by number: Debian's nobody and nogroup.
const NOBODY: (u32, u32) = (65534, 65534);
/// The password of the user `me`, who needs one over TCP.
pub(crate) const PASSWORD: &str = "not:easy\\to write";

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    port: u16,
}

/// A command as the user without rights; ended with the thread that starts it.
fn as_nobody(program: &str) -> Command {
    let path = format!("{PROGRAMS}/{program}");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if rustix::process::geteuid().is_root() {
        let (user, group) = NOBODY;
        command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
    }
    command.arg(path).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("TZ", "UTC").current_dir("/");
    command
}

impl Server {
    /// A new server without any table; says that the test is skipped where there is no program for one.
    pub(crate) fn start() -> Option<Self> {
        if !Path::new(PROGRAMS).join("initdb").exists() || !succeeds(Command::new("openssl").arg("version")) {
            skipped("PostgreSQL 15 or openssl is not installed");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("runner-pg-").tempdir().unwrap();
        give_to_nobody(dir.path());
        let data = dir.path().join("data");
        let mut initdb = as_nobody("initdb");
        initdb.args(["--no-sync", "-U", "me", "-E", "UTF8", "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        give_to_nobody(&password);
        initdb.arg("--pwfile").arg(&password).arg("-D").arg(&data).stdout(Stdio::null());
        assert!(spawn(&mut initdb).unwrap().0.wait().unwrap().success(), "initdb failed");
        make_certificate(dir.path());
        let rules = data.join("pg_hba.conf");
        fs::write(&rules, format!("host all keyless all trust\n{}", fs::read_to_string(&rules).unwrap())).unwrap();
        for name in ["server.crt", "server.key"] {
            let file = data.join(name);
            fs::copy(dir.path().join(name), &file).unwrap();
            set_mode(&file, 0o600);
            give_to_nobody(&file);
        }
        let (child, port) = serve(dir.path(), None);
        let server = Self { child, dir, port };
        let mut client = postgres::Client::connect(&server.local(), postgres::NoTls).unwrap();
        client.batch_execute("CREATE ROLE keyless SUPERUSER LOGIN").unwrap();
        Some(server)
    }

    /// Over the socket in its directory, without a password.
    pub(crate) fn local(&self) -> String {
        format!("postgresql://me@/postgres?host={}&port={}", self.dir.path().display(), self.port)
    }

    /// Over TCP, where `me` needs a password and `keyless` none.
    pub(crate) fn remote(&self, user: &str, host: &str) -> String {
        format!("postgresql://{user}@{host}:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The root that signed its certificate, which is one for `localhost`.
    pub(crate) fn root_certificate(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// It ends at once, and all connections with it.
    pub(crate) fn stop(&mut self) {
        let _ = kill_process(self.pid(), Signal::QUIT);
        self.child.wait().unwrap();
    }

    /// It is gone, without having been told, and so are all that served connections.
    pub(crate) fn kill(&mut self) {
        self.signal_all(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// It runs again, at the same address.
    pub(crate) fn start_again(&mut self) {
        self.child = serve(self.dir.path(), Some(self.port)).0;
    }

    /// Takes connections, and says nothing on them: neither the server nor those that serve connections go on.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = self.pid();
        // One that was stopped has none.
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children", server = server.as_raw_nonzero()));
        let children = children.unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        for pid in pids.chain([server]) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thaw();
        self.stop();
    }
}

/// A root of its own, and a certificate for `localhost` that it signed.
fn make_certificate(dir: &Path) {
    let steps = [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=root -keyout ca.key -out ca.crt",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
    ];
    fs::write(dir.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    for step in steps {
        let mut openssl = Command::new("openssl");
        openssl.args(step.split(' ')).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(spawn(&mut openssl).unwrap().0.wait().unwrap().success(), "openssl {step}");
    }
}

fn give_to_nobody(path: &Path) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY.0), Some(NOBODY.1)).unwrap();
    }
}

/// Starts the server and waits until it says that it is ready. A port that somebody else took meanwhile is given up.
fn serve(dir: &Path, port: Option<u16>) -> (Child, u16) {
    for _ in 0..10 {
        let port = port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let mut command = as_nobody("postgres");
        command.arg("-D").arg(dir.join("data")).arg("-p").arg(port.to_string());
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "ssl=on", "log_min_messages=warning", "max_connections=40"] {
            command.arg("-c").arg(setting);
        }
        command.arg("-c").arg(format!("unix_socket_directories={}", dir.display())).stderr(Stdio::piped());
        let mut child = spawn(&mut command).unwrap().0;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready to accept connections"));
        if ready {
            // Read on, or it would wait for us one day.
            std::thread::spawn(move || lines.count());
            return (child, port);
        }
        child.wait().unwrap();
    }
    panic!("the server does not start");
}
