//! The daemon's log: lines for stderr, or entries for systemd's journal, through a queue. Who takes them may be stuck, a
//! journal on a full disk or one that is itself in a container; the gate must not be.

mod journal;

use std::{
    env,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use env_logger::{Builder, Env, Logger, Target};
use log::{Level, Record};

use self::journal::Journal;
use crate::{
    config::{Config, LogFormat},
    daemon,
};

/// Lines that wait at most; more are counted, and dropped.
const QUEUE: usize = 1024;
/// Longest wait at the end for lines that are not written yet.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Writes what is logged; dropping it waits for the last lines.
#[derive(Debug)]
pub(super) struct Log(Arc<Backlog>);

impl Log {
    /// Begins to log as `config` says.
    pub(super) fn start(config: &Config) -> io::Result<Self> {
        let backlog = Arc::new(Backlog::default());
        // Everything passes this filter, and the level is set apart from it, as it can change later.
        let mut builder = Builder::from_env(Env::default().default_filter_or("trace"));
        if let Some(journal) = journal(config) {
            let lines = Lines::start(Arc::clone(&backlog), journal, |text| {
                journal::entry(Level::Warn, text, &None::<(&str, &str)>)
            })?;
            let entries = Entries { filter: builder.build(), lines };
            log::set_max_level(entries.filter.filter());
            log::set_boxed_logger(Box::new(entries)).map_err(io::Error::other)?;
        } else {
            let lines = Lines::start(Arc::clone(&backlog), io::stderr(), |text| {
                format!("lockc: {text}\n").into_bytes()
            })?;
            builder.target(Target::Pipe(Box::new(lines)));
            lines_of(config.daemon.log_format, &mut builder);
            builder.init();
        }
        daemon::set_log_level(config.daemon.log_level);
        Ok(Self(backlog))
    }
}

/// The journal, where stderr leads there and is not for something else to parse.
fn journal(config: &Config) -> Option<Journal> {
    let stream = env::var_os("JOURNAL_STREAM");
    let is_wanted = config.daemon.log_format == LogFormat::Text
        && journal::is_stream(stream.as_deref(), io::stderr());
    // If it cannot be had by its socket, lines get there.
    if is_wanted { Journal::connect(journal::SOCKET.as_ref()).ok() } else { None }
}

/// Entries for the journal.
struct Entries {
    filter: Logger,
    lines: Lines,
}

impl log::Log for Entries {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            note(record);
            let message = one_line(&record.args().to_string());
            self.lines.put(journal::entry(record.level(), &message, record.key_values()));
        }
    }

    fn flush(&self) {}
}

/// For `lockc status`.
fn note(record: &Record<'_>) {
    if record.level() == Level::Error {
        daemon::note_error(&one_line(&record.args().to_string()));
    }
}

fn lines_of(format: LogFormat, builder: &mut Builder) {
    match format {
        LogFormat::Text => {
            builder.format(|out, record| {
                note(record);
                let message = one_line(&record.args().to_string());
                writeln!(out, "{} {:5} {message}", out.timestamp(), record.level())
            });
        }
        LogFormat::Json => {
            builder.format(|out, record| {
                note(record);
                let line = serde_json::json!({
                    "time": out.timestamp_micros().to_string(),
                    "level": record.level().as_str(),
                    "message": record.args().to_string(),
                });
                writeln!(out, "{line}")
            });
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.wait(LAST_LINES);
    }
}

/// A message may hold text that others chose; a line break in it must not look like a new message.
fn one_line(message: &str) -> String {
    message.replace(|character: char| character.is_control(), " ")
}

/// Lines on their way.
#[derive(Debug, Default)]
struct Backlog {
    counts: Mutex<Counts>,
    empty: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: usize,
    dropped: usize,
}

impl Backlog {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Two numbers, right between any two statements.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, at_most: Duration) {
        let counts = self.counts();
        // Whether it was in time makes no difference now.
        drop(self.empty.wait_timeout_while(counts, at_most, |counts| counts.waiting > 0));
    }
}

