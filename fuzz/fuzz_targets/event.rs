//! Records of the ring buffer, in which names are the container's choice.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use lockc::{
    bpf::events::decode,
    event::{Names, line},
};
use lockc_common::Event;

fuzz_target!(|data: &[u8]| {
    let Some(event) = decode(data) else {
        assert!(data.len() < size_of::<Event>());
        return;
    };
    assert_eq!(event.time.to_ne_bytes(), data[..8]);
    let names = Names { container: "web".to_owned(), policy: "baseline".to_owned() };
    let line = line(&event, &names);
    // One line of words, of which each says what it is but the first two.
    assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{line:?}");
    let words: Vec<&str> = line.split(' ').collect();
    let keys: Vec<&str> =
        words.iter().skip(2).map(|word| word.split_once('=').map_or("", |(key, _)| key)).collect();
    match keys.as_slice() {
        ["container", "policy", "pid", "tid", "comm"]
        | ["container", "policy", "path" | "detail" | "family" | "address", "pid", "tid", "comm"] =>
            {}
        _ => panic!("{line}"),
    }
    assert_eq!(words[2..4], ["container=web", "policy=baseline"]);
    assert!(words.contains(&format!("pid={}", event.pid).as_str()), "{line}");
    if let Some(address) = words.iter().find_map(|word| word.strip_prefix("address=")) {
        let address: SocketAddr = address.parse().expect("an address");
        assert_eq!(u32::from(address.port()), event.detail);
    }
    assert!(line.len() <= 256 + 4 * (event.path.len() + event.comm.len()), "{line}");
});
