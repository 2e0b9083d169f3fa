//! Figures as people read them.

use std::fmt::Write as _;

use super::figures::{Figures, without};

/// Operations in the order in which they are shown.
const ROWS: &[(&str, &str)] = &[
    ("open", "open + close"),
    ("open-deep", "… 100 bytes, 15 components"),
    ("open-overlay", "… the same on overlayfs"),
    ("open-write", "open for writing + close"),
    ("first-open", "first open of a file + close"),
    ("first-open-deep", "… 100 bytes, 15 components"),
    ("stat", "stat"),
    ("read", "read 1 byte"),
    ("write", "write 1 byte"),
    ("exec", "fork + exec + wait"),
    ("pipe", "pipe, there and back"),
    ("unix", "unix socket, there and back"),
    ("unix-connect", "unix socket, connect + accept"),
    ("tcp-connect", "TCP connect + accept, loopback"),
    ("udp-connect", "UDP connect"),
    ("mkdir-rmdir", "mkdir + rmdir"),
    ("rename", "rename"),
    ("chown", "chown"),
    ("utimes", "utimensat"),
    ("setgroups", "setgroups"),
    ("kill", "kill, signal 0"),
    ("mount-umount", "mount + umount"),
];

/// A table: its title, and its configurations with theirs. The first one's figures are whole, the others' are what
/// they add to them.
type Table = (&'static str, &'static [(&'static str, &'static str)]);

const TABLES: &[Table] = &[
    (
        "On the host",
        &[
            ("none-host", "no BPF program"),
            ("floor-host", "empty programs where lockc's are"),
            ("lockc-host", "lockc"),
            ("modify-return-host", "… by modifying return values"),
            ("unloaded-host", "lockc unloaded"),
            ("landlock-host", "Landlock, one rule at `/`"),
            ("fanotify-host", "fanotify on another file"),
            ("fapolicyd-host", "fapolicyd"),
        ],
    ),
    (
        "In a container",
        &[
            ("none-contained", "no BPF program"),
            ("lockc-contained", "lockc"),
            ("modify-return-contained", "… by modifying return values"),
            ("audit-contained", "… audit mode"),
            ("rules-100-contained", "… 100 path rules"),
            ("rules-1000-contained", "… 1000"),
            ("rules-10000-contained", "… 10 000 in ten policies"),
            ("apparmor-contained", "AppArmor, as Docker's profile"),
        ],
    ),
];

/// What is before tables that were written, and behind.
pub(super) const BEGIN: &str = "<!-- written by cargo xtask bench --update -->\n";
/// As [`BEGIN`], of how costs grow.
pub(super) const BEGIN_GROWTH: &str = "<!-- written by cargo xtask bench --scale -->\n";
const END: &str = "<!-- up to here -->\n";

/// All tables, with the configurations that were measured.
pub(super) fn all(figures: &Figures) -> String {
    let mut text = format!("Kernel {}.\n", figures.kernel);
    for (title, columns) in TABLES {
        let columns: Vec<_> =
            columns.iter().filter(|(name, _)| figures.instructions.contains_key(*name)).collect();
        let titles: Vec<&str> = columns.iter().map(|(_, title)| *title).collect();
        let _ = writeln!(text, "\n| {title} | {} |", titles.join(" | "));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(columns.len()));
        for (operation, title) in ROWS {
            let cells: Vec<String> =
                columns.iter().map(|(name, _)| cell(figures, name, operation)).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
            }
        }
    }
    text
}

fn cell(figures: &Figures, configuration: &str, operation: &str) -> String {
    if without(configuration) == Some(configuration) {
        let total = figures.get(configuration, operation);
        return total.map(|total| grouped(total, false)).unwrap_or_default();
    }
    figures.added(configuration, operation).map(|it| grouped(it, true)).unwrap_or_default()
}

/// A whole number with its thousands apart.
pub(super) fn grouped(number: f64, signed: bool) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    match (signed && digits != "0", number < 0.0) {
        (true, true) => format!("−{text}"),
        (true, false) => format!("+{text}"),
        (false, _) => text,
    }
}

/// The document with other tables behind `begin`; `None` when it has no place for them.
pub(super) fn replaced(document: &str, begin: &str, tables: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let numbers = [(0.2, true), (-0.4, true), (305.0, true), (-1234.6, true), (1e6, false)];
        let texts = numbers.map(|(number, signed)| grouped(number, signed).replace('\u{a0}', " "));
        assert_eq!(texts, ["0", "0", "+305", "−1 235", "1 000 000"]);
    }

    #[test]
    fn tables_have_what_was_measured() {
        let said = "kernel 6.12.1\nnone-host open 5000.0\nlockc-host open 5300.0\n\
                    none-host stat 900\nlockc-host stat 900\n";
        let text = all(&Figures::parse(said).unwrap()).replace('\u{a0}', " ");
        assert!(
            text.contains("| On the host | no BPF program | lockc |\n|---|--:|--:|\n"),
            "{text}"
        );
        assert!(text.contains("| open + close | 5 000 | +300 |\n| stat | 900 | 0 |\n"), "{text}");
    }

    #[test]
    fn tables_replace_tables() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replaced(&document, BEGIN, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n\n{END}b\n"));
        assert_eq!(replaced(&new, BEGIN, "new\n").unwrap(), new);
        assert_eq!(replaced("a\n", BEGIN, "new\n"), None);
    }
}
