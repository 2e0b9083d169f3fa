use std::path::PathBuf;

use proptest::prelude::*;

use super::{CmdlineError, ContainerId, Dialect, Invocation, Target, Verb, parse};

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').filter(|w| !w.is_empty()).map(|w| w.replace('␣', "").into()).collect()
}

fn read(dialect: Dialect, line: &str) -> Result<Invocation, CmdlineError> {
    parse(dialect, &words(line), false)
}

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

fn target(id: &str, bundle: Option<&str>) -> Target {
    Target { id: self::id(id), bundle: bundle.map(PathBuf::from), config: None }
}

fn create(id: &str, bundle: Option<&str>) -> Verb {
    Verb::Create(target(id, bundle))
}

fn run(id: &str, bundle: Option<&str>) -> Verb {
    Verb::Run(target(id, bundle))
}

use Dialect::{Crun, Runc, Unknown, Youki};

/// Lines that are understood: dialects, line, root, command.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn understood() {
    let exec = |name| Verb::Exec(id(name));
    let all = &[Runc, Crun, Youki, Unknown][..];
    let table: &[(&[Dialect], &str, Option<&str>, Verb)] = &[
        // What the engines type: containerd's shim, Docker, podman's conmon, CRI-O, by hand.
        (
            all,
            "runc --root /run/containerd/runc/k8s.io --log /l/log.json --log-format json create --bundle /b --pid-file /b/init.pid abc",
            Some("/run/containerd/runc/k8s.io"),
            create("abc", Some("/b")),
        ),
        (
            &[Runc, Crun, Unknown],
            "/usr/bin/crun --systemd-cgroup create --bundle /b/userdata --pid-file /b/p --console-socket /s abc",
            None,
            create("abc", Some("/b/userdata")),
        ),
        (all, "runc create c", None, create("c", None)),
        (all, "runc run c", None, run("c", None)),
        (all, "runc run -d -b /b c", None, run("c", Some("/b"))),
        (all, "runc run --bundle=/b c", None, run("c", Some("/b"))),
        (all, "runc run --bundle=/b=/c c", None, run("c", Some("/b=/c"))),
        (all, "runc --root=/r run c", Some("/r"), run("c", None)),
        (all, "runc run -- c", None, run("c", None)),
        (
            all,
            "runc create --preserve-fds 1 --no-pivot --no-new-keyring c",
            None,
            create("c", None),
        ),
        (all, "runc create delete", None, create("delete", None)),
        (all, "runc create init", None, create("init", None)),
        (all, "runc create --bundle create create", None, create("create", Some("create"))),
        (all, "runc --log create run --pid-file create create", None, run("create", None)),
        // Values that look like commands, options or nothing.
        (&[Runc], "runc create --pid-file --bundle c", None, create("c", None)),
        (&[Crun], "crun create --pid-file --bundle c", None, create("c", None)),
        (&[Runc], "runc create --bundle= c", None, create("c", None)),
        (&[Runc], "runc create --bundle ␣ c", None, create("c", None)),
        // One dash, long names.
        (&[Runc], "runc -root /r create -bundle /b c", Some("/r"), create("c", Some("/b"))),
        (&[Runc], "runc -debug=false create -b=/b -no-pivot=1 c", None, create("c", Some("/b"))),
        // The last one counts.
        (&[Runc, Crun], "runc run -b /a --bundle /b c", None, run("c", Some("/b"))),
        // Options after the id.
        (&[Runc, Youki, Unknown], "runc create c --bundle /b", None, create("c", Some("/b"))),
        (&[Runc, Youki, Unknown], "runc create c -b /b --no-pivot", None, create("c", Some("/b"))),
        (&[Runc], "runc create --no-pivot c -b /b", None, create("c", Some("/b"))),
        (&[Runc], "runc create --root /r c", Some("/r"), create("c", None)),
        (&[Youki], "youki create c --bundle /b -- ", None, create("c", Some("/b"))),
        // Attached values and clusters.
        (&[Crun, Youki, Unknown], "crun run -b/b c", None, run("c", Some("/b"))),
        (&[Crun, Youki, Unknown], "crun run -db /b c", None, run("c", Some("/b"))),
        (&[Crun, Youki, Unknown], "crun run -db/b c", None, run("c", Some("/b"))),
        (&[Crun], "crun run -b=/b c", None, run("c", Some("=/b"))),
        (&[Youki], "youki run -b=/b c", None, run("c", Some("/b"))),
        (&[Youki], "youki -r /r -s run c", Some("/r"), run("c", None)),
        // Abbreviations.
        (
            &[Crun],
            "crun --root=/r --cgroup disabled run --bun /b c",
            Some("/r"),
            run("c", Some("/b")),
        ),
        (&[Crun], "crun --systemd run --d --b=/b c", None, run("c", Some("/b"))),
        (&[Crun], "crun --rootless=true --root /r run c", Some("/r"), run("c", None)),
        // exec: the first operand is the id, what follows belongs to the container.
        (all, "runc exec c sh -c delete", None, exec("c")),
        (all, "runc exec c delete c", None, exec("c")),
        (all, "runc exec delete create --bundle /b", None, exec("delete")),
        (all, "runc exec --cwd / -u 0:0 -e A=b --env C=d -t c create", None, exec("c")),
        (all, "runc exec --process /p.json --detach --pid-file /p c", None, exec("c")),
        (
            all,
            "runc exec --cap CAP_KILL --apparmor a --process-label l --cgroup g c x",
            None,
            exec("c"),
        ),
        (&[Runc, Youki], "runc exec --additional-gids 1 -g 2 --ignore-paused c x", None, exec("c")),
        (&[Crun], "crun exec --tty=false -tno -epid=1 c x", None, exec("c")),
        (&[Runc, Crun], "runc exec -c CAP_KILL c x", None, exec("c")),
        (all, "runc exec -- c --bundle", None, exec("c")),
        // The rest.
        (&[Runc, Crun, Unknown], "runc start c", None, Verb::Start(id("c"))),
        (all, "runc --root /r delete --force c", Some("/r"), Verb::Delete(id("c"))),
        (&[Runc, Youki], "runc delete c -f", None, Verb::Delete(id("c"))),
        (&[Crun], "crun delete --regex c.*", None, Verb::Other),
        (
            &[Runc, Crun, Unknown],
            "runc restore --image-path /i --work-path /w -d --bundle /b c",
            None,
            Verb::Restore(target("c", Some("/b"))),
        ),
        (
            all,
            "runc checkpoint --image-path /i --work-path /w --leave-running c",
            None,
            Verb::Checkpoint(id("c")),
        ),
        (&[Runc, Unknown], "runc init", None, Verb::Init),
        (&[Runc, Unknown], "/proc/self/exe init c", None, Verb::Init),
        (&[Runc], "runc --debug init", None, Verb::Other),
        (all, "runc --version", None, Verb::Other),
        (all, "runc --version create c", None, Verb::Other),
        (&[Runc], "runc --version=false create c", None, create("c", None)),
        (&[Runc], "runc create --help --help=0 c", None, create("c", None)),
        (all, "runc create --help", None, Verb::Other),
        (all, "runc run c --help", None, Verb::Other),
        (all, "runc features", None, Verb::Other),
        (all, "runc spec --bundle /b", None, Verb::Other),
        (all, "runc --root /r list", Some("/r"), Verb::Other),
        (all, "runc kill --all c 9", None, Verb::Other),
        (all, "runc state create", None, Verb::Other),
        (&[Crun], "crun mounts add c /m.json", None, Verb::Other),
        (all, "runc", None, Verb::Other),
    ];
    for (dialects, line, root, verb) in table {
        for &dialect in *dialects {
            // crun takes no option after the id; youki has no short name for some.
            if matches!((dialect, *line), (Crun, "runc run c --help")) {
                assert!(read(dialect, line).is_err(), "{line}");
                continue;
            }
            let expected = Invocation { root: root.map(PathBuf::from), verb: verb.clone() };
            assert_eq!(read(dialect, line), Ok(expected), "{dialect:?}: {line}");
        }
    }
}

