//! What the kernel side reports, as people read it.

pub mod fields;
pub mod record;
pub mod store;

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use lockc_common::{Event, Operation, Verdict};

use crate::policy::Family;

/// What an event says about its container and policy beyond numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The container's id, or what stands for it.
    pub container: String,
    /// The policy's name.
    pub policy: String,
}

/// Name of an operation in messages; a stable part of their format.
pub fn operation_name(operation: u32) -> &'static str {
    const NAMES: &[(Operation, &str)] = &[
        (Operation::Open, "open"),
        (Operation::ForeignOpen, "foreign-open"),
        (Operation::ForeignExec, "foreign-exec"),
        (Operation::ForeignCwd, "foreign-cwd"),
        (Operation::RuntimeFile, "runtime-file"),
        (Operation::KernelLog, "kernel-log"),
        (Operation::Mount, "mount"),
        (Operation::Rename, "rename"),
        (Operation::Restore, "restore"),
        (Operation::Unregistered, "unregistered"),
        (Operation::Gone, "gone"),
        (Operation::KernelInterface, "kernel-interface"),
        (Operation::Device, "device"),
        (Operation::Capability, "capability"),
        (Operation::Bpf, "bpf"),
        (Operation::PerfEvent, "perf-event"),
        (Operation::Trace, "trace"),
        (Operation::Signal, "signal"),
        (Operation::Schedule, "schedule"),
        (Operation::Socket, "socket"),
        (Operation::Connect, "connect"),
        (Operation::Bind, "bind"),
        (Operation::RuntimeSocket, "runtime-socket"),
        (Operation::Exec, "exec"),
        (Operation::Fileless, "fileless"),
        (Operation::Drift, "drift"),
        (Operation::Change, "change"),
        (Operation::Root, "root"),
        (Operation::UserNamespace, "user-namespace"),
        (Operation::IoUring, "io-uring"),
        (Operation::TerminalInput, "terminal-input"),
        (Operation::Namespace, "namespace"),
        (Operation::MachineCall, "machine-call"),
        (Operation::HostPath, "host-path"),
        (Operation::OwnFile, "lockc-file"),
    ];
    NAMES.iter().find(|(known, _)| *known as u32 == operation).map_or("unknown", |(_, name)| name)
}

fn verdict_name(verdict: u32) -> &'static str {
    const NAMES: &[(Verdict, &str)] =
        &[(Verdict::Denied, "denied"), (Verdict::Audited, "audited"), (Verdict::Notice, "noticed")];
    NAMES.iter().find(|(known, _)| *known as u32 == verdict).map_or("unknown", |(_, name)| name)
}

/// One line: `denied OPERATION container=ID policy=NAME path=PATH pid=N tid=N comm=NAME`. Bytes
/// that a container chose are escaped, so that it cannot forge a line.
pub fn line(event: &Event, names: &Names) -> String {
    let mut line = format!(
        "{} {} container={} policy={}",
        verdict_name(event.verdict),
        operation_name(event.operation),
        names.container,
        names.policy
    );
    let is = |operation| event.operation == operation as u32;
    if is(Operation::Socket) {
        match Family::of_number(event.detail) {
            Some(family) => _ = write!(line, " family={family}"),
            None => _ = write!(line, " family={}", event.detail),
        }
    } else if is(Operation::Connect) || is(Operation::Bind) {
        if let Some(address) = address(event) {
            let _ = write!(line, " address={address}");
        }
    } else {
        object(&mut line, event);
    }
    let comm = event.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let _ = write!(line, " pid={} tid={} comm={}", event.pid, event.tid, escape(comm));
    line
}

/// Address and port; `None` for an address of another kind.
fn address(event: &Event) -> Option<SocketAddr> {
    let port = u16::try_from(event.detail).ok()?;
    let address: IpAddr = match event.path_len {
        4 => <[u8; 4]>::try_from(event.path.get(..4)?).ok()?.into(),
        16 => <[u8; 16]>::try_from(event.path.get(..16)?).ok()?.into(),
        _ => return None,
    };
    Some((address, port).into())
}

fn object(line: &mut String, event: &Event) {
    let len = usize::try_from(event.path_len).unwrap_or(0).min(event.path.len());
    if len > 0 {
        let cut = if event.path_cut == 0 { "" } else { "..." };
        let _ = write!(line, " path={cut}{}", escape(&event.path[..len]));
    } else if event.detail != 0 {
        let _ = write!(line, " detail={}", event.detail);
    }
}

/// Printable ASCII without spaces, so that a value stays one word.
fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn event() -> Event {
        let mut event = Event {
            time: 0,
            container: 7,
            operation: Operation::Open as u32,
            verdict: Verdict::Denied as u32,
            policy: 1,
            pid: 10,
            tid: 11,
            detail: 0,
            ino: 0,
            path_len: 0,
            path_cut: 0,
            comm: [0; 16],
            path: [0; lockc_common::EVENT_PATH_LEN],
        };
        event.comm[..3].copy_from_slice(b"cat");
        event
    }

    fn names() -> Names {
        Names { container: "web".into(), policy: "baseline".into() }
    }

    #[test]
    fn a_denial_names_who_what_and_where() {
        let mut event = event();
        event.path[..6].copy_from_slice(b"/run/x");
        event.path_len = 6;
        assert_eq!(
            line(&event, &names()),
            "denied open container=web policy=baseline path=/run/x pid=10 tid=11 comm=cat"
        );
    }

    #[test]
    fn addresses_and_families_are_named() {
        let mut event = event();
        event.operation = Operation::Connect as u32;
        event.path[..4].copy_from_slice(&[169, 254, 169, 254]);
        (event.path_len, event.detail) = (4, 80);
        let said = line(&event, &names());
        assert!(said.contains(" policy=baseline address=169.254.169.254:80 pid="), "{said}");
        event.path[..16].copy_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        event.path_len = 16;
        assert!(line(&event, &names()).contains(" address=[::1]:80 pid="));
        event.path_len = 5;
        assert!(line(&event, &names()).contains(" policy=baseline pid="));
        event.operation = Operation::Socket as u32;
        event.detail = 40;
        assert!(line(&event, &names()).contains(" family=vsock pid="));
    }

    #[test]
    fn containers_cannot_forge_lines_or_words() {
        let mut event = event();
        let evil = b"/a\ndenied open container=other b\xff";
        event.path[..evil.len()].copy_from_slice(evil);
        event.path_len = u32::try_from(evil.len()).unwrap();
        let line = line(&event, &names());
        assert!(!line.contains('\n') && !line.contains(" container=other"), "{line}");
    }

    #[test]
    fn lengths_from_the_kernel_are_not_trusted() {
        let mut event = event();
        event.path_len = u32::MAX;
        event.operation = 99;
        assert!(line(&event, &names()).starts_with("denied unknown"));
    }
}
