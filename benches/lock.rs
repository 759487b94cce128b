//! What a lock costs, and how long nobody is inside after its holder was killed, beside flock(1) and `etcdctl lock`.
//!
//! `cargo bench --bench lock`, a few minutes; with `-- --quick` fewer rounds, with `-- free here elsewhere` only these
//! parts. Where others use the machine, `nice -n -20` measures the lock rather than them. Beside each figure stands what it is to be; a figure
//! that misses its aim fails nothing. To be another machine, a holder is given another host name, which needs root.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, starts programs and waits")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot be measured is a surprise for whoever measures"
)]

#[path = "../tests/integration/consul_double.rs"]
#[allow(dead_code, reason = "the tests ask more of it")]
mod consul_double;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod measure;
#[path = "lock/stores.rs"]
mod stores;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use measure::Sample;
use measure::stage::find;
use measure::table::{Aim, Table};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

const RUNNER: &str = env!("CARGO_BIN_EXE_runner");

/// In seconds: the time after which a lease is over, and what is added for others.
const TTL: u64 = 6;
const TTL_OF_CONSUL: u64 = 10;

/// One lock that is measured.
struct Lock {
    name: &'static str,
    key: String,
    ttl: u64,
}

impl Lock {
    /// `runner lock` around a command, with this much delay.
    fn command(&self, delay: &str, words: &[&str]) -> Command {
        let mut command = Command::new(RUNNER);
        command.args(["lock", "--wait", "infinity", "--kill-after", "0", "--ttl", &self.ttl.to_string(), "--delay", delay]);
        command.arg(&self.key).arg("--").args(words);
        command
    }

    fn is_leased(&self) -> bool {
        self.name != "file"
    }
}

fn now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(time).unwrap().as_secs_f64()
}

/// As the command under a lock: says when it began, and stays until it is ended.
fn inside() -> ! {
    println!("{}", now());
    let stdout = std::io::stdout();
    // An error on the pipe: whoever measures has gone.
    let mut gone = [PollFd::new(&stdout, PollFlags::empty())];
    let _ = poll(&mut gone, None);
    std::process::exit(0);
}

/// One that is inside, or waits to be.
struct Contender {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Contender {
    fn start(mut command: Command) -> Self {
        command.env("LOCK_BENCH_INSIDE", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, stdout: BufReader::new(stdout), stderr: BufReader::new(stderr) }
    }

    /// Waits until it is inside; when it was.
    fn entered(&mut self) -> f64 {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().parse().unwrap_or_else(|_| {
            let said: Vec<String> = self.stderr.by_ref().lines().map_while(Result::ok).collect();
            panic!("it is not inside: {said:?}")
        })
    }

    /// Waits until it waits.
    fn waits(&mut self) {
        let mut line = String::new();
        while !line.contains("is held by") {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "it does not wait");
        }
    }

