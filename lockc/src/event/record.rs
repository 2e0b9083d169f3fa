//! Events as they are kept, and as programs read them: one JSON object a line.

use std::{borrow::Cow, net::SocketAddr};

use jiff::Timestamp;
use lockc_common::{Event, Operation};
use serde::{Deserialize, Serialize};

use super::{address, operation_name, verdict_name};
use crate::policy::Family;

/// Version of a [`Record`]: grows when a key changes its meaning or goes, not when one is added.
pub const SCHEMA: u32 = 1;

/// What happened. `docs/operations.md` describes every key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// [`SCHEMA`] of who wrote it.
    pub schema: u32,
    /// Number of the event: later ones have larger numbers. A text, as it is too large for some readers of JSON.
    pub id: String,
    /// When, as RFC 3339 has it, in UTC.
    pub time: String,
    /// `denied`, `audited`, `allowed` or `noticed`.
    pub verdict: String,
    /// Name of the operation.
    pub operation: String,
    /// Id of the container, or what stands for it.
    pub container: String,
    /// Name of the policy.
    pub policy: String,
    /// Mode of the policy, where the event says that the container has it from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The path, or the end of a long one. What is no UTF-8 is escaped (`\xff`), and then a `\` is, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether the beginning of the path is missing.
    #[serde(skip_serializing_if = "is_false")]
    pub path_cut: bool,
    /// Address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Name or number of the family of a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// A number that the operation explains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<u32>,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the thread, which it has chosen.
    pub comm: String,
    /// Path of the runtime, of a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Why it was decided so, of a start and where there is a mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Engine of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Name that the engine knows the container by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Record {
    /// An event of the programs, which happened at `time`; its container and policy have these names.
    pub fn of_event(event: &Event, container: String, policy: String, time: Timestamp) -> Self {
        let is = |operation| event.operation == operation as u32;
        let mut record = Self {
            time: shown(time),
            verdict: verdict_name(event.verdict).to_owned(),
            operation: operation_name(event.operation).to_owned(),
            container,
            policy,
            pid: event.pid,
            tid: event.tid,
            comm: text(event.comm.split(|byte| *byte == 0).next().unwrap_or_default()),
            ..Self::default()
        };
        if is(Operation::Socket) {
            let family = Family::of_number(event.detail);
            record.family =
                Some(family.map_or_else(|| event.detail.to_string(), |it| it.to_string()));
        } else if is(Operation::Connect) || is(Operation::Bind) {
            record.address = address(event);
        } else {
            let len = usize::try_from(event.path_len).unwrap_or(0).min(event.path.len());
            record.path = (len > 0).then(|| text(&event.path[..len]));
            record.path_cut = len > 0 && event.path_cut != 0;
            record.detail = (len == 0 && event.detail != 0).then_some(event.detail);
        }
        record
    }

    /// Something that the daemon has done now.
    pub fn now(verdict: &str, operation: &str) -> Self {
        Self {
            time: shown(Timestamp::now()),
            verdict: verdict.to_owned(),
            operation: operation.to_owned(),
            ..Self::default()
        }
    }
}

/// Always of one length, so that times can be compared as texts.
fn shown(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Most bytes of a text of a container's that an event keeps: thousands of events may wait to be written.
const MAX_TEXT: usize = 1024;

/// The beginning of a long text.
pub fn cut(text: &str) -> String {
    cut_at(text, MAX_TEXT).into_owned()
}

/// The beginning of a text that is longer than so many bytes.
pub fn cut_at(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("nginx"), "nginx");
        assert_eq!(cut(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        let text = cut(&format!("x{}", "ä".repeat(MAX_TEXT)));
        assert!(text.len() <= MAX_TEXT + '…'.len_utf8() && text.ends_with("ä…"), "{text}");
    }

    #[test]
    fn a_record_has_what_its_event_has() {
        let mut event = super::super::tests::event();
        event.path[..5].copy_from_slice(b"/a\xff\\b");
        (event.path_len, event.path_cut) = (5, 1);
        let time = Timestamp::from_second(1_700_000_000).unwrap();
        let record = Record::of_event(&event, "web".into(), "baseline".into(), time);
        let wanted = r#"{"schema":0,"id":"","time":"2023-11-14T22:13:20.000000Z","verdict":"denied","operation":"open","container":"web","policy":"baseline","path":"/a\\xff\\\\b","path_cut":true,"pid":10,"tid":11,"comm":"cat"}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), wanted);
        assert_eq!(serde_json::from_str::<Record>(wanted).unwrap(), record);

        event.operation = Operation::Connect as u32;
        (event.path_len, event.detail) = (4, 80);
        event.path[..4].copy_from_slice(&[10, 0, 0, 1]);
        let record = Record::of_event(&event, String::new(), String::new(), time);
        assert_eq!(record.address, Some("10.0.0.1:80".parse().unwrap()));
        assert_eq!(record.path, None);
    }
}
