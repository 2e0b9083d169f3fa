use std::{
    ffi::CString,
    fs,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
};

use super::*;

const PULSE: Duration = Duration::from_millis(20);
/// Longer than a busy machine keeps a thread waiting that has something to do.
const SECONDS: Duration = Duration::from_secs(3);

/// Holds every decision until the test says what it is.
struct Scripted {
    asked: Mutex<Sender<Pid>>,
    replies: Mutex<Receiver<bool>>,
    late: AtomicU64,
    /// In time, and late.
    answers: [AtomicU64; 2],
    beats: AtomicU64,
    troubles: Mutex<Vec<String>>,
}

impl Decide for Arc<Scripted> {
    fn decide(&self, tid: Pid, _exe: BorrowedFd<'_>) -> Decision {
        self.asked.lock().unwrap().send(tid).unwrap();
        let allow = self.replies.lock().unwrap().recv().unwrap_or(true);
        Decision { allow, ..Decision::ALLOW }
    }

    fn decide_late(&self, _tid: Pid) -> Decision {
        self.late.fetch_add(1, Ordering::SeqCst);
        Decision::ALLOW
    }

    fn trouble(&self, message: String) {
        // Not a panic: this thread is one of the gate's, which everybody would wait for.
        self.troubles.lock().unwrap().push(message);
    }

    fn answered(&self, _decision: Decision, _time: Duration, late: bool) {
        self.answers[usize::from(late)].fetch_add(1, Ordering::SeqCst);
    }

    fn alive(&self) {
        self.beats.fetch_add(1, Ordering::SeqCst);
    }
}

impl Scripted {
    fn answers(&self) -> [u64; 2] {
        self.answers.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}

struct Setup {
    _directory: tempfile::TempDir,
    program: PathBuf,
    gate: Arc<Gate<Arc<Scripted>>>,
    scripted: Arc<Scripted>,
    asked: Receiver<Pid>,
    replies: Sender<bool>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.gate.stop();
        let troubles = self.scripted.troubles.lock().unwrap();
        assert!(thread::panicking() || troubles.is_empty(), "{troubles:?}");
    }
}

fn setup(timeout: Duration, pulse: Option<Duration>) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("runtime");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let group = Arc::new(Group::new().expect("needs root"));
    group.mark(fs::File::open(&program).unwrap().as_fd()).unwrap();
    let (ask, asked) = channel();
    let (replies, reply) = channel();
    let scripted = Arc::new(Scripted {
        asked: Mutex::new(ask),
        replies: Mutex::new(reply),
        late: AtomicU64::new(0),
        answers: Default::default(),
        beats: AtomicU64::new(0),
        troubles: Mutex::default(),
    });
    let gate = Gate::start(group, Arc::clone(&scripted), timeout, pulse).unwrap();
    Setup { _directory: directory, program, gate, scripted, asked, replies }
}

/// Starts the program through `sh`, whose own start does not wait for the `execve` (that of
/// `Command` does).
fn start(program: &Path) -> Child {
    let line = CString::new(format!("exec {}", program.display())).unwrap();
    Command::new("sh").arg("-c").arg(line.to_str().unwrap()).stderr(Stdio::null()).spawn().unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timed out: {what}");
        thread::yield_now();
    }
}

#[test]
fn allows_and_denies_as_decided() {
    let s = setup(PATIENCE, None);
    for (reply, code) in [(true, 0), (false, 126)] {
        let mut child = start(&s.program);
        s.asked.recv_timeout(PATIENCE).unwrap();
        s.replies.send(reply).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    assert_eq!(s.scripted.late.load(Ordering::SeqCst), 0);
    until("both are counted", || s.scripted.answers() == [2, 0]);
}

#[test]
fn watchdog_answers_for_stuck_threads_and_replaces_them() {
    let s = setup(Duration::from_millis(100), None);
    // More than there are workers: each is stuck for good, and every start still succeeds.
    let mut children: Vec<_> = (0..3 * WORKERS).map(|_| start(&s.program)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(s.scripted.late.load(Ordering::SeqCst), 3 * WORKERS as u64);
    until("all are counted", || s.scripted.answers() == [0, 3 * WORKERS as u64]);
    // The stuck ones come back, are not missed, and the gate still answers.
    for _ in 0..3 * WORKERS {
        s.replies.send(true).unwrap();
    }
    until("stuck threads return", || s.gate.table().stuck == 0);
    let mut child = start(&s.program);
    s.replies.send(true).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn answers_without_looking_when_too_many_are_stuck() {
    let s = setup(Duration::from_millis(20), None);
    let mut children: Vec<_> = (0..MAX_STUCK + 2 * WORKERS).map(|_| start(&s.program)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    until("the blind thread took over", || s.gate.table().stuck > MAX_STUCK);
    let mut child = start(&s.program);
    assert!(child.wait().unwrap().success());
    drop(std::mem::replace(&mut *s.scripted.asked.lock().unwrap(), channel().0));
}

#[test]
fn a_task_killed_while_frozen_holds_nobody_up() {
    let s = setup(PATIENCE, None);
    let mut killed = start(&s.program);
    s.asked.recv_timeout(PATIENCE).unwrap();
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
    s.replies.send(false).unwrap();
    let mut child = start(&s.program);
    s.replies.send(true).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_pulse_goes_on_with_and_without_work() {
    let s = setup(SECONDS, Some(PULSE));
    let beats = || s.scripted.beats.load(Ordering::SeqCst);
    until("a pulse without work", || beats() > 2);
    let mut child = start(&s.program);
    let before = beats();
    until("a pulse while a thread decides", || beats() > before + 2);
    assert!(child.wait().unwrap().success());
    let before = beats();
    until("a pulse while a thread is stuck", || beats() > before + 2);
    s.replies.send(true).unwrap();
}

#[test]
fn the_pulse_ends_when_nobody_takes_a_start() {
    let s = setup(PATIENCE, Some(PULSE));
    let idle = Look { at: Instant::now(), waiting: false, taken: 0 };
    let stuck = Look { waiting: true, ..idle };
    assert!(!stuck.is_as(&idle) && !idle.is_as(&stuck));
    assert!(stuck.is_as(&stuck));
    assert!(!Look { taken: 1, ..stuck }.is_as(&stuck));
    // What the group says of those that wait.
    s.gate.group.stop();
    until("the workers end", || Arc::strong_count(&s.gate) <= 2);
    assert!(!s.gate.look().waiting);
    let mut child = start(&s.program);
    until("a start that waits", || s.gate.look().waiting);
    child.kill().unwrap();
    child.wait().unwrap();
}
