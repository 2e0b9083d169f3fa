//! The file of events: lines of JSON, with a second file of earlier ones beside it.
//!
//! A thread of its own writes them: who waits for a disk that is full or hangs is this thread, and what does not fit into
//! its queue is counted and lost.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    fcntl::OFlag,
    unistd::{Gid, setfsgid},
};

use super::record::{Record, SCHEMA};

/// Events that wait at most; more are lost.
const QUEUE: usize = 4096;
/// Pause after the file could not be opened.
const RETRY: Duration = Duration::from_secs(5);
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
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, Files> {
        // Replaced as a whole.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Journal {
    /// Starts the thread that writes to `files`; what it makes belongs to `group`.
    pub fn start(files: Files, group: Option<u32>) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let shared = Arc::new(Shared { files: Mutex::new(files), lost: AtomicU64::new(0) });
        let journal = Self { queue, shared: Arc::clone(&shared) };
        thread::Builder::new().name("journal".into()).spawn(move || {
            if let Some(group) = group {
                setfsgid(Gid::from_raw(group));
            }
            write(&shared, &records);
        })?;
        Ok(journal)
    }

    /// Keeps an event, if that is possible without waiting.
    pub fn keep(&self, record: Box<Record>) {
        if self.queue.try_send(record).is_err() {
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

fn write(shared: &Shared, records: &Receiver<Box<Record>>) {
    // There for who reads before anything happens. If it cannot be had, the first event says so.
    let mut store = Store::open(shared.files().clone()).ok();
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
                None => store.insert(Store::open(files.clone())?),
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

/// The file.
#[derive(Debug)]
struct Store {
    files: Files,
    file: File,
    size: u64,
}

impl Store {
    fn open(files: Files) -> io::Result<Self> {
        let file = create(&files.file)?;
        let size = file.metadata()?.len();
        let mut store = Self { files, file, size };
        // A line that was written by half, when the machine or the daemon stopped.
        let whole = store.whole_lines()?;
        store.cut(whole)?;
        Ok(store)
    }

    /// Length of the file up to its last line end.
    fn whole_lines(&self) -> io::Result<u64> {
        let tail = self.tail()?;
        let start = self.size - tail.len() as u64;
        let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // Something else than lines: nothing of it is kept.
        Ok(if end == 0 && start > 0 { 0 } else { start + end as u64 })
    }

    fn tail(&self) -> io::Result<Vec<u8>> {
        let mut tail = vec![0; usize::try_from(self.size.min(MAX_LINE)).unwrap_or(0)];
        let start = self.size - tail.len() as u64;
        self.file.read_exact_at(&mut tail, start)?;
        Ok(tail)
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        if size != self.size {
            self.file.set_len(size)?;
            self.size = size;
        }
        Ok(())
    }

    /// Number of the last event in the file.
    fn last_id(&self) -> u64 {
        let last = |tail: &[u8]| {
            let line = tail.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
            serde_json::from_slice::<Record>(line).ok()?.id.parse().ok()
        };
        self.tail().ok().and_then(|tail| last(&tail)).unwrap_or(0)
    }

    /// Writes a line, all of it or nothing.
    fn append(&mut self, mut record: Record, last_id: &mut u64) -> io::Result<()> {
        if *last_id == 0 {
            *last_id = self.last_id();
        }
        // The time, so that numbers grow over restarts, too; moved on if the clock was set back, or if that is the same.
        let id = now().max(*last_id + 1);
        record.schema = SCHEMA;
        record.id = id.to_string();
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        if self.size > 0 && self.size + line.len() as u64 > self.files.max_size {
            fs::rename(&self.files.file, self.files.earlier())?;
            self.file = create(&self.files.file)?;
            self.size = 0;
        }
        if let Err(error) = self.file.write_all(&line) {
            let size = self.size;
            self.size = u64::MAX;
            // Half a line would spoil the next one; if it stays, it is cut when the file is opened again.
            let _ = self.cut(size);
            return Err(error);
        }
        self.size += line.len() as u64;
        *last_id = id;
        Ok(())
    }
}

/// Opens a regular file to append to.
fn create(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() == 0 {
        // Whatever the mask is: the group may read.
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    Ok(file)
}

/// Microseconds since the epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Reads events, and those that are written meanwhile.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// The file that is read, if it is there.
    file: Option<File>,
    /// What was read of a line.
    rest: Vec<u8>,
}

impl Reader {
    /// Reads from the earlier events on. Fails if there are files that cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match open(&earlier(path))? {
            Some(file) => Some(file),
            None => open(path)?,
        };
        Ok(Self { path: path.to_owned(), file, rest: Vec::new() })
    }

    /// Hands the lines to `take` that are there and were not read yet, until it says that it has enough.
    pub fn read(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                let mut chunk = [0; 16 << 10];
                let count = file.read(&mut chunk)?;
                self.rest.extend_from_slice(&chunk[..count]);
                while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    if !take(&line[..end]) {
                        return Ok(());
                    }
                }
                // No event is as long: it is the end of something else.
                if self.rest.len() as u64 > MAX_LINE {
                    self.rest.clear();
                }
                if count > 0 {
                    continue;
                }
            }
            // At the end: has another one taken its place?
            let Some(next) = open(&self.path)? else { return Ok(()) };
            if let Some(file) = &mut self.file {
                let (old, new) = (file.metadata()?, next.metadata()?);
                if (old.dev(), old.ino()) == (new.dev(), new.ino()) {
                    // Half a line that was written is cut away again.
                    if file.stream_position()? > new.len() {
                        file.seek(SeekFrom::Start(new.len()))?;
                        self.rest.clear();
                    }
                    return Ok(());
                }
            }
            self.file = Some(next);
            self.rest.clear();
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path, max_size: u64) -> Files {
        Files { file: directory.join("events.jsonl"), max_size }
    }

    fn record(number: u32) -> Record {
        Record { pid: number, ..Record::now("denied", "open") }
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !condition() {
            assert!(Instant::now() < end, "timed out: {what}");
            thread::yield_now();
        }
    }

    /// Process ids of the events that `reader` has next.
    fn pids(reader: &mut Reader) -> Vec<u32> {
        let mut pids = Vec::new();
        reader
            .read(|line| {
                pids.push(serde_json::from_slice::<Record>(line).unwrap().pid);
                true
            })
            .unwrap();
        pids
    }

    #[test]
    fn the_file_is_bounded_and_a_reader_loses_nothing_that_it_follows() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), 2000);
        let mut store = Store::open(files.clone()).unwrap();
        let mut reader = Reader::open(&files.file).unwrap();
        let mut seen = Vec::new();
        let mut last = 0;
        for number in 0..100 {
            store.append(record(number), &mut last).unwrap();
            if number % 3 == 0 {
                seen.extend(pids(&mut reader));
            }
        }
        seen.extend(pids(&mut reader));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(fs::metadata(&files.file).unwrap().len() <= 2000);
        assert!(fs::metadata(files.earlier()).unwrap().len() <= 2000);
        let kept = pids(&mut Reader::open(&files.file).unwrap());
        assert!(kept.len() > 10 && kept.is_sorted() && kept.last() == Some(&99), "{kept:?}");
    }

    #[test]
    fn numbers_grow_over_restarts_and_when_the_clock_is_set_back() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), 1 << 20);
        let id = |last: &mut u64| {
            let mut store = Store::open(files.clone()).unwrap();
            store.append(record(1), last).unwrap();
            *last
        };
        let ahead = now() + 3_600_000_000;
        assert_eq!(id(&mut ahead.clone()), ahead + 1);
        // A daemon that has just started knows no number.
        assert_eq!(id(&mut 0), ahead + 2);
    }

    #[test]
    fn half_a_line_is_cut_away() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), 1 << 20);
        Store::open(files.clone()).unwrap().append(record(1), &mut 0).unwrap();
        let mut file = create(&files.file).unwrap();
        file.write_all(b"{\"pid\":").unwrap();
        Store::open(files.clone()).unwrap().append(record(2), &mut 0).unwrap();
        assert_eq!(pids(&mut Reader::open(&files.file).unwrap()), [1, 2]);
    }

    #[test]
    fn a_file_of_something_else_takes_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), 1 << 30);
        let mut file = create(&files.file).unwrap();
        file.write_all(&vec![b'x'; 1 << 20]).unwrap();
        let mut reader = Reader::open(&files.file).unwrap();
        assert_eq!(pids(&mut reader), [0_u32; 0]);
        assert!(reader.rest.capacity() < 1 << 18, "{}", reader.rest.capacity());
    }

    #[test]
    fn what_is_no_regular_file_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(Store::open(files(directory.path(), 1000)).is_err());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Store::open(files(directory.path(), 1000)).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_written_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        let journal = Journal::start(files(&absent, 1000), None).unwrap();
        for number in 0..10 {
            journal.keep(Box::new(record(number)));
        }
        until("all are lost", || journal.lost() == 10);
        journal.move_to(files(directory.path(), 1 << 20));
        journal.keep(Box::new(record(10)));
        let mut reader = Reader::open(&directory.path().join("events.jsonl")).unwrap();
        let mut seen = Vec::new();
        until("one is kept", || {
            seen = pids(&mut reader);
            !seen.is_empty()
        });
        assert_eq!((seen, journal.lost()), (vec![10], 10));
    }
}
