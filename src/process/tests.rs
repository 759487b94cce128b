//! Supervision against real processes, with both ways to hear of their end.

use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;

use rstest::rstest;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::environment::{Block, OwnVariables};
use crate::names::{RunId, TaskName};

/// A test gives up after this; nothing waits for it in order to go on.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel counts the children of a process, not of a thread: tests that look at them take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct Stage {
    family: Family,
    clock: SystemClock,
    _turn: std::sync::MutexGuard<'static, ()>,
}

/// A started shell and the lines it writes.
struct Actor {
    process: Supervised,
    lines: std::io::Lines<BufReader<File>>,
}

impl Stage {
    fn new(method: WaitMethod) -> Self {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self { family: Family::new(method), clock: SystemClock::new(), _turn: turn }
    }

    fn shell(&self, script: &str, kill_after: u64, sweep: Sweep) -> Actor {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let argv: Vec<CString> = ["/bin/sh", "-c", script].iter().map(|word| CString::new(*word).unwrap()).collect();
        let mark = Mark { run: RunId::new("", 0, 1), task: TaskName::parse("t"), try_num: 1 };
        let run = format!("RUNNER_RUN_ID={}", mark.run.as_str());
        let variables = ["PATH=/usr/bin:/bin", run.as_str(), "RUNNER_TASK=t", "RUNNER_TRY=1"];
        let env: Block = variables.into_iter().map(|variable| CString::new(variable).unwrap()).collect();
        let spec = Spec {
            argv: &argv,
            env: &[&env],
            own_env: &OwnVariables::default(),
            stdin: None,
            stdout: Some(write.as_fd()),
            stderr: None,
            working_dir: None,
            identity: None,
            umask: None,
            nice: None,
            reads: None,
        };
        let process = Supervised::start(&spec, &self.family, Some(mark), Duration::from_millis(kill_after), sweep).unwrap();
        Actor { process, lines: BufReader::new(File::from(read)).lines() }
    }

    /// Goes on until all is over.
    fn finish(&self, actor: &mut Actor) -> Gone {
        let begun = self.clock.now();
        loop {
            let now = self.clock.now();
            assert!(now.since(begun) < PATIENCE, "it never ends: {:?}", actor.process);
            if let Some(gone) = actor.process.advance(&self.family, now, |end| end != ProcessEnd::Code(0)) {
                return gone;
            }
            let until = actor.process.wake_at().unwrap_or(now + PATIENCE);
            let mut fds: Vec<_> = actor.process.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let _ = rustix::event::poll(&mut fds, Some(&until.since(now).try_into().unwrap()));
        }
    }
}

impl Actor {
    /// The next line it writes: a fact to wait for.
    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn pid_line(&mut self) -> Pid {
        Pid::from_raw(self.line().trim().parse().unwrap()).unwrap()
    }
}

/// Ends an adopted process, and waits until it is gone: the next test would not be alone otherwise.
fn bury(pid: Pid) {
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), rustix::process::WaitIdOptions::EXITED).unwrap();
}

fn lives(pid: Pid) -> bool {
    tree::Stat::of(pid).is_some_and(tree::Stat::alive)
}

#[rstest]
#[case("exit 7", ProcessEnd::Code(7))]
#[case("exit 0", ProcessEnd::Code(0))]
#[case("kill -9 $$", ProcessEnd::Signal(9))]
#[case("kill -40 $$", ProcessEnd::Signal(40))]
fn an_end_is_told_as_it_was(
    #[values(WaitMethod::Pidfd, WaitMethod::Thread)] method: WaitMethod,
    #[case] script: &str,
    #[case] end: ProcessEnd,
) {
    let stage = Stage::new(method);
    let mut actor = stage.shell(script, 1000, Sweep::OnFailure);
    let gone = stage.finish(&mut actor);
    assert_eq!(gone, Gone { end: Some(end), cause: None, left_behind: Vec::new(), unkillable: false });
}

#[rstest]
fn a_time_out_is_term_then_kill(#[values(WaitMethod::Pidfd, WaitMethod::Thread)] method: WaitMethod) {
    let stage = Stage::new(method);
    let mut polite = stage.shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done", 60_000, Sweep::OnFailure);
    assert_eq!(polite.line(), "ready");
    polite.process.limit(LimitKind::MaxTime, &stage.family, stage.clock.now());
    let gone = stage.finish(&mut polite);
    assert_eq!((gone.end, gone.cause), (Some(ProcessEnd::Code(0)), Some(Cause::Limit(LimitKind::MaxTime))));

    let mut stubborn = stage.shell("trap '' TERM; echo ready; exec sleep 1000", 50, Sweep::OnFailure);
    assert_eq!(stubborn.line(), "ready");
    stubborn.process.stop(&stage.family, stage.clock.now());
    let gone = stage.finish(&mut stubborn);
    assert_eq!((gone.end, gone.cause), (Some(ProcessEnd::Signal(9)), Some(Cause::Stopped)));
}