/// Takes whole lines and never waits.
#[derive(Debug)]
struct Lines {
    backlog: Arc<Backlog>,
    queue: SyncSender<Vec<u8>>,
}

impl Lines {
    /// Writes to `out` in a thread of its own; `line` makes a line of what the log says of itself.
    fn start(
        backlog: Arc<Backlog>,
        out: impl Write + Send + 'static,
        line: fn(&str) -> Vec<u8>,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let written = Arc::clone(&backlog);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write(&lines, &written, out, line))?;
        Ok(Self { backlog, queue })
    }

    fn put(&self, line: Vec<u8>) {
        let mut counts = self.backlog.counts();
        match self.queue.try_send(line) {
            Ok(()) => counts.waiting += 1,
            Err(_) => counts.dropped += 1,
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines as they come, and says how many were dropped before.
fn write(
    lines: &Receiver<Vec<u8>>,
    backlog: &Backlog,
    mut out: impl Write,
    note: fn(&str) -> Vec<u8>,
) {
    for line in lines {
        let mut dropped = std::mem::take(&mut backlog.counts().dropped);
        if dropped > 0 {
            let text = format!("{dropped} lines of the log were dropped, as nobody took them");
            if out.write_all(&note(&text)).is_ok() {
                dropped = 0;
            }
        }
        // A log that cannot be written is nothing that could be logged: it is told when it can be.
        if out.write_all(&line).is_err() {
            dropped += 1;
        }
        let mut counts = backlog.counts();
        counts.dropped += dropped;
        counts.waiting -= 1;
        if counts.waiting == 0 {
            backlog.empty.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream, sync::mpsc, time::Instant};

    use super::*;

    #[test]
    fn a_reader_that_is_stuck_holds_nobody_up() {
        let (mut reader, out) = UnixStream::pair().unwrap();
        let backlog = Arc::new(Backlog::default());
        let note = |text: &str| format!("lockc: {text}\n").into_bytes();
        let mut lines = Lines::start(Arc::clone(&backlog), out, note).unwrap();
        let line = [b'x'; 1000];
        let begin = Instant::now();
        // Far more than the socket and the queue take.
        for _ in 0..10 * QUEUE {
            lines.write_all(&line).unwrap();
        }
        backlog.wait(Duration::from_millis(100));
        assert!(begin.elapsed() < Duration::from_mins(1), "{:?}", begin.elapsed());

        // It reads again: nothing that was queued is lost, and it is told what was not.
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        backlog.wait(Duration::from_mins(1));
        lines.write_all(b"last\n").unwrap();
        drop(lines);
        let text = reading.join().unwrap();
        // How many it says they were, in all: when it counts them depends on who ran first.
        let dropped: usize = text
            .lines()
            .filter_map(|line| {
                line.split_once("lockc: ")?.1.split_once(" lines of the log were dropped")
            })
            .map(|(count, _)| count.parse::<usize>().unwrap())
            .sum();
        assert_eq!(dropped, 10 * QUEUE - text.matches('x').count() / line.len());
        assert!(dropped > QUEUE, "{dropped}");
        assert!(text.ends_with("last\n"), "{}", text.len());
    }

    #[test]
    fn what_cannot_be_written_is_told_when_it_can_be() {
        struct Full(u32, mpsc::Sender<Vec<u8>>);
        impl Write for Full {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                if self.0 > 0 {
                    self.0 -= 1;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.1.send(line.to_vec()).unwrap();
                Ok(line.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (send, written) = mpsc::channel();
        // One line, then the note and another line, and then there is room.
        let full = Full(3, send);
        let lines = Lines::start(Arc::default(), full, |text| text.as_bytes().to_vec()).unwrap();
        for line in [b"1", b"2", b"3"] {
            lines.put(line.to_vec());
        }
        let next = || String::from_utf8(written.recv().unwrap()).unwrap();
        assert_eq!(next(), "2 lines of the log were dropped, as nobody took them");
        assert_eq!(next(), "3");
    }

    #[test]
    fn line_breaks_stay_within_a_message() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a b [31m");
    }
}
