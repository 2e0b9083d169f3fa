use std::{fs::File, os::unix::fs::MetadataExt as _, thread};

use super::*;

/// The fields of an entry, by a reader of its own.
fn read(mut entry: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let name = String::from_utf8(entry[..end].to_vec()).unwrap();
        let (length, rest) = entry[end + 1..].split_first_chunk::<8>().unwrap();
        let (value, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
        fields.push((name, value.to_vec()));
        entry = rest.strip_prefix(b"\n").unwrap();
    }
    fields
}

#[test]
fn values_cannot_forge_fields() {
    let evil = "a\nLOCKC_POLICY=privileged\nMESSAGE\n\u{8}\0\0\0\0\0\0\0\u{1b}[31m\n\0";
    let fields = read(&entry(Level::Warn, evil, &[("LOCKC_COMM", evil)]));
    let wanted = [
        ("MESSAGE", evil),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "lockc"),
        ("LOCKC_COMM", evil),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(fields, wanted);
}

#[test]
fn an_entry_fits_into_a_datagram() {
    let (mut sender, receiver) = pair();
    let long = "ä".repeat(64 << 10);
    let entry = entry(Level::Info, &long, &[("LOCKC_WHY", long.as_str())]);
    sender.write_all(&entry).unwrap();
    let mut datagram = vec![0; 1 << 20];
    let count = receiver.recv(&mut datagram).unwrap();
    let fields = read(&datagram[..count]);
    assert_eq!((fields.len(), fields[3].0.as_str()), (4, "LOCKC_WHY"));
    for (_, value) in [&fields[0], &fields[3]] {
        let text = str::from_utf8(value).unwrap();
        assert!(text.ends_with("ä…") && text.len() <= MAX_VALUE + 3, "{}", text.len());
    }
}

/// A journal that listens.
fn pair() -> (Journal, UnixDatagram) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let receiver = UnixDatagram::bind(&path).unwrap();
    (Journal::connect(&path).unwrap(), receiver)
}

#[test]
fn a_journal_that_takes_nothing_is_not_waited_for_without_end() {
    let (mut sender, receiver) = pair();
    let begin = Instant::now();
    let sent = (0..100_000).take_while(|_| sender.write_all(b"x").is_ok()).count();
    assert!(sent > 0 && begin.elapsed() >= PATIENCE, "{sent}");
    // It takes again, while one waits.
    let taking = thread::spawn(move || receiver.recv(&mut [0; 8]).map(|_| receiver));
    sender.write_all(b"y").unwrap();
    taking.join().unwrap().unwrap();
}

#[test]
fn another_journal_at_the_same_place_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let first = UnixDatagram::bind(&path).unwrap();
    let mut sender = Journal::connect(&path).unwrap();
    drop(first);
    assert!(sender.write_all(b"x").is_err());
    std::fs::remove_file(&path).unwrap();
    let second = UnixDatagram::bind(&path).unwrap();
    sender.write_all(b"y").unwrap();
    let mut taken = [0; 8];
    assert_eq!((second.recv(&mut taken).unwrap(), taken[0]), (1, b'y'));
}

#[test]
fn only_the_stream_that_systemd_made_is_the_journal() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let metadata = file.as_file().metadata().unwrap();
    let is = |text: &str| is_stream(Some(OsStr::new(text)), file.as_file());
    let (device, inode) = (metadata.dev(), metadata.ino());
    assert!(is(&format!("{device}:{inode}")));
    let others = [format!("{device}:{}", inode + 1), format!("{}:{inode}", device + 1)];
    for other in others.iter().map(String::as_str).chain(["", ":", "x:y", "1"]) {
        assert!(!is(other), "{other}");
    }
    assert!(!is_stream(None, File::open("/dev/null").unwrap()));
}