/// Lines that are refused by every dialect named.
#[test]
fn refused() {
    let all = &[Runc, Crun, Youki, Unknown][..];
    let table: &[(&[Dialect], &str)] = &[
        (all, "runc create"),
        (all, "runc create a b"),
        (all, "runc create --bundle"),
        (all, "runc create --bundle /b"),
        (all, "runc create --unheard-of c"),
        (all, "runc create --unheard-of=/x c"),
        (all, "runc --unheard-of create c"),
        (all, "runc creat c"),
        (all, "runc recreate c"),
        (all, "runc exec"),
        (all, "runc create a/b"),
        (all, "runc create ␣"),
        (all, "runc - create c"),
        (&[Runc], "runc create -b/b c"),
        (&[Runc], "runc create a:b"),
        (&[Runc], "runc create --no-pivot=maybe c"),
        (&[Runc], "runc create ---bundle=/b c"),
        (&[Runc], "runc create --=x c"),
        (&[Runc], "runc create --config relative.json c"),
        (&[Crun], "crun create c --bundle /b"),
        (&[Crun], "crun create --n c"),
        (&[Crun], "crun create --bundle= c"),
        (&[Crun], "crun init"),
        (&[Crun], "crun --debug=1 create c"),
        (&[Youki], "youki create --bundle --no-pivot c"),
        (&[Youki], "youki run -b /a --bundle /b c"),
        (&[Youki], "youki create --bun /b c"),
        (&[Youki], "youki create --no-pivot=true c"),
        // What one runtime takes for the id is another's value: nobody knows which.
        (&[Unknown], "x run -b=/b c"),
    ];
    for (dialects, line) in table {
        for &dialect in *dialects {
            assert!(read(dialect, line).is_err(), "{dialect:?}: {line}: {:?}", read(dialect, line));
        }
    }
    assert_eq!(parse(Runc, &[], false), Err(CmdlineError::Empty));
    assert_eq!(read(Unknown, "x run -b=/b c"), Err(CmdlineError::Ambiguous));
}

