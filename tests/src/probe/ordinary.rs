//! What every container must be able to do. Each verb's line is the same on every run.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Failure, Outcome, Step as _, files};

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("threads", [count]) => threads(count),
        ("churn", [count]) => churn(count),
        ("unix-socket", [path]) => unix_socket(path),
        ("tcp", []) => tcp(),
        ("udp", []) => udp(),
        ("memfd", []) => memfd(),
        ("memfd-exec", []) => memfd_exec(),
        ("deleted", [path]) => deleted(path),
        ("reopen-stdio", []) => reopen_stdio(),
        _ => return None,
    };
    Some(outcome)
}

fn threads(count: &str) -> Outcome {
    let count: u64 = count.parse().map_err(|_| Failure::Unfit(format!("no number: {count}")))?;
    let sum: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    let comm = std::fs::read_to_string("/proc/thread-self/comm");
                    number + u64::from(comm.is_ok())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
    });
    Ok(format!("{count} threads, sum {sum}"))
}

/// Many short threads, while two others open files all the time.
fn churn(count: &str) -> Outcome {
    let count: u64 = count.parse().map_err(|_| Failure::Unfit(format!("no number: {count}")))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for path in ["/dev/null", "/bin/probe"] {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = File::open(path);
                }
            });
        }
        for _ in 0..count {
            let _ = scope.spawn(|| {}).join();
        }
        over.store(true, Ordering::Relaxed);
    });
    Ok(format!("{count} threads"))
}

/// Sends a line through a pair of streams and gives back what arrived.
fn echo(mut from: impl std::io::Write, mut to: impl std::io::Read) -> Outcome {
    from.write_all(b"hello").step("send")?;
    let mut received = [0; 5];
    to.read_exact(&mut received).step("receive")?;
    Ok(String::from_utf8_lossy(&received).into_owned())
}

fn unix_socket(path: &str) -> Outcome {
    let listener = UnixListener::bind(path).step("bind")?;
    let client = UnixStream::connect(path).step("connect")?;
    let (server, _) = listener.accept().step("accept")?;
    echo(client, server)
}

fn tcp() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").step("bind")?;
    let client = TcpStream::connect(listener.local_addr().step("address")?).step("connect")?;
    let (server, _) = listener.accept().step("accept")?;
    echo(client, server)
}

fn udp() -> Outcome {
    let receiver = UdpSocket::bind("127.0.0.1:0").step("bind")?;
    let sender = UdpSocket::bind("127.0.0.1:0").step("bind")?;
    sender.send_to(b"hello", receiver.local_addr().step("address")?).step("send")?;
    let mut received = [0; 16];
    let (length, _) = receiver.recv_from(&mut received).step("receive")?;
    Ok(String::from_utf8_lossy(&received[..length]).into_owned())
}

fn memfd() -> Outcome {
    let mut file: File = memfd_create("note", MFdFlags::MFD_CLOEXEC).step("memfd_create")?.into();
    file.write_all(b"in memory").step("write")?;
    files::read_path(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Executes a program that lies in memory only.
fn memfd_exec() -> Outcome {
    let mut file: File = memfd_create("program", MFdFlags::empty()).step("memfd_create")?.into();
    let program = std::fs::read("/bin/probe").step("read program")?;
    file.write_all(&program).step("write")?;
    // A descriptor that is open for writing cannot be executed: open it anew, close the old one.
    let reader = files::open_read(&format!("/proc/self/fd/{}", file.as_raw_fd())).step("reopen")?;
    drop(file);
    super::host::execute(&format!("/proc/self/fd/{}", reader.as_raw_fd()), &["hello"])
}

fn deleted(path: &str) -> Outcome {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .step("create")?;
    file.write_all(b"gone, yet here").step("write")?;
    std::fs::remove_file(path).step("unlink")?;
    file.rewind().step("seek")?;
    files::read_path(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens standard output and error anew through every name they have.
fn reopen_stdio() -> Outcome {
    for path in ["/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/dev/fd/2"] {
        let mut stream = File::options().append(true).open(path).step("open")?;
        stream.write_all(format!("through {path}\n").as_bytes()).step("write")?;
    }
    let mut input = String::new();
    File::open("/dev/stdin").step("open stdin")?.read_to_string(&mut input).step("read stdin")?;
    Ok(format!("{} bytes of input", input.len()))
}
