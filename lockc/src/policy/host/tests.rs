use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::*;

const SDA: u32 = 8 << 20 | 1;
const TMP: u32 = 23;
const OVERLAY: u32 = 50;

fn mounts(lines: &str) -> Mounts {
    Mounts::parse(lines.as_bytes()).unwrap()
}

/// A machine with a file system for `/`, one for `/var`, and a tmpfs.
fn machine() -> Mounts {
    mounts(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
         23 22 0:23 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n\
         24 22 8:2 / /var rw - ext4 /dev/sda2 rw\n",
    )
}

fn link_of(links: &[(&str, &str)]) -> impl Fn(&[u8]) -> Option<Vec<u8>> {
    let links: Vec<(String, String)> =
        links.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    move |path| {
        let (_, to) = links.iter().find(|(from, _)| from.as_bytes() == path)?;
        Some(to.clone().into_bytes())
    }
}

/// The rules as device, path and verdict.
fn rules(
    mounts: &Mounts,
    paths: &[&str],
    links: &[(&str, &str)],
) -> Vec<(u32, String, PathVerdict)> {
    let paths: Vec<PathRule> = paths.iter().map(|path| PathRule::new(path).unwrap()).collect();
    let found = mounts.rules(&paths, link_of(links)).unwrap();
    assert!(found.left_out.is_empty(), "{found:?}");
    let read = |(key, verdict): HostRule| {
        assert_eq!(key[0], b'/');
        let device = u32::from_le_bytes(key[1..HOST_PREFIX].try_into().unwrap());
        (device, String::from_utf8(key[HOST_PREFIX..].to_vec()).unwrap(), verdict)
    };
    let mut rules: Vec<_> = found.rules.into_iter().map(read).collect();
    rules.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    rules
}

fn is(device: u32, path: &str, verdict: PathVerdict) -> (u32, String, PathVerdict) {
    (device, path.to_owned(), verdict)
}

use PathVerdict::{Allow, Deny, NotRoot};

#[test]
fn a_path_is_a_place_on_its_file_system() {
    assert_eq!(rules(&machine(), &["/srv/x"], &[]), [is(SDA, "/srv/x/", Deny)]);
    assert_eq!(
        rules(&machine(), &["/run/x"], &[]),
        [is(TMP, "/x/", Deny), is(SDA, "/run/", Allow)]
    );
    assert_eq!(rules(&machine(), &["/run"], &[]), [is(TMP, "/", Deny), is(SDA, "/run/", Allow)]);
    // Not below it, though it begins alike.
    assert_eq!(rules(&machine(), &["/runs"], &[]), [is(SDA, "/runs/", Deny)]);
}

#[test]
fn what_is_mounted_below_is_out_of_reach_too() {
    let all = rules(&machine(), &["/"], &[]);
    assert_eq!(all, [is(TMP, "/", NotRoot), is(SDA, "/", Deny), is(8 << 20 | 2, "/", NotRoot)],);
    let more = mounts(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
         30 22 0:50 / /srv/x/merged rw - overlay overlay rw\n\
         31 22 8:1 /home/data /srv/x/data rw - ext4 /dev/sda1 rw\n\
         32 22 8:1 /srv/x/self /srv/x/self rw - ext4 /dev/sda1 rw\n\
         33 22 0:4 net:[4026532000] /srv/x/ns rw - nsfs nsfs rw\n\
         34 22 0:60 / /srv/xy rw - tmpfs tmpfs rw\n",
    );
    assert_eq!(
        rules(&more, &["/srv/x"], &[]),
        [
            is(4, "/", NotRoot),
            is(OVERLAY, "/", NotRoot),
            is(SDA, "/home/data/", Deny),
            is(SDA, "/srv/x/", Deny),
        ]
    );
}

#[test]
fn a_bind_mount_is_a_part_of_its_file_system() {
    let bound = mounts(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
         30 22 8:1 /data/a /mnt rw - ext4 /dev/sda1 rw\n\
         31 30 8:1 /gone//deleted /mnt/gone rw - ext4 /dev/sda1 rw\n",
    );
    assert_eq!(
        rules(&bound, &["/mnt/x"], &[]),
        [is(SDA, "/data/a/x/", Deny), is(SDA, "/mnt/", Allow)]
    );
    assert_eq!(
        rules(&bound, &["/mnt/gone"], &[]),
        [is(SDA, "/data/a/gone/", Allow), is(SDA, "/gone/", Deny), is(SDA, "/mnt/", Allow)]
    );
}