#[test]
fn config_is_kept_unless_it_is_the_default() {
    let with = |config: Option<&str>| {
        let config = config.map(PathBuf::from);
        Verb::Create(Target { config, ..target("c", Some("/b")) })
    };
    let verb = |dialect, line| read(dialect, line).unwrap().verb;
    assert_eq!(verb(Crun, "crun create -b /b -f x.json c"), with(Some("x.json")));
    assert_eq!(verb(Crun, "crun create -b /b --config=/x.json c"), with(Some("/x.json")));
    assert_eq!(verb(Crun, "crun create -b /b -fconfig.json c"), with(None));
    assert_eq!(verb(Crun, "crun create -b /b -f ./config.json c"), with(Some("./config.json")));
    assert_eq!(verb(Runc, "runc create -b /b --config /x.json c"), with(Some("/x.json")));
}

#[test]
fn a_cut_list_is_an_error_unless_the_rest_cannot_matter() {
    let cut = |dialect, line: &str| parse(dialect, &words(line), true);
    assert_eq!(cut(Runc, "runc exec c sh -c").unwrap().verb, Verb::Exec(id("c")));
    assert_eq!(cut(Unknown, "runc exec c sh -c").unwrap().verb, Verb::Exec(id("c")));
    assert_eq!(cut(Runc, "runc list").unwrap().verb, Verb::Other);
    for line in ["runc", "runc create", "runc create c", "runc run -b /b c", "runc exec -t"] {
        for dialect in [Runc, Crun, Youki, Unknown] {
            assert!(cut(dialect, line).is_err(), "{dialect:?}: {line}");
        }
    }
}

#[test]
fn ids_of_any_length() {
    for length in [1, 64, 76, 1024, 4096] {
        let long = "a".repeat(length);
        let invocation = read(Runc, &format!("runc create {long}")).unwrap();
        assert_eq!(invocation.verb, create(&long, None));
    }
}

#[test]
fn dialects_by_name() {
    assert_eq!(Dialect::of("runc"), Runc);
    assert_eq!(Dialect::of("krun"), Crun);
    assert_eq!(Dialect::of("crun-wasm"), Crun);
    assert_eq!(Dialect::of("youki"), Youki);
    assert_eq!(Dialect::of("nvidia-container-runtime"), Unknown);
}

