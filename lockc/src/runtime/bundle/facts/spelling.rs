//! Field names that only some runtimes recognise.
//!
//! Go's `encoding/json`, and so runc, takes `MOUNTS` for `mounts` (documentation of `Unmarshal`, Go
//! 1.24); crun and serde do not. Engines write names as the specification has them. A bundle that
//! means one thing to lockc and another to the runtime is refused.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Names of all fields of [`super::Facts`] and of what is in it.
const FIELDS: &[&str] = &[
    "access",
    "action",
    "allow",
    "ambient",
    "annotations",
    "apparmorProfile",
    "args",
    "bounding",
    "capabilities",
    "cgroupsPath",
    "createContainer",
    "createRuntime",
    "cwd",
    "defaultAction",
    "destination",
    "devices",
    "effective",
    "gid",
    "hooks",
    "hostname",
    "inheritable",
    "linux",
    "major",
    "maskedPaths",
    "minor",
    "mounts",
    "namespaces",
    "noNewPrivileges",
    "ociVersion",
    "options",
    "path",
    "permitted",
    "poststart",
    "poststop",
    "prestart",
    "process",
    "readonly",
    "readonlyPaths",
    "resources",
    "root",
    "rootfsPropagation",
    "seccomp",
    "selinuxLabel",
    "source",
    "startContainer",
    "syscalls",
    "sysctl",
    "terminal",
    "type",
    "uid",
    "user",
];

/// Fields whose keys are free.
const FREE: &[&str] = &["annotations", "sysctl"];

/// Refuses a field whose name differs from a known one by case only. What is not known is not
/// looked into.
pub(in crate::runtime::bundle) fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Value.deserialize(&mut deserializer)?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<Cow<'_, str>>()? {
            // Most are spelt as they should be.
            let field = match FIELDS.binary_search(&&*key) {
                Ok(at) => FIELDS.get(at),
                Err(_) => FIELDS.iter().find(|field| is_field(&key, field)),
            };
            if let Some(field) = field {
                if key != **field {
                    let key = key.escape_debug();
                    return Err(A::Error::custom(format_args!("field `{key}` for `{field}`")));
                }
                if !FREE.contains(field) {
                    entries.next_value_seed(self)?;
                    continue;
                }
            }
            entries.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Whether Go would take `key` for `field`: letters beyond ASCII that fold to ASCII included.
fn is_field(key: &str, field: &str) -> bool {
    let fold = |letter: char| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(field.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, de::value::Error, forward_to_deserialize_any};

    use super::{super::*, *};

    /// Tells the fields that a structure asks for.
    struct Asked<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("no structure"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0.extend(fields);
            Err(Error::custom("asked"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    #[test]
    fn all_fields_are_known() {
        fn ask<T: for<'de> Deserialize<'de>>(fields: &mut Vec<&'static str>) {
            let before = fields.len();
            assert!(T::deserialize(Asked(fields)).is_err());
            assert!(fields.len() > before);
        }
        let mut fields = Vec::new();
        ask::<Facts>(&mut fields);
        ask::<Process>(&mut fields);
        ask::<User>(&mut fields);
        ask::<Capabilities>(&mut fields);
        ask::<Root>(&mut fields);
        ask::<Mount>(&mut fields);
        ask::<Hooks>(&mut fields);
        ask::<Hook>(&mut fields);
        ask::<Linux>(&mut fields);
        ask::<Namespace>(&mut fields);
        ask::<Seccomp>(&mut fields);
        ask::<SyscallRule>(&mut fields);
        ask::<Device>(&mut fields);
        ask::<Resources>(&mut fields);
        ask::<DeviceRule>(&mut fields);
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields, FIELDS);
    }

    #[test]
    fn names_in_another_case_are_refused() {
        for (json, expected) in [
            (r#"{"mounts":[{"Source":"/"}]}"#, Some("field `Source` for `source`")),
            (r#"{"MOUNTS":[]}"#, Some("field `MOUNTS` for `mounts`")),
            (r#"{"mountſ":[]}"#, Some("field `mountſ` for `mounts`")),
            (r#"{"hoo\u212as":{}}"#, Some("field `hoo\u{212a}s` for `hooks`")),
            (r#"{"linux":{"maskedpaths":[]}}"#, Some("field `maskedpaths` for `maskedPaths`")),
            (r#"{"annotations":{"Path":"x","PATH":"y"},"linux":{"sysctl":{"Type":"1"}}}"#, None),
            (r#"{"vm":{"Path":"x"},"process":{"env":["PATH=x"],"consoleSize":{"Type":1}}}"#, None),
            (r#"{"process":{"user":{"uid":1,"umask":18},"args":[null,true,1.5,-1,"x"]}}"#, None),
            ("[]", None),
        ] {
            let error = check(json.as_bytes()).err().map(|error| error.to_string());
            let error = error.as_deref().map(|error| error.split(" at line").next().unwrap());
            assert_eq!(error, expected, "{json}");
        }
    }
}
