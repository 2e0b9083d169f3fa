//! The file as it is written: whole lines, with growing numbers.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::fcntl::OFlag;

use super::{super::record::Record, Files, MAX_LINE};

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) files: Files,
    file: File,
    size: u64,
}

impl Store {
    pub(super) fn open(files: Files) -> io::Result<Self> {
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
    pub(super) fn last_id(&self) -> u64 {
        let last = |tail: &[u8]| {
            let line = tail.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
            serde_json::from_slice::<Record>(line).ok()?.id.parse().ok()
        };
        self.tail().ok().and_then(|tail| last(&tail)).unwrap_or(0)
    }

    /// Writes a line, all of it or nothing. Its number is moved on if it is not larger than `last_id`.
    pub(super) fn append(&mut self, mut record: Record, last_id: &mut u64) -> io::Result<()> {
        if *last_id == 0 {
            *last_id = self.last_id();
        }
        let id = record.id.parse().unwrap_or(0).max(*last_id + 1);
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
pub(super) fn create(path: &Path) -> io::Result<File> {
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
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
