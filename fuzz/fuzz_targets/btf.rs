//! The kernel's type information. Nothing that it says may make the parser use more time or memory
//! than the bytes that say it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockc::bpf::{
    btf::Btf,
    layout::{FIELDS, resolve},
};

fuzz_target!(|data: &[u8]| {
    let Ok(btf) = Btf::parse(data) else { return };
    if let Ok(offsets) = resolve(&btf) {
        assert_eq!(offsets.len(), FIELDS.len());
    }
    for (structure, path) in FIELDS.iter().flat_map(|field| field.names) {
        let found = btf.member(structure, path);
        assert_eq!(found, btf.member(structure, path), "{structure}.{path}");
        // What is found by a path is found in the structure that its first name leads to.
        if let Some((first, _)) = path.split_once('.')
            && let Some(found) = found
        {
            let first = btf.member(structure, first).map(|member| member.offset);
            assert!(first.is_some_and(|first| first <= found.offset), "{structure}.{path}");
        }
    }
    for function in ["bpf_lsm_file_open", "security_inode_setattr", "none"] {
        let _ = btf.arguments(function);
    }
});