#[rstest]
#[case("setsid sleep 1000 & echo $!; wait")]
#[case("setsid sh -c 'sleep 1000 & echo $!' & wait; exec sleep 1000")]
#[case("env -i /usr/bin/setsid /bin/sh -c '/bin/sleep 1000 & echo $!' & wait; exec sleep 1000")]
fn whoever_escaped_is_ended_with_its_task(#[values(WaitMethod::Pidfd, WaitMethod::Thread)] method: WaitMethod, #[case] script: &str) {
    let stage = Stage::new(method);
    let mut actor = stage.shell(script, 2000, Sweep::OnFailure);
    let escaped = actor.pid_line();
    assert!(lives(escaped));
    actor.process.limit(LimitKind::MaxTime, &stage.family, stage.clock.now());
    let gone = stage.finish(&mut actor);
    assert!(!lives(escaped), "{gone:?}");
    assert_eq!((gone.left_behind, gone.unkillable), (Vec::new(), false));
}

#[rstest]
#[case(Sweep::Never, 1, 1)]
#[case(Sweep::OnFailure, 1, 0)]
#[case(Sweep::OnFailure, 0, 1)]
#[case(Sweep::Always, 0, 0)]
fn the_sweep_does_what_it_is_set_to(#[case] sweep: Sweep, #[case] code: u8, #[case] left: usize) {
    let stage = Stage::new(WaitMethod::Pidfd);
    let mut actor = stage.shell(&format!("setsid sleep 1000 & echo $!; exit {code}"), 2000, sweep);
    let pid = actor.pid_line();
    let gone = stage.finish(&mut actor);
    assert_eq!((gone.left_behind.len(), lives(pid)), (left, left == 1));
    if left == 1 {
        bury(pid);
    }
}

#[test]
fn a_stopped_process_hears_term_all_the_same() {
    let stage = Stage::new(WaitMethod::Pidfd);
    let mut actor = stage.shell("echo ready; kill -STOP $$; exec sleep 1000", 60_000, Sweep::OnFailure);
    actor.line();
    actor.process.stop(&stage.family, stage.clock.now());
    assert_eq!(stage.finish(&mut actor).end, Some(ProcessEnd::Signal(15)));
}

#[test]
fn whoever_forks_while_being_swept_is_found_in_the_end() {
    let stage = Stage::new(WaitMethod::Pidfd);
    let script = "trap '' TERM; (for i in 1 2 3 4 5 6 7 8; do setsid sh -c \"trap '' TERM; sleep 0.01; setsid sleep 1000 & setsid sleep 1000\" & done; echo ready; wait)";
    let mut actor = stage.shell(script, 20, Sweep::OnFailure);
    actor.line();
    actor.process.limit(LimitKind::MaxTime, &stage.family, stage.clock.now());
    let gone = stage.finish(&mut actor);
    assert_eq!((gone.left_behind, gone.unkillable), (Vec::new(), false));
}

#[test]
fn what_does_not_start_says_what_to_do() {
    // The sweep of another test, alone as it believes, would take the child for its own.
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let add = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let start = |path: &Path| {
        let argv = [CString::new(path.as_os_str().as_bytes()).unwrap()];
        let spec = Spec {
            argv: &argv,
            env: &[],
            own_env: &OwnVariables::default(),
            stdin: None,
            stdout: None,
            stderr: None,
            working_dir: None,
            identity: None,
            umask: None,
            nice: None,
            reads: None,
        };
        let error = Process::spawn(&spec, WaitMethod::Pidfd).expect_err(&path.display().to_string());
        explain_start(path, None, &error)
    };
    assert!(start(&dir.path().join("gone")).ends_with("gone is not there"));
    assert!(start(&add("plain", "text", 0o755)).contains("begin it with a line such as #!/bin/sh"));
    assert!(start(&add("cr", "#!/bin/sh\r\nexit 0\n", 0o755)).contains("`/bin/sh\\r`"));
    assert!(start(&add("locked", "#!/bin/sh\n", 0o644)).contains("chmod +x"));
}

/// At the end of a run beside others one file tells whether anybody has to be looked for.
fn has_only(expected: &[Pid]) -> bool {
    tree::has_only(|pid| expected.contains(&pid))
}

#[test]
fn whoever_is_adopted_stands_in_the_file_of_the_first_thread_and_no_leader_of_another_does() {
    let stage = Stage::new(WaitMethod::Pidfd);
    if !Path::new("/proc/thread-self/children").exists() {
        return assert!(!has_only(&[]), "the kernel does not tell (CONFIG_PROC_CHILDREN)");
    }
    // Tests do not run in the first thread.
    let mut leader = stage.shell("echo ready; exec sleep 1000", 1000, Sweep::Never);
    assert_eq!(leader.line(), "ready");
    assert!(has_only(&[]), "a leader is known without");
    let mut parent = stage.shell("/usr/bin/setsid sleep 1000 & echo $!", 1000, Sweep::Never);
    let orphan = parent.pid_line();
    let gone = stage.finish(&mut parent);
    assert_eq!(gone.left_behind, [orphan], "it was looked for");
    assert!(!has_only(&[]) && !has_only(&stage.family.leaders.borrow()) && has_only(&[orphan]));
    bury(orphan);
    assert!(has_only(&[]));
    leader.process.stop(&stage.family, stage.clock.now());
    stage.finish(&mut leader);
}
