//! Locks in servers that want a password, a certificate, or both: from files, and in no list of processes and no log.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::lock_command::{entered, lock_scene, stay_inside};
use crate::lock_servers::{etcd_that_asks, start_etcd_over_tls};
use crate::postgres::{PASSWORD, Server};
use crate::scene::{Scene, runner_binary, skipped, succeeds};

/// Holds the lock once, as loud as can be: it is had, and nobody sees a secret.
#[track_caller]
fn holds(scene: &Scene, key: &str, secret: &str) {
    // The holder, its guard and this very shell.
    let look = "for p in $PPID $(cat /proc/$PPID/task/*/children); do tr '\\0' '\\n' 2>&1 <\"/proc/$p/cmdline\"; tr '\\0' '\\n' 2>&1 <\"/proc/$p/environ\"; done; true";
    let outcome = scene.run(&["-vv", "lock", key, "--", "sh", "-c", look]).exits(0).says("is ours, token");
    outcome.prints("lock-guard").never_says(secret).never_prints(secret);
    scene.run(&["-vv", "--json", "lock", key, "--", "false"]).exits(1).never_says(secret);
}

#[test]
fn postgresql_over_tls_with_a_password() {
    let Some(server) = Server::start() else { return };
    let scene = lock_scene().file("pw", format!("{PASSWORD}\n"));
    let pipe = scene.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let (root, url) = (server.root_certificate(), server.remote("me", "localhost"));
    let key = |more: &str| format!("{url}?key=k{more}");
    let (password, rooted) = ("&password_file=pw", format!("&sslrootcert={}", root.display()));
    let good = key(&format!("{password}&sslmode=verify-full{rooted}"));
    holds(&scene, &good, PASSWORD);
    // What goes over the wire is encrypted: the server says so.
    let mut holder = stay_inside(&scene, &[], &good);
    holder.wait_for("inside", |_| entered(&scene).len() == 1);
    let mut client = ::postgres::Client::connect(&server.local(), ::postgres::NoTls).unwrap();
    let asked = "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'runner lock'";
    let encrypted: Vec<bool> = client.query(asked, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(encrypted, [true]);
    holder.signal(Signal::TERM);
    holder.finish().dies_of(Signal::TERM);
    let refused = |key: &str, code, says: &str| drop(scene.run(&["lock", key, "--", "true"]).exits(code).says(says).never_says(PASSWORD));
    refused(&key(password), 74, "name the certificate to trust with sslrootcert=FILE");
    refused(&key(&format!("{password}&sslmode=require")), 74, "name the certificate to trust");
    // A certificate is one of a name.
    let stranger = good.replace("localhost", "127.0.0.1");
    refused(&stranger, 74, "certificate not valid for name");
    refused(&key(&rooted), 74, "password");
    refused(&key("&password_file=nowhere"), 78, "nowhere: No such file");
    // Nobody waits for who would write into a pipe.
    for more in ["&password_file=pipe", "&passfile=pipe", "&password_file=pw&sslmode=require&sslrootcert=pipe"] {
        refused(&key(more), 78, "pipe: it is no regular file");
    }
}

/// A root, and certificates for the server and for us that it signed.
fn make_certificates(dir: &Path) -> bool {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let sign = "x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names";
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let steps = [
        format!("req -x509 {new} -days 2 -subj /CN=root -keyout ca.key -out ca.crt"),
        format!("req {new} -subj /CN=localhost -keyout server.key -out server.csr"),
        format!("{sign} -in server.csr -out server.crt"),
        format!("req {new} -subj /CN=batch -keyout own.key -out own.csr"),
        format!("{sign} -in own.csr -out own.crt"),
    ];
    steps.iter().all(|step| succeeds(Command::new("openssl").args(step.split(' ')).current_dir(dir)))
}

#[test]
fn etcd_over_tls_with_a_certificate_of_ours() {
    let scene = lock_scene();
    if !make_certificates(scene.root()) {
        return skipped("openssl is not installed");
    }
    let key = |port: u16, more: &str| format!("etcd://localhost:{port}/k{more}");
    let own = "?ca_file=ca.crt&cert_file=own.crt&key_file=own.key";
    let ready = |port| {
        let mut command = Command::new(runner_binary());
        command.args(["-q", "lock", &key(port, own), "--", "true"]).current_dir(scene.root());
        succeeds(command.env("STATE_DIRECTORY", scene.path("state")).stdin(Stdio::null()))
    };
    let Some(server) = start_etcd_over_tls(scene.root(), ready) else { return skipped("etcd is not installed") };
    holds(&scene, &key(server.port, own), "PRIVATE KEY");
    let refused = |more: &str, code, says: &str| drop(scene.run(&["lock", &key(server.port, more), "--", "true"]).exits(code).says(says));
    refused("?ca_file=ca.crt", 74, "cannot be reached");
    refused("?tls=yes", 74, "name the certificate to trust with ca_file=FILE");
    refused("?ca_file=nowhere", 78, "nowhere: No such file");
    refused("?ca_file=own.key", 78, "own.key: expected certificates in PEM");
}

#[test]
fn etcd_where_users_log_in() {
    let Some(server) = etcd_that_asks("hunter2") else { return skipped("etcd is not installed") };
    let scene = lock_scene().file("pw", "hunter2\n").file("wrong", "opensesame\n");
    let key = |more: &str| format!("etcd://root@127.0.0.1:{}/k{more}", server.port);
    holds(&scene, &key("?password_file=pw"), "hunter2");
    scene.run(&["lock", &key("?password_file=wrong"), "--", "true"]).exits(74).says("logging in").never_says("opensesame");
    scene.run(&["lock", &key("?password_file=nowhere"), "--", "true"]).exits(78).says("nowhere: No such file");
    scene.run(&["lock", &key("").replace("root@", ""), "--", "true"]).exits(74).says("user name is empty");
}
