//! Text of findings. What a bundle says is hostile: values are cut, escaped and counted, so that a
//! finding stays one line of bounded length that nobody can forge.

use std::fmt::Write as _;

use super::Control;

/// Most bytes of one value, before it is escaped.
const MAX_VALUE: usize = 80;
/// Most values of one finding.
const MAX_VALUES: usize = 8;
/// Most exceptions of one remedy: as many capabilities as Docker gives to a container.
const MAX_EXCEPTIONS: usize = 14;

/// What a control objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    /// What was found.
    pub(super) found: String,
    /// A line of the configuration that allows it.
    pub(super) remedy: String,
}

impl Objection {
    /// Of a control that can only be switched off.
    pub(super) fn new(control: Control, found: String) -> Self {
        Self { found, remedy: switched_off(control) }
    }
}

/// A value of the bundle, as it may be shown.
pub(super) fn quoted(value: &str) -> String {
    let mut end = value.len().min(MAX_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < value.len() { "..." } else { "" };
    format!("`{}{cut}`", value[..end].escape_default())
}

/// `what A, B and N more`, of values that may be shown as they are; nothing of none.
pub(super) fn listed<T: AsRef<str>>(what: &str, values: &[T]) -> Option<String> {
    if values.is_empty() {
        return None;
    }
    let mut text = format!("{what} ");
    for (n, value) in values.iter().take(MAX_VALUES).enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{}", value.as_ref());
    }
    if values.len() > MAX_VALUES {
        let _ = write!(text, " and {} more", values.len() - MAX_VALUES);
    }
    Some(text)
}

/// `KEY = ["A", "B"]`, or the control switched off if the values are too many or not of the kind
/// that people write down.
pub(super) fn exceptions(control: Control, key: &str, values: &[&str]) -> String {
    let plain = |value: &&str| {
        value.len() <= MAX_VALUE
            && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    if values.is_empty() || values.len() > MAX_EXCEPTIONS || !values.iter().all(plain) {
        return switched_off(control);
    }
    format!("{key} = [\"{}\"]", values.join("\", \""))
}

fn switched_off(control: Control) -> String {
    format!("{} = \"off\"", control.name())
}
