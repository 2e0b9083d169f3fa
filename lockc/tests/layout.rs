//! Offsets of kernel fields, compared with what a C compiler says about the same kernels.
//! `tests/btf/make.py` makes both files of a kernel.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use lockc::bpf::{
    backend::Backend,
    btf::Btf,
    layout::{FIELDS, Field, resolve},
};

const KERNELS: [&str; 4] = ["6.1-x86_64", "6.12-x86_64", "7.x-x86_64", "6.12-arm64"];
/// Names a whole BTF to compare with the trimmed one: `NAME=FILE`.
const WHOLE: &str = "LOCKC_WHOLE_BTF";

/// Global → offset and size in bytes.
fn golden(table: &str) -> Option<BTreeMap<&str, (u64, u64)>> {
    table
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let mut number = || words.next()?.parse().ok();
            Some((name, (number()?, number()?)))
        })
        .collect()
}

fn stored(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/btf");
    fs::read(directory.join(name)).unwrap()
}

/// What our parser says about a field, as the golden table would.
fn ours(btf: &Btf<'_>, field: &Field) -> Option<(u64, u64)> {
    let member = field.names.iter().find_map(|(structure, path)| btf.member(structure, path))?;
    Some((member.offset, member.size))
}

#[test]
fn offsets_are_those_of_the_c_compiler() {
    let mut differences = Vec::new();
    for kernel in KERNELS {
        let data = stored(&format!("{kernel}.btf"));
        let btf = Btf::parse(&data).unwrap();
        let table = String::from_utf8(stored(&format!("{kernel}.golden"))).unwrap();
        let golden = golden(&table).unwrap();
        let names: BTreeSet<_> = FIELDS.iter().map(|field| field.global).collect();
        for name in golden.keys().filter(|name| !names.contains(*name)) {
            differences.push(format!("{kernel}: {name} is in the table only"));
        }
        for field in FIELDS {
            let (name, ours) = (field.global, ours(&btf, field));
            match golden.get(name) {
                None => differences.push(format!("{kernel}: {name} is not in the table")),
                theirs if ours.as_ref() != theirs => differences
                    .push(format!("{kernel}: {name} is {ours:?}, the compiler says {theirs:?}")),
                _ => {}
            }
        }
        // What the daemon uses, with its own check of the sizes.
        match resolve(&btf) {
            Ok(offsets) => {
                for (field, offset) in FIELDS.iter().zip(offsets) {
                    if golden.get(field.global).is_some_and(|(expected, _)| *expected != offset) {
                        differences
                            .push(format!("{kernel}: resolved {} as {offset}", field.global));
                    }
                }
            }
            Err(error) => differences.push(format!("{kernel}: {error}")),
        }
    }
    assert!(
        differences.is_empty(),
        "{}\nafter a change of layout.rs, make the tables again",
        differences.join("\n")
    );
}

/// A whole BTF has a few MB and is not stored. Anybody who has one can compare.
#[test]
fn trimming_changes_nothing() {
    for kernel in KERNELS {
        // That nothing points out of a trimmed file, `parse` does not check: every field must be
        // found in it.
        let trimmed = stored(&format!("{kernel}.btf"));
        let trimmed = resolve(&Btf::parse(&trimmed).unwrap()).unwrap();
        for whole in env::var(WHOLE).unwrap_or_default().split_ascii_whitespace() {
            let (name, path) = whole.split_once('=').unwrap();
            if name == kernel {
                let whole = fs::read(path).unwrap();
                assert_eq!(resolve(&Btf::parse(&whole).unwrap()).unwrap(), trimmed, "{kernel}");
            }
        }
    }
}

/// Hooks of the LSM programs, as their source names them.
fn hooks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lockc-ebpf/src/main.rs");
    let text = fs::read_to_string(path).unwrap();
    let names = text.split("#[lsm(hook = \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn functions_get_what_their_hooks_get() {
    const NEWER: [&str; 3] = ["file_truncate", "inode_remove_acl", "inode_set_acl"];
    let hooks = hooks();
    assert!(hooks.len() > 50, "{hooks:?}");
    for kernel in KERNELS {
        let data = stored(&format!("{kernel}.btf"));
        let btf = Btf::parse(&data).unwrap();
        let arguments = |backend: Backend, hook: &str| btf.arguments(&backend.function(hook)?);
        for hook in &hooks {
            let lsm = arguments(Backend::Lsm, hook);
            let function = arguments(Backend::ModifyReturn, hook);
            match hook.as_str() {
                "mmap_file" => assert_eq!((lsm, function), (Some(4), None), "{kernel}"),
                "security_mmap_file" => assert_eq!((lsm, function), (None, Some(3)), "{kernel}"),
                "inode_setattr" if kernel == "6.1-x86_64" => {
                    assert_eq!((lsm, function), (Some(2), Some(3)));
                }
                hook if kernel == "6.1-x86_64" && NEWER.contains(&hook) => {
                    assert_eq!((lsm, function), (None, None), "{hook}");
                }
                hook => {
                    assert_eq!(lsm, function, "{kernel}: {hook}");
                    assert!(lsm.is_some(), "{kernel}: {hook}");
                }
            }
        }
    }
}

#[test]
fn hooks_and_their_arguments_are_found() {
    for kernel in KERNELS {
        let data = stored(&format!("{kernel}.btf"));
        let btf = Btf::parse(&data).unwrap();
        // Since 6.2.
        let truncate = (kernel != "6.1-x86_64").then_some(1);
        for prefix in ["bpf_lsm_", "security_"] {
            let arguments = |hook: &str| btf.arguments(&format!("{prefix}{hook}"));
            assert_eq!(arguments("file_open"), Some(1), "{kernel}");
            assert_eq!(arguments("path_rename"), Some(5), "{kernel}");
            assert_eq!(arguments("file_opened"), None, "{kernel}");
            assert_eq!(arguments("file_truncate"), truncate, "{kernel}");
        }
    }
}