#[test]
fn messages_show_bytes_escaped() {
    let error = parse(Runc, &[b"runc".into(), b"\xff\n".into()], false).unwrap_err();
    assert_eq!(error.to_string(), r"unknown command `\xff\n`");
    let error = parse(Crun, &[b"crun".into(), vec![b'x'; 200]], false).unwrap_err();
    assert_eq!(error.to_string(), format!("unknown command `{}…`", "x".repeat(128)));
}

/// Options of `create` that all runtimes know, each with its value.
fn options() -> impl Strategy<Value = Vec<Vec<String>>> {
    let value = "(/[a-z]{1,8}|create|delete|init|[a-z]{1,4})";
    let spelled = move |long: &'static str, short: Option<&'static str>| {
        (value, 0..3u8).prop_map(move |(value, form)| match (form, short) {
            (0, Some(short)) => vec![short.to_owned(), value],
            (1, _) => vec![format!("{long}={value}")],
            _ => vec![long.to_owned(), value],
        })
    };
    let other = prop_oneof![
        spelled("--pid-file", None),
        spelled("--console-socket", None),
        Just(vec!["--preserve-fds".to_owned(), "3".to_owned()]),
        Just(vec!["--no-pivot".to_owned()]),
        Just(vec!["--no-new-keyring".to_owned()]),
    ];
    (spelled("--bundle", Some("-b")), prop::collection::vec(other, 0..6))
        .prop_map(|(bundle, mut others)| {
            others.push(bundle);
            others
        })
        .prop_shuffle()
}

fn value_of(option: &[String]) -> String {
    match option {
        [_, value] => value.clone(),
        [joined] => joined.split_once('=').unwrap().1.to_owned(),
        _ => unreachable!(),
    }
}

proptest! {
    #[test]
    fn order_and_spelling_do_not_matter(options in options(), name in "[a-z]{1,12}", run: bool) {
        let bundle = options
            .iter()
            .find(|option| option[0].starts_with("--bundle") || option[0].starts_with("-b"))
            .map(|option| value_of(option))
            .unwrap();
        let verb = if run { "run" } else { "create" };
        let mut line = vec!["x".to_owned(), "--root".to_owned(), "/r".to_owned(), verb.to_owned()];
        line.extend(options.iter().flatten().cloned());
        line.push(name.clone());
        let words: Vec<Vec<u8>> = line.iter().map(|w| w.clone().into()).collect();
        let target = target(&name, Some(&bundle));
        let verb = if run { Verb::Run(target) } else { Verb::Create(target) };
        let expected = Ok(Invocation { root: Some("/r".into()), verb });
        for dialect in [Runc, Crun, Youki, Unknown] {
            prop_assert_eq!(&parse(dialect, &words, false), &expected, "{:?} {:?}", dialect, line);
        }
    }

    #[test]
    fn the_containers_own_words_do_not_matter(
        tail in prop::collection::vec("(--?[a-z]{0,8}(=[a-z]{1,3})?|create|delete|run|init|[a-z]{1,5})", 0..8),
    ) {
        let mut line = vec!["x".to_owned(), "exec".to_owned(), "-t".to_owned(), "c".to_owned()];
        line.extend(tail);
        let words: Vec<Vec<u8>> = line.iter().map(|w| w.clone().into()).collect();
        for dialect in [Runc, Crun, Youki, Unknown] {
            prop_assert_eq!(parse(dialect, &words, false).unwrap().verb, Verb::Exec(id("c")));
        }
    }

    /// Whatever is said, a line that a runtime would take for `create` is not
    /// taken for something else without its id.
    #[test]
    fn never_panics(
        words in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..6),
                "(--?(bundle|b|root|help|version|config|f|x)?(=.{0,2})?|create|run|exec|init|--|-|c)"
                    .prop_map(String::into_bytes),
            ],
            0..10,
        ),
        cut: bool,
    ) {
        for dialect in [Runc, Crun, Youki, Unknown] {
            if let Ok(Invocation { verb: Verb::Create(target) | Verb::Run(target), .. }) =
                parse(dialect, &words, cut)
            {
                prop_assert!(!cut);
                let id = target.id.as_bytes();
                prop_assert!(words.iter().any(|word| word == id || word.trim_ascii() == id));
            }
        }
    }
}
