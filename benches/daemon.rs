//! What the daemon costs with 10,000 schedules, and how late it starts what is due, beside a loop that does nothing but wait
//! for the second and start the same program.
//!
//! `cargo bench --bench daemon`, five minutes. They take turns: what else the machine does meets all of them, so that the ratios
//! say more than the figures. Beside each figure stands what it is to be; a figure that misses its aim fails
//! nothing. With a Python that has APScheduler (`PYTHON=...`, default `python3`) the same is measured with it.
//!
//! `cargo bench --bench daemon -- --cron`, five minutes: beside Debian's cron and busybox' crond, which know whole minutes only.
//! As root, and where they are installed. All three have the same minutes, since they would take turns for a quarter of an hour;
//! they start in different seconds of them.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, starts programs and waits")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what cannot be measured is a surprise for whoever measures")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SCHEDULES: usize = 10_000;
const IDLE: Duration = Duration::from_secs(30);
/// How many slots each of them has in one turn.
const ROUNDS: u64 = 5;
const TURNS: usize = 6;

fn wall_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// As a task: writes down when it began. The slot is the whole second before, as every slot here is.
fn stamp(file: &std::ffi::OsStr) {
    let now = wall_nanos();
    let mut log = OpenOptions::new().append(true).create(true).open(file).unwrap();
    log.write_all(format!("{now}\n").as_bytes()).unwrap();
}

/// A directory with this binary as the task of some chains.
fn scene(chains: usize, schedule: &str, task: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = String::from("[runner]\noutput = inherit\n");
    if task {
        fs::create_dir(dir.path().join("tasks")).unwrap();
        let own = dir.path().join("tasks/1-stamp");
        fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
        fs::set_permissions(own, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for chain in 0..chains {
        config.push_str(&format!("[chain:c{chain}]\ntask_dir = tasks\nschedule = {schedule}\ntimezone = UTC\n"));
    }
    fs::write(dir.path().join("runner.cfg"), config).unwrap();
    dir
}

fn daemon(dir: &Path) -> Child {
    // As a package would install it: what a linker has just written lies in smaller pieces in memory.
    let program = dir.join("runner");
    fs::copy(env!("CARGO_BIN_EXE_runner"), &program).unwrap();
    let mut command = Command::new(program);
    command.args(["-q", "-c"]).arg(dir.join("runner.cfg")).arg("daemon");
    command.env("STATE_DIRECTORY", dir.join("state")).env("STAMPS", dir.join("stamps")).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn end(mut child: Child) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
    child.wait().unwrap();
}

/// CPU time in clock ticks, and how often it was woken.
fn usage(pid: u32) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let mut wakes = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        wakes += line.trim().parse::<u64>().unwrap();
    }
    (ticks, wakes)
}

fn idle() {
    let dir = scene(SCHEDULES, "0 0 29 2 *", false);
    let begun = Instant::now();
    let child = daemon(dir.path());
    // It is ready when it rests: half a second without a tick of its clock.
    let mut last = usage(child.id());
    loop {
        sleep(Duration::from_millis(500));
        let now = usage(child.id());
        if now == last && now.0 > 0 {
            break;
        }
        last = now;
    }
    println!("{SCHEDULES} schedules: at rest after {:.1} s, {} ms of CPU", begun.elapsed().as_secs_f64() - 0.5, last.0 * 10);
    sleep(IDLE);
    let now = usage(child.id());
    let (ticks, wakes) = (now.0 - last.0, now.1 - last.1);
    println!("{SCHEDULES} schedules at rest for {} s: {ticks} ticks of CPU, woken {wakes} times   (aim: 0 and 0)", IDLE.as_secs());
    end(child);
}

