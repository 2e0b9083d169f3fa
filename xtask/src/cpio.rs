//! Writes the `newc` cpio format, the one the kernel unpacks (kernel
//! documentation, `driver-api/early-userspace/buffer-format`). Written here
//! because the program cannot set owners without root, and to name members
//! freely.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive being written; every member belongs to root.
#[derive(Debug)]
pub(crate) struct Archive<W: Write> {
    out: W,
    next_inode: u32,
    written: u64,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, next_inode: 1, written: 0, directories: BTreeSet::new() }
    }

    /// Adds a directory and its missing parents, mode 0755.
    pub(crate) fn directory(&mut self, name: &str) -> Result<()> {
        let name = name.trim_matches('/');
        if name.is_empty() || self.directories.contains(name) {
            return Ok(());
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.directories.insert(name.to_owned());
        self.member(name, DIRECTORY | 0o755, &[])
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parent(name)?;
        self.member(name.trim_matches('/'), REGULAR | (mode & 0o7777), content)
    }

    pub(crate) fn symlink(&mut self, name: &str, to: &str) -> Result<()> {
        self.parent(name)?;
        self.member(name.trim_matches('/'), SYMLINK | 0o777, to.as_bytes())
    }

    /// Copies the file at `from`, following symbolic links, with its mode.
    pub(crate) fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode =
            fs::metadata(from).with_context(|| format!("cannot stat {}", from.display()))?.mode();
        self.file(name, mode, &content)
    }

    /// Copies a directory tree; symbolic links stay links, sockets and devices
    /// are errors.
    pub(crate) fn tree(&mut self, name: &str, from: &Path) -> Result<()> {
        self.directory(name)?;
        let context = || format!("cannot read {}", from.display());
        let mut entries = fs::read_dir(from)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .with_context(context)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else {
                bail!("the name of {} is not UTF-8", path.display());
            };
            let member = format!("{name}/{file_name}");
            let kind =
                entry.file_type().with_context(|| format!("cannot stat {}", path.display()))?;
            if kind.is_dir() {
                self.tree(&member, &path)?;
            } else if kind.is_symlink() {
                let to = fs::read_link(&path)
                    .with_context(|| format!("cannot read the link {}", path.display()))?;
                self.symlink(&member, &to.to_string_lossy())?;
            } else if kind.is_file() {
                self.copy(&member, &path)?;
            } else if kind.is_fifo()
                || kind.is_socket()
                || kind.is_char_device()
                || kind.is_block_device()
            {
                bail!("{} is neither file, directory nor link", path.display());
            }
        }
        Ok(())
    }

    /// Writes the trailer and fills up to 4 bytes, so that another archive can
    /// follow.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.member("TRAILER!!!", 0, &[])?;
        self.out.flush().context("cannot write the archive")?;
        Ok(self.out)
    }

    fn parent(&mut self, name: &str) -> Result<()> {
        match name.trim_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn member(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size =
            u32::try_from(content.len()).with_context(|| format!("{name} has more than 4 GiB"))?;
        let inode = self.next_inode;
        self.next_inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let mut header = Vec::with_capacity(110);
        header.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device, special device, name length, checksum
        let name_size = u32::try_from(name.len() + 1).context("a member's name is too long")?;
        for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            write!(header, "{field:08x}").context("cannot write a member's header")?;
        }
        self.put(&header)?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("cannot write the archive")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> Result<()> {
        while !self.written.is_multiple_of(4) {
            self.put(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_aligned_and_has_parents_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/c", 0o644, b"hello").unwrap();
        archive.file("a/b/d", 0o755, b"").unwrap();
        archive.symlink("a/e", "b/c").unwrap();
        let bytes = archive.finish().unwrap();
        assert!(bytes.len().is_multiple_of(4));
        assert_eq!(bytes.windows(6).filter(|window| window == b"070701").count(), 6);
        // The header of "a": inode 1, a directory.
        assert!(bytes.starts_with(b"07070100000001000041ed"));
        assert_eq!(&bytes[110..112], b"a\0");
    }
}
