use super::*;

#[test]
fn distances() {
    for (a, b, expected) in [
        ("", "", 0),
        ("", "abc", 3),
        ("policy", "policy", 0),
        ("polcy", "policy", 1),
        ("poilcy", "policy", 1),
        ("log_levle", "log_level", 1),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(a, b), expected, "{a} {b}");
        assert_eq!(distance(b, a), expected, "{b} {a}");
    }
}

#[test]
fn suggestions_are_near() {
    let names = ["policy", "name", "match"];
    assert_eq!(suggest("polcy", names).as_deref(), Some("did you mean `policy`?"));
    assert_eq!(suggest("nmae", names).as_deref(), Some("did you mean `name`?"));
    assert_eq!(suggest("zebra", names), None);
    assert_eq!(suggest(&"x".repeat(100_000), names), None);
}

#[test]
fn places_in_odd_texts() {
    let shown = |text: &str, span: Range<usize>| {
        let source = Source { path: "f".into(), text: text.to_owned() };
        Report::new(&[source], vec![Problem::new(span, "m")]).to_string()
    };
    assert_eq!(shown("", 0..0), "f:1:1: error: m\n  1 | \n    | ^");
    assert_eq!(shown("a\nbc\n", 2..4), "f:2:1: error: m\n  2 | bc\n    | ^^");
    assert_eq!(shown("a\nbc\n", 5..5), "f:3:1: error: m\n  3 | \n    | ^");
    assert_eq!(shown("a\r\nb", 0..4), "f:1:1: error: m\n  1 | a\n    | ^");
    assert_eq!(shown("\tä = 1", 1..3), "f:1:2: error: m\n  1 | \tä = 1\n    | \t^");
    assert_eq!(shown("\u{1b}[31m", 0..1), "f:1:1: error: m\n  1 | \u{fffd}[31m\n    | ^");
    assert_eq!(shown("ä", 1..9), "f:1:1: error: m\n  1 | ä\n    | ^");
    assert_eq!(shown(&"x".repeat(1000), 900..901), "f:1:901: error: m");
}

#[test]
fn places_in_several_files() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
    let sources = [source("a", "x\ny"), source("b", ""), source("c", "zz\n")];
    let report = Report::new(
        &sources,
        vec![
            Problem::new(6..7, "third"),
            Problem::new(3..3, "end of the first").also("see", 5..6),
            Problem::warning(4..4, "second"),
        ],
    );
    assert_eq!(
        report.to_string(),
        "a:2:2: error: end of the first\n  2 | y\n    |  ^\n  see: c:1:1\n\
         b:1:1: warning: second\n  1 | \n    | ^\n\
         c:1:2: error: third\n  1 | zz\n    |  ^"
    );
    assert!(report.is_fatal());
    assert_eq!(report.without_warnings().places().len(), 2);
}

#[test]
fn warnings_do_not_hide_errors() {
    let source = Source { path: "f".into(), text: "x".repeat(1000) };
    let mut problems: Vec<_> = (0..100).map(|at| Problem::warning(at..at, "w")).collect();
    problems.push(Problem::new(500..501, "the mistake"));
    let report = Report::new(&[source], problems);
    assert!(report.to_string().contains("the mistake"));
    assert!(report.to_string().ends_with("f: 37 more problems"));
}
