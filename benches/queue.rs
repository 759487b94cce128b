//! What the queue costs beside the least it could cost: the same table, the same processes, in bare C, taken one by one
//! (`queue_bare.c`, built with cc and the system's SQLite; `queue_bare_server.c` with libpq). Both take turns in one run.
//!
//! `cargo bench --bench queue`; with `-- --quick` fewer rounds. Rounds are short and many, and the ratio is the middle of
//! theirs: what else the machine does meanwhile falls on both. Beside each figure stands what it is to be. A figure that
//! misses its aim fails nothing.
#![expect(clippy::disallowed_methods, reason = "a benchmark starts programs and reads the clock")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "what cannot be measured is a surprise for whoever measures")]

#[path = "queue/peers.rs"]
mod peers;
#[cfg(feature = "postgres")]
#[path = "queue/server.rs"]
mod server;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peers::{Adder, Peers};
use rusqlite::Connection;

const RUNNER: &str = env!("CARGO_BIN_EXE_runner");

/// A directory on the disk that is measured, with a queue whose one task does nothing.
struct Bench {
    dir: tempfile::TempDir,
    bare: PathBuf,
    bare_enqueue: PathBuf,
    jobs: usize,
    rounds: usize,
}

impl Bench {
    fn new(quick: bool) -> Self {
        // Not /tmp, which may be memory: commits are to be synced.
        let dir = tempfile::tempdir_in(Path::new(RUNNER).parent().unwrap()).unwrap();
        fs::create_dir(dir.path().join("jobs")).unwrap();
        fs::copy("/bin/true", dir.path().join("jobs/true")).unwrap();
        // As a package would install it: what a linker has written page by page here and there starts half as fast from memory.
        fs::copy(RUNNER, dir.path().join("runner")).unwrap();
        let config =
            format!("[runner]\ndatabase = sqlite:{}/runner.db\n[queue:default]\ntask_dir = jobs\noutput = inherit\n", dir.path().display());
        fs::write(dir.path().join("queue.cfg"), config).unwrap();
        let build = |name: &str| {
            let (linked, program) = (dir.path().join("linked"), dir.path().join(name));
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/{name}.c"));
            let built = Command::new("cc").arg("-O2").arg("-o").arg(&linked).arg(source).arg("-lsqlite3").status();
            assert!(built.is_ok_and(|status| status.success()), "cc and libsqlite3-dev are needed");
            fs::copy(&linked, &program).unwrap();
            program
        };
        let (bare, bare_enqueue) = (build("queue_bare"), build("queue_bare_enqueue"));
        fs::rename(build("queue_stamp"), dir.path().join("jobs/stamp")).unwrap();
        Self { dir, bare, bare_enqueue, jobs: 300, rounds: if quick { 3 } else { 9 } }
    }

    fn runner(&self) -> Command {
        let mut runner = Command::new(self.dir.path().join("runner"));
        runner.arg("-q").arg("-c").arg(self.dir.path().join("queue.cfg"));
        runner.env("STATE_DIRECTORY", self.dir.path()).stdout(Stdio::null());
        runner
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("runner.db")
    }

    /// An empty table with so many jobs.
    fn fill(&self, jobs: usize) {
        assert!(self.runner().args(["queue", "prune"]).status().unwrap().success());
        let connection = Connection::open(self.database()).unwrap();
        let fill = format!(
            "DELETE FROM jobs; WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {jobs}) \
             INSERT INTO jobs (task, due) SELECT 'true', 1 FROM n; PRAGMA wal_checkpoint(TRUNCATE)"
        );
        connection.execute_batch(&fill).unwrap();
    }

    /// Jobs drained per second.
    fn drained(&self, jobs: usize, program: &mut Command) -> f64 {
        self.fill(jobs);
        let begun = Instant::now();
        assert!(program.status().unwrap().success());
        jobs as f64 / begun.elapsed().as_secs_f64()
    }