/// Milliseconds after its second for each stamp, by second.
fn delays(file: &Path, every: u64) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut by_slot: std::collections::BTreeMap<u64, Vec<f64>> = std::collections::BTreeMap::new();
    for line in text.lines() {
        let nanos: u64 = line.parse().unwrap();
        let slot = nanos / 1_000_000_000 / every * every;
        by_slot.entry(slot).or_default().push((nanos - slot * 1_000_000_000) as f64 / 1e6);
    }
    // The first came while everything was made ready.
    by_slot.into_values().skip(1).collect()
}

struct Late {
    p50: f64,
    p99: f64,
    last: f64,
}

fn late(what: &str, rounds: &[Vec<f64>]) -> Late {
    let mut all: Vec<f64> = rounds.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let mut lasts: Vec<f64> = rounds.iter().map(|round| round.iter().copied().fold(0.0, f64::max)).collect();
    lasts.sort_by(f64::total_cmp);
    let at = |part: f64| all.get((all.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    let late = Late { p50: at(0.5), p99: at(0.99), last: lasts.get(lasts.len() / 2).copied().unwrap_or(f64::NAN) };
    println!("{what:<44} p50 {:7.2} ms  p99 {:7.2} ms  last of a slot {:7.2} ms  ({} starts)", late.p50, late.p99, late.last, all.len());
    late
}

fn by_daemon(chains: usize, every: u64) -> Vec<Vec<f64>> {
    let dir = scene(chains, &format!("every {every}s"), true);
    let child = daemon(dir.path());
    sleep(Duration::from_secs(every * (ROUNDS + 2)));
    end(child);
    delays(&dir.path().join("stamps"), every)
}

/// The limit: waits for the second, starts the same program.
fn by_loop(jobs: usize, every: u64) -> Vec<Vec<f64>> {
    let dir = scene(0, "", true);
    let stamps = dir.path().join("stamps");
    for _ in 0..=ROUNDS {
        let period = u128::from(every) * 1_000_000_000;
        let wait = period - wall_nanos() % period;
        sleep(Duration::from_nanos(wait as u64));
        let start = || Command::new(dir.path().join("tasks/1-stamp")).env("STAMPS", &stamps).spawn().unwrap();
        let children: Vec<Child> = (0..jobs).map(|_| start()).collect();
        children.into_iter().for_each(|mut child| drop(child.wait()));
    }
    delays(&stamps, every)
}

const APSCHEDULER: &str = r#"
import os, subprocess, sys, time
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.executors.pool import ThreadPoolExecutor
program, jobs, every, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
scheduler = BlockingScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(max(10, jobs))})
for job in range(jobs):
    scheduler.add_job(lambda: subprocess.run([program]), "cron", second="*/%d" % every)
scheduler.add_job(lambda: os._exit(0), "interval", seconds=every * (rounds + 2))
scheduler.start()
"#;

fn by_apscheduler(jobs: usize, every: u64) -> Option<Vec<Vec<f64>>> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import apscheduler"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        return None;
    }
    let dir = scene(0, "", true);
    let mut command = Command::new(python);
    command.args(["-c", APSCHEDULER]).arg(dir.path().join("tasks/1-stamp"));
    command.args([jobs.to_string(), every.to_string(), ROUNDS.to_string()]).env("STAMPS", dir.path().join("stamps"));
    command.stderr(Stdio::null()).status().unwrap();
    Some(delays(&dir.path().join("stamps"), every))
}

fn compare(what: &str, jobs: usize, every: u64, aim: &str) {
    let (mut ours, mut bare, mut theirs) = (Vec::new(), Vec::new(), Some(Vec::new()));
    for _ in 0..TURNS {
        ours.extend(by_daemon(jobs, every));
        bare.extend(by_loop(jobs, every));
        theirs = theirs.zip(by_apscheduler(jobs, every)).map(|(all, new)| [all, new].concat());
    }
    let ours = late(&format!("{what}: runner daemon"), &ours);
    let ratio = |name: &str, other: &Late| {
        println!(
            "  runner / {name}: p50 {:.1} x, p99 {:.1} x, last of a slot {:.1} x   {aim}",
            ours.p50 / other.p50,
            ours.p99 / other.p99,
            ours.last / other.last
        );
    };
    ratio("bare loop", &late(&format!("{what}: a bare loop"), &bare));
    match theirs {
        Some(rounds) => ratio("APScheduler", &late(&format!("{what}: APScheduler"), &rounds)),
        None => println!("  APScheduler is not installed"),
    }
}

