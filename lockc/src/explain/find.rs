//! Which container is meant.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use super::{Case, Known};
use crate::{
    config::Config,
    runtime::{
        bundle::Bundle,
        caller::{Caller, Ids},
        cmdline::{ContainerId, Dialect, Target},
        engine,
        state::{self, Kept, Listing, State, StateError},
    },
};

/// Most containers whose bundles are read to find one by its name.
const MAX_NAMED: usize = 256;

/// What was asked for. What is not given is found out, or assumed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// A bundle, a `config.json`, or a container's id, the beginning of one, or a name.
    pub what: OsString,
    /// The container's id, for a path that does not name it.
    pub id: Option<String>,
    /// Who executes the runtime.
    pub owner: Option<u32>,
    /// The runtime's name.
    pub runtime: Option<String>,
    /// The only state directory to look in.
    pub root: Option<PathBuf>,
}

/// Why it is not known which container is meant.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is no such path.
    #[error("cannot open {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The directory's name is no id.
    #[error("{} does not tell the container's id; give it with --id", path.display())]
    NoId {
        /// The bundle.
        path: PathBuf,
    },
    /// No runtime keeps such a container.
    #[error(
        "no container has the id or name `{name}`; looked in {}{}; give its bundle (with a `/` in its \
         path), or the runtime's state directory with --root",
        looked.join(", "), listed("; ", troubles)
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The places.
        looked: Vec<String>,
        /// What could not be looked at.
        troubles: Vec<String>,
    },
    /// Several containers may be meant.
    #[error(
        "`{name}` may be any of {}; give more of the id, or one state directory with --root",
        listed("", found)
    )]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their state directories, with their names.
        found: Vec<String>,
    },
    /// The container's state is of no use.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Most items of a list that are shown.
const SHOWN: usize = 8;

fn listed(before: &str, items: &[String]) -> String {
    let Some(shown) = items.get(..items.len().min(SHOWN)).filter(|shown| !shown.is_empty()) else {
        return String::new();
    };
    let more = items.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{before}{}{more}", shown.join(", "))
}

impl Case {
    /// Finds the container that `request` means. Runtimes keep theirs below `run` ([`state::RUN`]).
    pub fn find(request: &Request, config: &Config, run: &Path) -> Result<Self, FindError> {
        let what = request.what.as_bytes();
        if what.contains(&b'/') || what == b"." || what == b".." {
            return Self::of_path(request, config);
        }
        match Self::of_id(request, config, run) {
            Err(FindError::Unknown { .. }) if Path::new(&request.what).exists() => {
                Self::of_path(request, config)
            }
            found => found,
        }
    }

    fn of_path(request: &Request, config: &Config) -> Result<Self, FindError> {
        let path = Path::new(&request.what);
        let failed = |source| FindError::Path { path: path.to_owned(), source };
        let (bundle, config_file) = if fs::metadata(path).map_err(failed)?.is_dir() {
            (fs::canonicalize(path).map_err(failed)?, None)
        } else {
            // The file itself must be none that a link leads to: the gate refuses links.
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            let bundle = fs::canonicalize(above.unwrap_or(Path::new("."))).map_err(failed)?;
            let name = path.file_name().unwrap_or_default();
            let other = (name != "config.json").then(|| bundle.join(name));
            (bundle, other)
        };
        let (id, id_from) = match &request.id {
            Some(id) => (ContainerId::new(id.as_str()), "as given".to_owned()),
            None => {
                (id_of(&bundle), "assumed: the bundle's directory; --id names another".to_owned())
            }
        };
        let id = id.ok_or_else(|| FindError::NoId { path: bundle.clone() })?;
        let owner = match request.owner {
            Some(uid) => Known { value: Uid::from_raw(uid), how: "as given".to_owned() },
            None => Known {
                value: Uid::from_raw(fs::metadata(&bundle).map_err(failed)?.uid()),
                how: "assumed: who owns the bundle; --owner names another".to_owned(),
            },
        };
        let runtime = runtime(request, config, None);
        let target = Target { id, bundle: Some(bundle), config: config_file };
        Ok(Self { target, id_from, owner, runtime, state: None, notes: Vec::new() })
    }

