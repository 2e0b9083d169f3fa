//! The file of events: lines of JSON, with a second file of earlier ones beside it.
//!
//! A thread of its own writes them: who waits for a disk that is full or hangs is this thread, and what does not fit into
//! its queue is counted and lost.

mod file;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::unistd::{Gid, setfsgid};

use self::file::{Store, now};
pub use self::reader::Reader;
use super::record::{Record, SCHEMA};

/// Events that wait at most; more are lost.
const QUEUE: usize = 4096;
/// Pause after the file could not be opened.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for the file at the start.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest line that is looked for at the end of a file.
const MAX_LINE: u64 = 64 << 10;

/// Where events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The file.
    pub file: PathBuf,
    /// Bytes after which it becomes the earlier one.
    pub max_size: u64,
}

impl Files {
    /// The file of earlier events.
    pub fn earlier(&self) -> PathBuf {
        earlier(&self.file)
    }
}

/// The file of events that are earlier than those in `file`.
pub fn earlier(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".1");
    file.with_file_name(name)
}

/// Takes events and never waits.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: SyncSender<Box<Record>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Mutex<Files>,
    lost: AtomicU64,
    /// Number of the last event.
    last_id: Mutex<u64>,
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, Files> {
        // Replaced as a whole.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_id(&self) -> MutexGuard<'_, u64> {
        self.last_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file, behind whose last event the next ones are numbered.
    fn open(&self, files: Files) -> io::Result<Store> {
        let store = Store::open(files)?;
        let mut last_id = self.last_id();
        *last_id = store.last_id().max(*last_id);
        Ok(store)
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Journal {
    /// Starts the thread that writes to `files`; what it makes belongs to `group`. Waits until the number of the last event
    /// there is known, unless the disk hangs.
    pub fn start(files: Files, group: Option<u32>) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            files: Mutex::new(files),
            lost: AtomicU64::new(0),
            last_id: Mutex::new(0),
        });
        let journal = Self { queue, shared: Arc::clone(&shared) };
        let (send, opened) = sync_channel(1);
        thread::Builder::new().name("journal".into()).spawn(move || {
            if let Some(group) = group {
                setfsgid(Gid::from_raw(group));
            }
            // There for who reads before anything happens. If it cannot be had, the first event says so.
            let store = shared.open(shared.files().clone()).ok();
            // Fails only if that was not waited for.
            let _ = send.send(());
            write(&shared, &records, store);
        })?;
        // Late is no failure: numbers go by the clock then, and one that is not later than the last one is moved on when it
        // is written.
        let _ = opened.recv_timeout(PATIENCE);
        Ok(journal)
    }

    /// Gives an event its number, and keeps it if that is possible without waiting.
    pub fn keep(&self, record: &mut Record) {
        // Numbers grow in the order of the file.
        let mut last_id = self.shared.last_id();
        // The time, so that they grow over restarts, too; moved on if the clock was set back, or if that is the same.
        *last_id = now().max(*last_id + 1);
        record.schema = SCHEMA;
        record.id = last_id.to_string();
        if self.queue.try_send(Box::new(record.clone())).is_err() {
            self.shared.lose();
        }
    }

    /// From now on, events are kept in `files`.
    pub fn move_to(&self, files: Files) {
        *self.shared.files() = files;
    }

    /// How many events were not kept.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

fn write(shared: &Shared, records: &Receiver<Box<Record>>, mut store: Option<Store>) {
    let mut last_id = 0;
    // Files that could not be written, and when that was.
    let mut failed: Option<(Files, Instant)> = None;
    for record in records {
        let files = shared.files().clone();
        if failed.as_ref().is_some_and(|(bad, at)| *bad == files && at.elapsed() < RETRY) {
            shared.lose();
            continue;
        }
        store = store.filter(|store| store.files == files);
        let append = || {
            let store = match &mut store {
                Some(store) => store,
                None => store.insert(shared.open(files.clone())?),
            };
            store.append(*record, &mut last_id)
        };
        let path = files.file.display();
        match append() {
            Ok(()) if failed.take().is_some() => {
                log::error!(
                    "events are kept in {path} again; {} are missing",
                    shared.lost.load(Ordering::Relaxed)
                );
            }
            Ok(()) => {}
            Err(error) => {
                if failed.is_none() {
                    log::error!("cannot keep events in {path}: {error}");
                }
                shared.lose();
                store = None;
                failed = Some((files, Instant::now()));
            }
        }
    }
}
