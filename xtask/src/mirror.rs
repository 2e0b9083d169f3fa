//! Finds the Debian mirror that this machine's own apt uses. No host name
//! stands in this tree: whoever runs the guests has a mirror they trust.

use std::{env, fs, path::Path};

use anyhow::{Result, bail};

/// Names a Debian archive when the machine's own apt sources have none (Ubuntu).
pub(crate) const VARIABLE: &str = "LOCKC_DEBIAN_MIRROR";

const SUITES: [&str; 9] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// The URI of the Debian archive: the environment's, else the one in apt's sources.
pub(crate) fn debian() -> Result<String> {
    if let Ok(uri) = env::var(VARIABLE)
        && !uri.is_empty()
    {
        return Ok(uri.trim_end_matches('/').to_owned());
    }
    let mut sources = one_line(&fs::read_to_string("/etc/apt/sources.list").unwrap_or_default());
    for path in parts(Path::new("/etc/apt/sources.list.d")) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        sources.extend(if path.extension().is_some_and(|it| it == "sources") {
            deb822(&text)
        } else {
            one_line(&text)
        });
    }
    match choose(&sources) {
        Some(uri) => Ok(uri),
        None => bail!(
            "no Debian archive in this machine's apt sources; \
             set {VARIABLE} to the URI of one (the directory that holds `dists` and `pool`)"
        ),
    }
}

fn parts(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "sources" || it == "list"))
        .collect();
    paths.sort();
    paths
}

/// One archive line: what `deb URI SUITE… COMPONENT…` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

/// The archive that has Debian's own suites in `main`, signed by Debian's keys.
/// Others call their suites `bookworm` too, so a path that ends in `debian` (or
/// a mirror list) is preferred.
fn choose(sources: &[Source]) -> Option<String> {
    let debian = |source: &&Source| {
        source.suites.iter().any(|suite| SUITES.contains(&suite.as_str()))
            && source.components.iter().any(|it| it == "main")
            && (source.signed_by.is_empty() || source.signed_by.contains("debian-archive"))
    };
    let candidates: Vec<_> = sources.iter().filter(debian).collect();
    let usual = |source: &&&Source| {
        source.uri.starts_with("mirror") || source.uri.trim_end_matches('/').ends_with("/debian")
    };
    let best = candidates.iter().find(usual).or_else(|| candidates.first())?;
    Some(best.uri.trim_end_matches('/').to_owned())
}

/// `deb [signed-by=…] URI SUITE COMPONENT…`, see sources.list(5).
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("deb")?;
            if !rest.starts_with([' ', '\t']) {
                return None;
            }
            let rest = rest.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let mut words = rest.split('#').next().unwrap_or_default().split_whitespace();
            Some(Source {
                uri: words.next()?.to_owned(),
                suites: vec![words.next()?.to_owned()],
                components: words.map(str::to_owned).collect(),
                signed_by: options
                    .split_whitespace()
                    .find_map(|option| option.strip_prefix("signed-by="))
                    .unwrap_or_default()
                    .to_owned(),
            })
        })
        .collect()
}

/// The deb822 format of `.sources` files.
fn deb822(text: &str) -> Vec<Source> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    text.split("\n\n")
        .flat_map(|stanza| {
            let field = |name: &str| {
                let mut value = String::new();
                let mut inside = false;
                for line in stanza.lines() {
                    if line.starts_with([' ', '\t']) {
                        if inside {
                            value.push(' ');
                            value.push_str(line);
                        }
                    } else if let Some((key, rest)) = line.split_once(':') {
                        inside = key.eq_ignore_ascii_case(name);
                        if inside {
                            value.push_str(rest);
                        }
                    }
                }
                value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            let disabled = field("Enabled").iter().any(|it| it.eq_ignore_ascii_case("no"));
            if disabled || !field("Types").iter().any(|it| it == "deb") {
                return Vec::new();
            }
            field("URIs")
                .into_iter()
                .map(|uri| Source {
                    uri,
                    suites: field("Suites"),
                    components: field("Components"),
                    signed_by: field("Signed-By").join(" "),
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb822_is_read() {
        let sources = deb822(
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\n bookworm-updates\n\
             Components: main\n# a comment\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nEnabled: no\nURIs: http://other.example/debian\nSuites: trixie\nComponents: main\n",
        );
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(choose(&sources).as_deref(), Some("http://mirror.example/debian"));
    }

    #[test]
    fn one_line_is_read() {
        let sources = one_line(
            "# deb http://no.example/debian trixie main\n\
             deb-src http://no.example/debian trixie main\n\
             deb [arch=amd64 signed-by=/k.gpg] https://vendor.example/apt bookworm main\n\
             deb http://mirror.example/debian trixie main contrib # ours\n",
        );
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].signed_by, "/k.gpg");
        assert_eq!(sources[1].components, ["main", "contrib"]);
        assert_eq!(choose(&sources).as_deref(), Some("http://mirror.example/debian"));
    }

    #[test]
    fn foreign_archives_are_not_taken() {
        let ubuntu = one_line("deb http://mirror.example/ubuntu noble main universe\n");
        assert_eq!(choose(&ubuntu), None);
        let vendor = one_line("deb https://vendor.example/debian bookworm stable\n");
        assert_eq!(choose(&vendor), None);
    }
}
