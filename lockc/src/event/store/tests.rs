use std::{
    fs,
    io::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    Files, Journal, Reader,
    file::{Store, create, now},
};
use crate::event::record::{Record, SCHEMA};

fn files(directory: &Path, max_size: u64) -> Files {
    Files { file: directory.join("events.jsonl"), max_size }
}

fn record(number: u32) -> Record {
    Record { pid: number, id: now().to_string(), ..Record::now("denied", "open") }
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
fn an_event_is_kept_under_the_number_that_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path(), 1 << 20);
    let ahead = now() + 3_600_000_000;
    let last = Record { id: ahead.to_string(), ..record(0) };
    Store::open(files.clone()).unwrap().append(last, &mut 0).unwrap();
    let journal = Journal::start(files.clone(), None).unwrap();
    let mut given = vec![ahead.to_string()];
    for number in 1..4 {
        let mut record = record(number);
        journal.keep(&mut record);
        assert_eq!(record.schema, SCHEMA);
        given.push(record.id);
    }
    let mut reader = Reader::open(&files.file).unwrap();
    let mut kept = Vec::new();
    until("all are kept", || {
        let take = |line: &[u8]| {
            let record: Record = serde_json::from_slice(line).unwrap();
            assert_eq!(record.schema, if kept.is_empty() { 0 } else { SCHEMA });
            kept.push(record.id);
            true
        };
        reader.read(take).unwrap();
        kept.len() == given.len()
    });
    assert_eq!(kept, given);
    assert_eq!(given[1], (ahead + 1).to_string());
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
        journal.keep(&mut record(number));
    }
    until("all are lost", || journal.lost() == 10);
    journal.move_to(files(directory.path(), 1 << 20));
    journal.keep(&mut record(10));
    let mut reader = Reader::open(&directory.path().join("events.jsonl")).unwrap();
    let mut seen = Vec::new();
    until("one is kept", || {
        seen = pids(&mut reader);
        !seen.is_empty()
    });
    assert_eq!((seen, journal.lost()), (vec![10], 10));
}
