//! Offsets of kernel fields, compared with what a C compiler says about the same kernels.
//! `tests/btf/make.py` makes both files of a kernel.

use std::{collections::BTreeMap, fs, path::Path};

use lockc::bpf::{
    btf::Btf,
    layout::{FIELDS, resolve},
};

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

#[test]
fn offsets_are_those_of_the_c_compiler() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/btf");
    for kernel in ["6.1-x86_64", "6.12-x86_64", "7.x-x86_64", "6.12-arm64"] {
        let data = fs::read(directory.join(format!("{kernel}.btf"))).unwrap();
        let offsets = resolve(&Btf::parse(&data).unwrap()).unwrap();
        let table = fs::read_to_string(directory.join(format!("{kernel}.golden"))).unwrap();
        let golden = golden(&table).unwrap();
        let known: Vec<_> = FIELDS.iter().map(|field| field.global).collect();
        assert_eq!(
            known,
            golden.keys().copied().collect::<Vec<_>>(),
            "{kernel}: make the tables again"
        );
        for (field, offset) in FIELDS.iter().zip(offsets) {
            let (expected, size) = golden[field.global];
            assert_eq!(offset, expected, "{kernel}: {}", field.global);
            assert!(field.size == 0 || field.size == size, "{kernel}: size of {}", field.global);
        }
    }
}