    fn kill(&mut self) -> f64 {
        let at = now();
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        at
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // TERM, so that what it runs is ended with it.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The part of a sorted sample below which lies so much of it.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (part * values.len() as f64).ceil() as usize;
    values[at.clamp(1, values.len()) - 1]
}

/// From KILL to the next inside, in milliseconds.
fn take_overs(rounds: usize, first: impl Fn() -> Command, next: impl Fn() -> Command, settled: impl Fn(&mut Contender)) -> Vec<f64> {
    let mut times = Vec::new();
    let mut holder = Contender::start(first());
    holder.entered();
    for _ in 0..rounds {
        let mut waiting = Contender::start(next());
        settled(&mut waiting);
        let at = holder.kill();
        let entered = waiting.entered();
        times.push((entered - at) * 1000.0);
        holder = waiting;
    }
    times
}

fn here(locks: &[Lock], rounds: usize, own: &str) {
    const AIM: f64 = 100.0;
    let mut table = Table::new(
        format!("take-over after kill -9 on the same machine, {rounds} rounds, milliseconds"),
        &["lock", "least", "p50", "p99", "to be"],
    );
    for lock in locks {
        let mut times = take_overs(rounds, || lock.command("1", &[own]), || lock.command("1", &[own]), Contender::waits);
        let [least, middle, most] = [0.0, 0.5, 0.99].map(|part| quantile(&mut times, part));
        let cells = [lock.name.to_owned(), format!("{least:.1}"), format!("{middle:.1}"), format!("{most:.1}")];
        table.row(cells.into_iter().chain([Aim::at_most(AIM).judge(most, " ms")]));
    }
    if let Some(flock) = find("flock") {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Without -o the command holds the lock itself, and nobody comes as long as it lives.
        let command = || {
            let mut command = Command::new(&flock);
            command.arg("-o").arg(file.path()).arg(own);
            command
        };
        // It says nothing when it waits: the kernel knows when it does.
        let sleeps = |waiting: &mut Contender| {
            let (arrow, pid) = ("-> FLOCK", format!(" {} ", waiting.child.id()));
            while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| line.contains(arrow) && line.contains(&pid)) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let mut times = take_overs(rounds, command, command, sleeps);
        let [least, middle, most] = [0.0, 0.5, 0.99].map(|part| format!("{:.1}", quantile(&mut times, part)));
        table.row(["flock -o, whose first command goes on".to_owned(), least, middle, most]);
    }
    table.print();
}

/// The same program under another host name: nobody there can look for processes of ours.
fn named(mut name: Command, command: &Command) -> Command {
    name.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", "elsewhere"]).arg(command.get_program()).args(command.get_args());
    name
}

fn elsewhere(locks: &[Lock], rounds: usize, own: &str) {
    if !rustix::process::geteuid().is_root() {
        return println!("take-over elsewhere: needs root, for another host name");
    }
    let mut table = Table::new(
        format!("take-over after kill -9 elsewhere, {rounds} rounds, in parts of TTL + lock_delay"),
        &["lock", "TTL + delay", "p50", "greatest", "to be"],
    );
    for (lock, delay) in locks.iter().filter(|lock| lock.is_leased()).flat_map(|lock| [(lock, 0), (lock, 2)]) {
        let text = delay.to_string();
        let mut times: Vec<f64> = (0..rounds)
            .flat_map(|_| {
                let away = || named(Command::new("unshare"), &lock.command(&text, &[own]));
                take_overs(1, away, || lock.command(&text, &[own]), Contender::waits)
            })
            .map(|time| time / 1000.0 / (lock.ttl + delay) as f64)
            .collect();
        let [middle, greatest] = [0.5, 1.0].map(|part| quantile(&mut times, part));
        let cells = [lock.name.to_owned(), format!("{} s + {delay} s", lock.ttl), format!("{middle:.2}"), format!("{greatest:.2}")];
        table.row(cells.into_iter().chain([Aim::at_most(1.0).judge(greatest, "")]));
    }
    table.print();
}

fn seconds(command: &mut Command) -> f64 {
    let begun = now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
    now() - begun
}

fn uncontended(locks: &[Lock], rounds: usize, etcd: Option<&stores::Server>) {
    let mut table = Table::new(
        format!("taking a free lock, `true`, giving it back, {rounds} rounds in turns, milliseconds: median (least-most)"),
        &["", "time", "of flock FILE true", "of etcdctl lock"],
    );
    let (Some(flock), file) = (find("flock"), tempfile::NamedTempFile::new().unwrap()) else {
        return println!("there is no flock(1) to compare with");
    };
    let etcdctl = etcd.and_then(|server| {
        let mut command = Command::new(find("etcdctl")?);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("127.0.0.1:{}", server.port), "lock", "bench", "true"]);
        Some(command)
    });
    let (mut flocks, mut theirs) = (Sample::default(), Sample::default());
    let mut rows = Vec::new();
    for lock in locks {
        let mut of = [Sample::default(), Sample::default(), Sample::default()];
        let (mut ours, mut etcdctl) = (lock.command("1", &["true"]), etcdctl.as_ref().map(copy));
        for _ in 0..rounds {
            let reference = seconds(Command::new(&flock).arg(file.path()).arg("true"));
            let time = seconds(&mut ours);
            of[0].add(time * 1000.0);
            of[1].add(time / reference);
            flocks.add(reference * 1000.0);
            if let Some(other) = etcdctl.as_mut().filter(|_| lock.name == "etcd") {
                let other = seconds(other);
                of[2].add(time / other);
                theirs.add(other * 1000.0);
            }
        }
        rows.push((lock.name, of));
    }
    table.row(["flock FILE true".to_owned(), flocks.to_string()]);
    if theirs.len() > 0 {
        table.row(["etcdctl lock NAME true".to_owned(), theirs.to_string()]);
    }
    for (name, [time, of_flock, of_etcdctl]) in rows {
        table.row([format!("runner lock, {name}"), time.to_string(), of_flock.to_string(), of_etcdctl.to_string()]);
    }
    table.print();
}

fn copy(command: &Command) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args()).env("ETCDCTL_API", "3");
    other
}

fn main() -> ExitCode {
    if std::env::var_os("LOCK_BENCH_INSIDE").is_some() {
        inside();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|known| known == word);
    if !has("--bench") {
        println!("measures only under cargo bench");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (postgres, etcd, consul) = (stores::postgres(), stores::etcd(), consul_double::Consul::start());
    let lock = |name, key, ttl| Lock { name, key, ttl };
    let mut locks = vec![lock("file", format!("file:{}/k", dir.path().display()), TTL)];
    locks.extend(
        postgres.as_ref().map(|server| lock("PostgreSQL", format!("postgresql://me@127.0.0.1:{}/postgres?key=bench", server.port), TTL)),
    );
    locks.extend(etcd.as_ref().map(|server| lock("etcd", format!("etcd://127.0.0.1:{}/bench-k", server.port), TTL)));
    locks.push(lock("Consul (a double)", format!("consul://127.0.0.1:{}/bench", consul.port), TTL_OF_CONSUL));
    let (many, few) = if has("--quick") { (10, 1) } else { (50, 5) };
    let wanted = |part: &str| has(part) || !words.iter().any(|word| !word.starts_with('-'));
    if wanted("free") {
        uncontended(&locks, many, etcd.as_ref());
    }
    if wanted("here") {
        here(&locks, many, own);
    }
    if wanted("elsewhere") {
        elsewhere(&locks, few, own);
    }
    ExitCode::SUCCESS
}
