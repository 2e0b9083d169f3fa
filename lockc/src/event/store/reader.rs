//! The files as they are read.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{MAX_LINE, earlier};

/// Reads events, and those that are written meanwhile.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// The file that is read, if it is there.
    file: Option<File>,
    /// What was read of a line.
    pub(super) rest: Vec<u8>,
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