    fn throughput(&self, workers: usize, aim: &str) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut our_work, mut their_work) = (0.0, 0.0);
        for _ in 0..self.rounds {
            let count = workers.to_string();
            let begun = worked();
            theirs.push(self.drained(self.jobs, Command::new(&self.bare).arg(self.database()).arg(&count).arg("/bin/true")));
            let between = worked();
            ours.push(self.drained(self.jobs, self.runner().args(["work", "--drain", "--jobs", &count])));
            their_work += between - begun;
            our_work += worked() - between;
        }
        let ratio = middle(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let (ours, theirs) = (middle(ours), middle(theirs));
        println!(
            "{workers:>2} at once: {ours:6.0} jobs a second, bare {theirs:6.0}, ratio {ratio:.2}; processor time {:.2} of the bare   {aim}",
            our_work / their_work
        );
    }

    #[cfg(feature = "postgres")]
    fn throughput_of(&self, server: &server::Server, workers: usize) {
        let config = self.dir.path().join("server.cfg");
        let text = format!("[runner]\ndatabase = {}\n[queue:default]\ntask_dir = jobs\noutput = inherit\n", server.url());
        fs::write(&config, text).unwrap();
        let runner = |words: &[&str]| {
            let mut runner = Command::new(self.dir.path().join("runner"));
            runner.arg("-q").arg("-c").arg(&config).args(words);
            runner.env("STATE_DIRECTORY", self.dir.path()).stdout(Stdio::null());
            runner
        };
        assert!(runner(&["queue", "prune"]).status().unwrap().success());
        let drained = |program: &mut Command| {
            server.run(&format!(
                "TRUNCATE jobs; INSERT INTO jobs (task, due) SELECT 'true', 1 FROM generate_series(1, {}); ANALYZE jobs; CHECKPOINT",
                self.jobs
            ));
            let begun = Instant::now();
            assert!(program.status().unwrap().success());
            self.jobs as f64 / begun.elapsed().as_secs_f64()
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let count = workers.to_string();
            theirs.push(drained(Command::new(&server.bare).arg(server.url()).arg(&count).arg("/bin/true")));
            ours.push(drained(&mut runner(&["work", "--drain", "--jobs", &count])));
        }
        let ratio = middle(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let (ours, theirs) = (middle(ours), middle(theirs));
        println!(
            "{workers:>2} at once, PostgreSQL: {ours:6.0} jobs a second, bare {theirs:6.0}, ratio {ratio:.2}   aim: 1.0, at least 0.7"
        );
    }

    fn enqueue_many(&self) {
        for with in ["no worker", "a worker"] {
            let mut worker = (with == "a worker").then(|| self.worker("1h"));
            self.fill(0);
            let (mut ours, mut bare) = (self.runner(), Command::new(&self.bare_enqueue));
            ours.args(["enqueue", "--in", "1h", "true"]);
            bare.arg(self.database());
            let peers = Peers::beside(self.dir.path());
            let mut adders: Vec<Adder> = vec![("runner", ours), ("bare", bare), ("/bin/true", Command::new("/bin/true"))];
            adders.extend(peers.adders());
            let mut took = vec![Vec::new(); adders.len()];
            for _ in 0..self.rounds * 25 {
                for ((_, call), took) in adders.iter_mut().zip(&mut took) {
                    let begun = Instant::now();
                    assert!(call.stdout(Stdio::null()).status().unwrap().success());
                    took.push(begun.elapsed().as_secs_f64());
                }
            }
            let rates: Vec<f64> = took.into_iter().map(|took| 1.0 / middle(took)).collect();
            println!("enqueue by command line, {with}: {:5.0} a second", rates[0]);
            for ((name, _), rate) in adders.iter().zip(&rates).skip(1) {
                let aim = if *name == "task-spooler" { "   aim: 0.98, at least 0.56" } else { "" };
                println!("    {name}: {rate:5.0}, ratio {:.2}{aim}", rates[0] / rate);
            }
            worker.iter_mut().for_each(stop);
        }
        self.fill(0);
        let lines = self.dir.path().join("lines");
        let count = self.jobs * 200;
        fs::write(&lines, "{\"task\":\"true\",\"args\":[\"one\",\"two\"],\"in\":\"1h\"}\n".repeat(count)).unwrap();
        let begun = Instant::now();
        assert!(self.runner().args(["enqueue", "--stdin"]).stdin(File::open(&lines).unwrap()).status().unwrap().success());
        println!("enqueue in bulk, {count} jobs: {:6.0} a second   aim: 50000", count as f64 / begun.elapsed().as_secs_f64());
    }

    fn worker(&self, sleep: &str) -> Child {
        self.fill(0);
        self.runner().args(["work", "--jobs", "4", "--sleep", sleep]).spawn().unwrap()
    }

    /// From the call of `enqueue` to the start of the job, which writes down when that was: ours and the bare program's, each
    /// with a file and a worker of its own.
    fn latency(&self) {
        let (stamp, task) = (self.dir.path().join("stamp"), self.dir.path().join("jobs/stamp"));
        // The address of a socket is short.
        let sockets = tempfile::tempdir().unwrap();
        let (bell, beside) = (sockets.path().join("s"), self.dir.path().join("bare.db"));
        let database = format!("runner.database=sqlite:{}", beside.display());
        assert!(self.runner().args(["-s", &database, "queue", "prune"]).status().unwrap().success());
        let mut bare = Command::new(&self.bare).args([&beside, &bell, &task, &stamp]).spawn().unwrap();
        let mut worker = self.worker("1h");
        std::thread::sleep(Duration::from_millis(500));
        let wait = |call: &mut Command| {
            let _ = fs::remove_file(&stamp);
            let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let begun = now();
            assert!(call.stdout(Stdio::null()).status().unwrap().success());
            let returned = now();
            let begun_at: f64 = loop {
                if let Ok(text) = fs::read_to_string(&stamp) {
                    break text.trim().parse().unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            ((begun_at - begun) * 1000.0, (begun_at - returned) * 1000.0)
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds * 10 {
            ours.push(wait(self.runner().args(["enqueue", "stamp"]).arg(&stamp)));
            theirs.push(wait(Command::new(&self.bare_enqueue).args([&beside, &bell])));
        }
        stop(&mut worker);
        stop(&mut bare);
        let halves = |waits: Vec<(f64, f64)>| {
            let (all, after): (Vec<f64>, Vec<f64>) = waits.into_iter().unzip();
            (middle(all), middle(after))
        };
        let ((ours, after), (theirs, after_theirs)) = (halves(ours), halves(theirs));
        println!(
            "from the call of enqueue to the job's first line, p50 {ours:.1} ms, {after:.1} after enqueue has returned; \
             bare {theirs:.1} and {after_theirs:.1}; ratio {:.2}   aim: 5 ms where bare takes 4.5, or 1.11",
            ours / theirs
        );
    }

    /// A claim among very many jobs that wait.
    fn crowded(&self, waiting: usize) {
        self.fill(0);
        let mut connection = Connection::open(self.database()).unwrap();
        let transaction = connection.transaction().unwrap();
        let fill = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {waiting}) \
             INSERT INTO jobs (task, due, priority) SELECT 'true', 32503680000000 + n, n % 10 FROM n; \
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {}) INSERT INTO jobs (task, due) SELECT 'true', 1 FROM n",
            self.jobs
        );
        transaction.execute_batch(&fill).unwrap();
        transaction.commit().unwrap();
        drop(connection);
        let begun = Instant::now();
        assert!(self.runner().args(["work", "--drain", "--jobs", "16"]).status().unwrap().success());
        let rate = self.jobs as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        assert!(self.runner().args(["queue", "stats"]).status().unwrap().success());
        let counted = begun.elapsed().as_secs_f64() * 1000.0;
        println!(
            "16 at once, beside {waiting} jobs of ten priorities that wait: {rate:6.0} jobs a second; counted by `queue stats` in {counted:.0} ms"
        );
    }
}

