//! Events as fields of what is logged, for a log that has such: `journalctl LOCKC_CONTAINER=web` finds them.

use log::{
    Level,
    kv::{Error, Key, Source, Value, VisitSource},
};
use serde_json::Value as Json;

use super::record::Record;

/// Kinds of events, as `journalctl` knows them (`MESSAGE_ID`, systemd.journal-fields(7)): verdict, operation, id. An empty
/// operation is every one that is not named. They are never changed.
const KINDS: &[(&str, &str, &str)] = &[
    ("allowed", "start", "cab016b6a2fa433c95d50a93b1ec12f0"),
    ("denied", "start", "c5e685dad92d4964be2c5e1c7b65bef7"),
    ("denied", "", "9a6dc2b54c2f49488ef085b6bf10bac8"),
    ("audited", "", "809e8f5dccdf4cbc953a248e7a34c3f7"),
    ("noticed", "adopted", "8234c069acc245ff81f63e2b614f4d6e"),
    ("noticed", "policy", "f4849d6d5ea6491293e095b7a93b3725"),
    ("noticed", "gone", "7e28c3271ac143edae8c1e748d556d2d"),
    ("noticed", "unregistered", "5f188b021dd241839214442880eddcf3"),
];

/// Logs `message`, with all that `record` says as fields.
pub fn say(level: Level, message: &str, record: &Record) {
    if level > log::max_level() {
        return;
    }
    let mut line = log::Record::builder();
    line.level(level).target(module_path!());
    log::logger()
        .log(&line.args(format_args!("{message}")).key_values(&Fields::of(record)).build());
}

/// Names and values.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn of(record: &Record) -> Self {
        let mut fields = Vec::new();
        if let Some(id) = message_id(record) {
            fields.push(("MESSAGE_ID".to_owned(), id.to_owned()));
        }
        // A record has texts, numbers and truth values, and its keys are ours.
        if let Ok(Json::Object(keys)) = serde_json::to_value(record) {
            for (key, value) in keys {
                let value = match value {
                    Json::String(text) => text,
                    other => other.to_string(),
                };
                fields.push((name(&key), value));
            }
        }
        Self(fields)
    }
}

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        self.0.iter().try_for_each(|(name, value)| {
            visitor.visit_pair(Key::from_str(name), Value::from(&**value))
        })
    }
}

/// `LOCKC_CONTAINER` for `container`.
fn name(key: &str) -> String {
    let key = if key == "id" { "event_id" } else { key };
    format!("LOCKC_{}", key.to_ascii_uppercase())
}

fn message_id(record: &Record) -> Option<&'static str> {
    let is_kind = |(verdict, operation, _): &&(&str, &str, &str)| {
        record.verdict == *verdict && (operation.is_empty() || record.operation == *operation)
    };
    KINDS.iter().find(is_kind).map(|(.., id)| *id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn fields(record: &Record) -> Vec<(String, String)> {
        Fields::of(record).0
    }

    #[test]
    fn every_key_is_a_field() {
        let record = Record {
            id: "7".into(),
            container: "web".into(),
            path: Some("/a\nLOCKC_POLICY=privileged".into()),
            path_cut: true,
            pid: 5,
            ..Record::now("denied", "open")
        };
        let fields = fields(&record);
        let value = |wanted: &str| {
            let mut found = fields.iter().filter(|(name, _)| name == wanted);
            (found.next().map(|(_, value)| value.as_str()), found.count())
        };
        for (name, wanted) in [
            ("LOCKC_EVENT_ID", "7"),
            ("LOCKC_VERDICT", "denied"),
            ("LOCKC_CONTAINER", "web"),
            ("LOCKC_PATH", "/a\nLOCKC_POLICY=privileged"),
            ("LOCKC_PATH_CUT", "true"),
            ("LOCKC_PID", "5"),
            ("LOCKC_POLICY", ""),
        ] {
            assert_eq!(value(name), (Some(wanted), 0), "{name}");
        }
        assert_eq!(value("LOCKC_WHY"), (None, 0));
    }

    #[test]
    fn kinds_have_ids_of_their_own() {
        let id = |verdict: &str, operation: &str| message_id(&Record::now(verdict, operation));
        assert_ne!(id("denied", "start"), id("denied", "mount"));
        assert_eq!(id("denied", "open"), id("denied", "mount"));
        assert_eq!(id("noticed", "news"), None);
        let ids: HashSet<_> = KINDS.iter().map(|(.., id)| *id).collect();
        assert_eq!(ids.len(), KINDS.len());
        let is_id = |id: &str| id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit());
        assert!(ids.into_iter().all(is_id));
    }
}