#[test]
fn what_is_on_top_counts() {
    // Two mounts at one place, and one that the second hides.
    let stacked = mounts(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
         30 22 0:30 / /mnt rw - tmpfs tmpfs rw\n\
         31 30 0:31 / /mnt/x rw - tmpfs tmpfs rw\n\
         32 30 0:32 / /mnt rw - tmpfs tmpfs rw\n",
    );
    let found = rules(&stacked, &["/mnt/x/y"], &[]);
    assert!(found.contains(&is(32, "/x/y/", Deny)), "{found:?}");
    assert!(!found.iter().any(|(device, ..)| *device == 31), "{found:?}");
    // An initial file system that is its own parent, below the real one.
    let initial =
        mounts("1 1 0:2 / / rw - rootfs rootfs rw\n22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    assert_eq!(rules(&initial, &["/srv"], &[]), [is(2, "/", Allow), is(SDA, "/srv/", Deny)]);
}

#[test]
fn mounts_that_are_piled_up_take_no_longer_than_others() {
    // As many as the kernel lets a namespace have (`sysctl_mount_max`, fs/namespace.c, 6.12).
    let mut text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
    for id in 2..=100_000 {
        writeln!(text, "{id} {} 0:{id} / /mnt rw - tmpfs tmpfs rw", id - 1).unwrap();
    }
    let started = Instant::now();
    let found = rules(&mounts(&text), &["/mnt/x"], &[]);
    assert!(found.contains(&is(100_000, "/x/", Deny)));
    assert!(started.elapsed() < Duration::from_mins(2), "{:?}", started.elapsed());
}

#[test]
fn links_are_followed_and_kept() {
    let links = [("/var/run", "../run"), ("/srv/a", "/srv/b/./c//"), ("/srv/b", "..")];
    assert_eq!(
        rules(&machine(), &["/var/run/docker.sock"], &links),
        [
            is(TMP, "/docker.sock/", Deny),
            is(SDA, "/run/", Allow),
            is(SDA, "/var/", Allow),
            is(8 << 20 | 2, "/run/", Deny),
        ]
    );
    assert_eq!(
        rules(&machine(), &["/srv/a/x"], &links),
        [is(SDA, "/c/x/", Deny), is(SDA, "/srv/a/", Deny), is(SDA, "/srv/b/", Deny)]
    );
    // A loop ends.
    let found = rules(&machine(), &["/l/x"], &[("/l", "/l")]);
    assert_eq!(found, [is(SDA, "/l/", Deny)]);
}

#[test]
fn hostile_names() {
    let odd = Mounts::parse(
        b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
          30 22 0:30 / /mnt/a\\040b\\011\\012\\134040 rw - tmpfs x rw\n\
          31 22 0:31 /\xff /mnt/\xff rw - tmpfs x rw\n\
          32 22 0:32 /../../x /mnt/c rw - cgroup2 x rw\n\
          33 22 0:33 / /mnt/d//deleted rw - tmpfs x rw\n",
    )
    .unwrap();
    let path = PathRule::new("/mnt/a b\t\n\\040/x").unwrap();
    let found = odd.rules(&[path], |_| None).unwrap().rules;
    assert!(found.contains(&(b"/\x1e\0\0\0/x/".to_vec(), Deny)), "{found:?}");
    let found = odd.rules(&[PathRule::new("/mnt").unwrap()], |_| None).unwrap().rules;
    assert!(found.contains(&(b"/\x1f\0\0\0/\xff/".to_vec(), Deny)), "{found:?}");
    assert!(found.contains(&(b"/\x20\0\0\0/".to_vec(), NotRoot)), "{found:?}");
    for (text, line) in [
        ("22 1 8:1 /\n", 1),
        ("22 1 8:1 / / rw\n\n23 22 8 / /x rw\n", 2),
        ("22 1 8:1 / / rw\nx 22 8:1 / /x rw\n", 2),
        ("22 1 4096:1 / / rw\n", 1),
        ("22 1 8:1048576 / / rw\n", 1),
        ("22 1 8:1 / mnt rw\n", 1),
    ] {
        assert_eq!(Mounts::parse(text.as_bytes()).unwrap_err(), HostError::Line { line }, "{text}");
    }
    let none = Mounts::parse(b"").unwrap().rules(&[PathRule::ROOT], |_| None);
    assert_eq!(none.unwrap_err(), HostError::NoRoot);
}

#[test]
fn what_is_too_long() {
    let longest = PATH_RULE_LEN - HOST_PREFIX - 1;
    let path = |len: usize| PathRule::new(&format!("/{}", "a".repeat(len - 1))).unwrap();
    assert!(machine().rules(&[path(longest)], |_| None).is_ok());
    let error = machine().rules(&[path(longest + 1)], |_| None).unwrap_err();
    assert!(error.to_string().ends_with("is longer than 246 bytes on its file system"), "{error}");
    // What others mount does not keep the rest from being in force.
    let long = "a".repeat(PATH_RULE_LEN);
    let text = format!(
        "22 1 8:1 / / rw - x x rw\n30 22 8:2 /{long} /srv/x rw - x x rw\n31 22 8:3 / /srv/y rw - x x rw\n"
    );
    let found = mounts(&text).rules(&[PathRule::new("/srv").unwrap()], |_| None).unwrap();
    assert_eq!(found.left_out, [PathBuf::from("/srv/x")]);
    assert_eq!(found.rules.len(), 2);
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_much(text in proptest::collection::vec(0..=255_u8, 0..200), path in "(/[a-c.]{1,3}){1,4}") {
        if let (Ok(mounts), Ok(path)) = (Mounts::parse(&text), PathRule::new(&path)) {
            let _ = mounts.rules(&[path], |_| Some(text.clone()));
        }
    }
}