impl Bench {
    /// `runner history` of few and of very many runs.
    fn history(&self, many: usize) {
        for runs in [1000, many] {
            let fill = format!(
                "DELETE FROM runs; WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {runs}) \
                 INSERT INTO runs (run_id, chain, run_trigger, host, boot_id, pid, start_time, began, ended, outcome, failed) \
                 SELECT 'r' || n, 'c' || (n % 10), 'now', 'h', 'b', 1, 1, n, n, 'done', n % 3 = 0 FROM n"
            );
            Connection::open(self.database()).unwrap().execute_batch(&fill).unwrap();
            let once = |words: &[&str]| {
                let begun = Instant::now();
                assert!(self.runner().args(words).status().unwrap().success());
                begun.elapsed().as_secs_f64() * 1000.0
            };
            let [all, failed] =
                [&["history"][..], &["history", "c3", "--failed"]].map(|words| middle((0..21).map(|_| once(words)).collect()));
            println!("history of {runs} runs: {all:.1} ms, of one chain's failures {failed:.1} ms");
        }
    }
}

/// The processor time of our children that have ended, in ticks (proc(5), stat, fields 16 and 17). On a machine that does other
/// things as well, sixteen processes get a greater share than one: this does not depend on that.
fn worked() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().skip(13).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum()
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn stop(child: &mut Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    child.wait().unwrap();
}

fn main() -> ExitCode {
    // Cargo says --bench when it is asked to measure, and nothing when it runs all targets as tests.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        println!("measures only under cargo bench");
        return ExitCode::SUCCESS;
    }
    let bench = Bench::new(words.iter().any(|word| word == "--quick"));
    println!("{} jobs, the middle of {} rounds, SQLite on {}", bench.jobs, bench.rounds, bench.dir.path().display());
    bench.throughput(1, "aim: 1.2, at least 0.75");
    bench.throughput(16, "aim: 1.5, at least 0.75");
    #[cfg(feature = "postgres")]
    match server::Server::start() {
        Some(server) => {
            bench.throughput_of(&server, 1);
            bench.throughput_of(&server, 16);
        }
        None => println!("PostgreSQL: not measured, needs PostgreSQL 15 and libpq-dev"),
    }
    bench.latency();
    bench.enqueue_many();
    let many = if bench.rounds > 3 { 1_000_000 } else { 100_000 };
    bench.crowded(1);
    bench.crowded(many);
    bench.history(many);
    ExitCode::SUCCESS
}
