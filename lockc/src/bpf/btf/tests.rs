use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Builds BTF by hand: each type is its three words and the kind's own data.
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0] }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.bytes());
        self.strings.push(0);
        at
    }

    fn push(&mut self, name: &str, kind: u32, members: u32, value: u32, extra: &[u32]) {
        let name = self.name(name);
        for word in [name, kind << 24 | members, value].iter().chain(extra) {
            self.types.extend(word.to_ne_bytes());
        }
    }

    fn build(&self) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        let types = u32::try_from(self.types.len()).unwrap();
        let strings = u32::try_from(self.strings.len()).unwrap();
        for word in [24, 0, types, types, strings] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(&self.types);
        data.extend(&self.strings);
        data
    }
}

fn sample() -> Vec<u8> {
    let mut b = Builder::new();
    b.push("int", 1, 0, 4, &[0x20]); // 1
    b.push("", 2, 0, 0, &[]); // 2: void *
    b.push("u64", 8, 0, 4, &[]); // 3: typedef of 4
    b.push("long", 1, 0, 8, &[0x40]); // 4
    let (len, name) = (b.name("len"), b.name("name"));
    b.push("", 5, 1, 8, &[len, 1, 0]); // 5: anonymous union { int len }
    b.push("qstr", 4, 2, 16, &[0, 5, 0, name, 2, 64]); // 6
    let (d_name, seq) = (b.name("d_name"), b.name("seq"));
    b.push("dentry", 4, 2, 32, &[seq, 3, 0, d_name, 7, 128]); // 8 after the const below
    b.push("", 10, 0, 6, &[]); // const qstr; see the id below
    b.build()
}

#[test]
fn finds_members_through_anonymous_unions_and_typedefs() {
    let mut data = sample();
    // The member d_name of dentry has type 7, which is dentry itself: make it the const (8).
    let at =
        data.windows(8).position(|w| w == [7_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat());
    data[at.unwrap()] = 8;
    let btf = Btf::parse(&data).unwrap();
    assert_eq!(btf.member("qstr", "len"), Some(Member { offset: 0, size: 4 }));
    assert_eq!(btf.member("qstr", "name"), Some(Member { offset: 8, size: 8 }));
    assert_eq!(btf.member("dentry", "seq"), Some(Member { offset: 0, size: 8 }));
    assert_eq!(btf.member("dentry", "d_name.name"), Some(Member { offset: 24, size: 8 }));
    assert_eq!(btf.member("dentry", "d_name.none"), None);
    assert_eq!(btf.member("none", "seq"), None);
}

#[test]
fn functions_of_hooks_are_known_by_their_arguments() {
    let mut b = Builder::new();
    b.push("", 13, 2, 0, &[0; 4]); // 1: a prototype
    b.push("bpf_lsm_file_open", 12, 1, 1, &[]);
    b.push("file_open", 12, 1, 1, &[]);
    b.push("security_file_open", 12, 1, 1, &[]);
    b.push("bpf_lsm_lost", 12, 1, 77, &[]);
    let data = b.build();
    let btf = Btf::parse(&data).unwrap();
    assert_eq!(btf.arguments("bpf_lsm_file_open"), Some(2));
    assert_eq!(btf.arguments("security_file_open"), Some(2));
    for none in ["file_open", "bpf_lsm_lost", "bpf_lsm_open"] {
        assert_eq!(btf.arguments(none), None, "{none}");
    }
}

#[test]
fn a_type_that_contains_itself_ends() {
    let btf_data = sample(); // dentry.d_name is a dentry here
    let btf = Btf::parse(&btf_data).unwrap();
    let path = vec!["d_name"; 1000].join(".");
    assert!(btf.member("dentry", &path).is_some());
}

#[test]
fn anonymous_members_that_contain_each_other_end_soon() {
    let mut b = Builder::new();
    // Each has two of the next, and the last two of the first.
    for id in 1..=20 {
        let next = id % 20 + 1;
        b.push(if id == 1 { "outer" } else { "" }, 4, 2, 8, &[0, next, 0, 0, next, 0]);
    }
    let data = b.build();
    let started = Instant::now();
    assert_eq!(Btf::parse(&data).unwrap().member("outer", "none"), None);
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
}

#[test]
fn a_long_string_is_no_name_however_many_types_have_it() {
    let named = |len: usize| {
        let mut b = Builder::new();
        b.push(&"x".repeat(len), 4, 0, 8, &[]);
        b.build()
    };
    assert!(Btf::parse(&named(MAX_NAME - 1)).is_ok());
    assert_eq!(Btf::parse(&named(MAX_NAME)).unwrap_err(), BtfError::Truncated { at: 12 });
}

#[test]
fn other_formats_are_named() {
    assert_eq!(
        Btf::parse(b"\x7fELF").unwrap_err(),
        BtfError::Format { magic: 0x457f, version: 76 }
    );
    assert_eq!(Btf::parse(b"").unwrap_err(), BtfError::Truncated { at: 0 });
}

proptest! {
    #[test]
    fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..300, byte: u8) {
        let _ = Btf::parse(&data);
        let mut damaged = sample();
        let at = at % damaged.len();
        damaged[at] = byte;
        if let Ok(btf) = Btf::parse(&damaged) {
            let _ = btf.member("dentry", "d_name.name");
            let _ = btf.member("qstr", "len");
        }
    }
}