    fn of_id(request: &Request, config: &Config, run: &Path) -> Result<Self, FindError> {
        // Root's containers first, by name too: a user must not come before them by choosing an id.
        let mut listings = Vec::new();
        let mut looked: Vec<String> = Vec::new();
        if let Some(root) = &request.root {
            let failed = |source| FindError::Path { path: root.clone(), source };
            let root = fs::canonicalize(root).map_err(failed)?;
            listings.push(Listing::of_root(&root));
            looked.push(root.display().to_string());
        } else {
            for (patterns, of_root) in [(&state::SYSTEM[..], true), (&state::OF_USERS, false)] {
                let mut listing = state::list(run, patterns);
                looked.extend(patterns.iter().map(|it| run.join(it).display().to_string()));
                for place in config.runtimes.iter().flat_map(|runtime| &runtime.state) {
                    let Listing { mut containers, troubles } = Listing::of_root(Path::new(place));
                    containers.retain(|kept| kept.owner.is_root() == of_root);
                    listing.containers.extend(containers);
                    if of_root {
                        listing.troubles.extend(troubles);
                        looked.push(place.clone());
                    }
                }
                listings.push(listing);
            }
        }
        for (at, listing) in listings.iter().enumerate() {
            for search in [by_id, by_name] {
                let (kept, name) = match &search(listing, &request.what)[..] {
                    [] => continue,
                    [found] => found.clone(),
                    several => return Err(ambiguous(request, several)),
                };
                let mut case = Self::of_state(kept, request, config)?;
                if let Some(name) = name {
                    case.id_from = format!("of the container named `{name}`");
                }
                for other in listings[at + 1..].iter().flat_map(|it| it.named(what(request))) {
                    let dir = other.dir.display();
                    case.notes.push(format!("a user has a container of that id too: {dir}"));
                }
                case.notes.truncate(SHOWN);
                return Ok(case);
            }
        }
        let mut troubles: Vec<String> =
            listings.into_iter().flat_map(|listing| listing.troubles).collect();
        if !troubles.is_empty() && !nix::unistd::geteuid().is_root() {
            troubles.insert(0, "run it as root".to_owned());
        }
        Err(FindError::Unknown { name: escaped(&request.what), looked, troubles })
    }

    fn of_state(kept: &Kept, request: &Request, config: &Config) -> Result<Self, FindError> {
        let State { dialect, bundle, .. } = kept.state()?;
        let owner = match request.owner {
            Some(uid) => Known { value: Uid::from_raw(uid), how: "as given".to_owned() },
            None => Known { value: kept.owner, how: "who owns its state directory".to_owned() },
        };
        Ok(Self {
            target: Target { id: kept.id.clone(), bundle: Some(bundle), config: None },
            id_from: "the name of its state directory".to_owned(),
            owner,
            runtime: runtime(request, config, Some(dialect)),
            state: Some(kept.dir.clone()),
            notes: Vec::new(),
        })
    }
}

fn what(request: &Request) -> &[u8] {
    request.what.as_bytes()
}

fn escaped(text: &OsStr) -> String {
    text.as_bytes().escape_ascii().to_string()
}

/// A container that may be meant, with its name if it was found by that.
type Candidate<'l> = (&'l Kept, Option<String>);

fn ambiguous(request: &Request, several: &[Candidate<'_>]) -> FindError {
    let found = several.iter().map(|(kept, _)| escaped(kept.dir.as_os_str())).collect();
    FindError::Ambiguous { name: escaped(&request.what), found }
}

fn by_id<'l>(listing: &'l Listing, what: &OsStr) -> Vec<Candidate<'l>> {
    listing.named(what.as_bytes()).into_iter().map(|kept| (kept, None)).collect()
}

/// Containers that an engine, or their user, calls so.
fn by_name<'l>(listing: &'l Listing, what: &OsStr) -> Vec<Candidate<'l>> {
    let named = |kept: &'l Kept| {
        let name = name(kept)?;
        (name.as_bytes() == what.as_bytes()).then_some((kept, Some(escaped(what))))
    };
    listing.containers.iter().take(MAX_NAMED).filter_map(named).collect()
}

fn name(kept: &Kept) -> Option<String> {
    let target =
        Target { id: kept.id.clone(), bundle: Some(kept.state().ok()?.bundle), config: None };
    let caller = Caller::standing_in(Ids::of_user(kept.owner)).ok()?;
    let bundle = Bundle::read(&caller, &target).ok()?;
    Some(engine::identify(&bundle, &target, &caller).container?.value)
}

/// The id that a bundle's path names, as engines lay bundles out: `…/ID`, `…/ID/userdata`.
fn id_of(bundle: &Path) -> Option<ContainerId> {
    let name = bundle.file_name()?;
    let named = if name == "userdata" { bundle.parent()?.file_name() } else { None };
    ContainerId::new(named.unwrap_or(name).as_bytes())
}

/// The runtime's name in the configuration.
fn runtime(request: &Request, config: &Config, dialect: Option<Dialect>) -> Known<String> {
    if let Some(name) = &request.runtime {
        return Known { value: name.clone(), how: "as given".to_owned() };
    }
    let names = || config.runtimes.iter().map(|runtime| runtime.name.as_str());
    let of_state = dialect.and_then(|it| names().find(|name| Dialect::of(name) == it));
    match of_state {
        Some(name) => {
            Known { value: name.to_owned(), how: "whose state it is, by its form".into() }
        }
        None => Known {
            value: names().next().unwrap_or("runc").to_owned(),
            how: "assumed: the first that is configured; --runtime names another".to_owned(),
        },
    }
}
