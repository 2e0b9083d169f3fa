//! The daemon's log: lines for stderr, through a queue. Who reads stderr may be stuck, a journal on a full disk or one
//! that is itself in a container; the gate must not be.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use env_logger::{Builder, Env, Target};
use log::{Level, Record};

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
        let lines = Lines::start(Arc::clone(&backlog), io::stderr())?;
        // Everything passes this filter, and the level is set apart from it, as it can change later.
        let mut builder = Builder::from_env(Env::default().default_filter_or("trace"));
        builder.target(Target::Pipe(Box::new(lines)));
        let note = |record: &Record<'_>| {
            if record.level() == Level::Error {
                daemon::note_error(&one_line(&record.args().to_string()));
            }
        };
        match config.daemon.log_format {
            LogFormat::Text => {
                builder.format(move |out, record| {
                    note(record);
                    let message = one_line(&record.args().to_string());
                    writeln!(out, "{} {:5} {message}", out.timestamp(), record.level())
                });
            }
            LogFormat::Json => {
                builder.format(move |out, record| {
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
        builder.init();
        daemon::set_log_level(config.daemon.log_level);
        Ok(Self(backlog))
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
    fn start(backlog: Arc<Backlog>, out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let written = Arc::clone(&backlog);
        thread::Builder::new().name("log".into()).spawn(move || write(&lines, &written, out))?;
        Ok(Self { backlog, queue })
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut counts = self.backlog.counts();
        match self.queue.try_send(line.to_vec()) {
            Ok(()) => counts.waiting += 1,
            Err(_) => counts.dropped += 1,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines as they come, and says how many were dropped before.
fn write(lines: &Receiver<Vec<u8>>, backlog: &Backlog, mut out: impl Write) {
    for line in lines {
        let dropped = std::mem::take(&mut backlog.counts().dropped);
        // A log that cannot be written is nothing that could be logged.
        if dropped > 0 {
            let _ = writeln!(
                out,
                "lockc: {dropped} lines of the log were dropped, as nobody took them"
            );
        }
        let _ = out.write_all(&line);
        let mut counts = backlog.counts();
        counts.waiting -= 1;
        if counts.waiting == 0 {
            backlog.empty.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream, time::Instant};

    use super::*;

    #[test]
    fn a_reader_that_is_stuck_holds_nobody_up() {
        let (mut reader, out) = UnixStream::pair().unwrap();
        let backlog = Arc::new(Backlog::default());
        let mut lines = Lines::start(Arc::clone(&backlog), out).unwrap();
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
    fn line_breaks_stay_within_a_message() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a b [31m");
    }
}