/// Minutes for those who know no seconds; the first is not counted.
const MINUTES: u64 = 4;

/// Five lines for a crontab, each of which starts the task of the scene.
fn crontab(dir: &Path, head: &str) -> String {
    let line = format!("* * * * * STAMPS={} exec {}\n", dir.join("stamps").display(), dir.join("tasks/1-stamp").display());
    format!("{head}{}", line.repeat(5))
}

/// busybox' crond reads the crontabs of a directory it is given.
fn busybox(dir: &Path) -> Result<Child, String> {
    let has = Command::new("busybox").args(["crond", "--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        return Err("there is no busybox with a crond".to_owned());
    }
    fs::create_dir(dir.join("crontabs")).unwrap();
    fs::write(dir.join("crontabs/root"), crontab(dir, "")).unwrap();
    let mut command = Command::new("busybox");
    command.args(["crond", "-f", "-L", "/dev/null", "-c"]).arg(dir.join("crontabs")).stderr(Stdio::null());
    command.spawn().map_err(|error| error.to_string())
}

/// Debian's cron has its directories built in: it gets a mount namespace, in which ours stand in their place.
fn debian_cron(dir: &Path) -> Result<Child, String> {
    if !Path::new("/usr/sbin/cron").exists() {
        return Err("/usr/sbin/cron is not installed".to_owned());
    }
    for name in ["crontabs", "cron.d", "run"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("crontab"), "").unwrap();
    fs::write(dir.join("crontabs/root"), crontab(dir, "MAILTO=\"\"\n")).unwrap();
    fs::set_permissions(dir.join("crontabs/root"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = "cd \"$0\" && mount --bind crontabs /var/spool/cron/crontabs && mount --bind cron.d /etc/cron.d \
                  && mount --bind crontab /etc/crontab && mount --bind run /run && exec /usr/sbin/cron -f";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| error.to_string())
}

/// Five jobs each minute, beside the crons that are installed.
fn beside_cron() {
    let root = rustix::process::geteuid().is_root();
    let ours = scene(5, "* * * * *", true);
    let child = daemon(ours.path());
    let others = [("Debian's cron", debian_cron as fn(&Path) -> Result<Child, String>), ("busybox crond", busybox)];
    let started = others.map(|(name, start)| {
        let dir = scene(0, "", true);
        let child = if root { start(dir.path()) } else { Err("only root can start it".to_owned()) };
        (name, dir, child)
    });
    sleep(Duration::from_secs(60 * (MINUTES + 1)) - Duration::from_nanos((wall_nanos() % 60_000_000_000) as u64) + Duration::from_secs(5));
    end(child);
    late("5 jobs every minute: runner daemon", &delays(&ours.path().join("stamps"), 60));
    for (name, dir, child) in started {
        match child {
            Ok(child) => {
                end(child);
                late(&format!("5 jobs every minute: {name}"), &delays(&dir.path().join("stamps"), 60));
            }
            Err(why) => println!("  {name} is left out: {why}"),
        }
    }
}

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os("STAMPS") {
        stamp(&file);
        return ExitCode::SUCCESS;
    }
    // Cargo says --bench when it is asked to measure, and nothing when it runs all targets as tests.
    if !std::env::args().any(|word| word == "--bench") {
        println!("measures only under cargo bench");
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|word| word == "--cron") {
        beside_cron();
        return ExitCode::SUCCESS;
    }
    compare("5 chains every second", 5, 1, "(aim: p99 10 ms)");
    compare("50 jobs due at once", 50, 2, "(aim: the last within 10 ms)");
    idle();
    ExitCode::SUCCESS
}
