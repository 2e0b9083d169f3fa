//! The bill of materials of a binary, in the form of
//! <https://cyclonedx.org/docs/1.5/json/>. cargo-cyclonedx has no way to name the crates of the BPF programs, which are
//! a build dependency, without those that only the build uses.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::runtime::{self, Runtime};
use super::{VERSION, binary, directory, sha256};
use crate::{
    command,
    crates::{self, Crate, Place},
    kernel::Architecture,
    tree::Tree,
};

/// Writes that of the release beside its packages, and gives its path.
pub(super) fn write(tree: &Tree, architecture: Architecture, time: &OsStr) -> Result<PathBuf> {
    let path = directory(tree)?.join(format!("lockc-{VERSION}-{}.cdx.json", architecture.name()));
    let mut date = Command::new("date");
    date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"]).arg(format!("@{}", time.to_string_lossy()));
    let mut document =
        document(&crates::of_binary(tree, architecture)?, &runtime::of(architecture)?);
    document["metadata"]["timestamp"] =
        command::output(&mut date, "asking for the date")?.trim().into();
    document["metadata"]["component"]["hashes"] =
        hash(&sha256(&binary(tree, architecture, "release"))?);
    document["metadata"]["properties"] =
        json!([{ "name": "lockc:target", "value": architecture.target() }]);
    // What is in it is what names it: no two that differ have one number.
    save(&path, &document)?;
    document["serialNumber"] = format!("urn:uuid:{}", uuid(&sha256(&path)?)).into();
    save(&path, &document)?;
    Ok(path)
}

fn save(path: &Path, document: &Value) -> Result<()> {
    let text = format!("{document:#}\n");
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A UUID of version 8 (RFC 9562): its bits are whatever its maker says, here the first ones of a sum.
fn uuid(sum: &str) -> String {
    let digits = |from, to| sum.get(from..to).unwrap_or_default();
    let (a, b, c) = (digits(0, 8), digits(8, 12), digits(13, 16));
    format!("{a}-{b}-8{c}-8{}-{}", digits(17, 20), digits(20, 32))
}

fn document(crates: &[Crate], runtime: &[Runtime]) -> Value {
    let (root, parts): (Vec<_>, Vec<_>) = crates.iter().partition(|it| it.name.name == "lockc");
    let parts = parts.into_iter().map(of_crate);
    // Everything is linked with the same library, which is named once.
    let library = runtime.iter().map(of_runtime);
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": root.into_iter().map(of_crate).next() },
        "components": parts.chain(library).collect::<Vec<_>>(),
        "dependencies": crates.iter().map(dependencies).collect::<Vec<_>>(),
    })
}

fn of_crate(part: &Crate) -> Value {
    let is_program = part.name.name == "lockc";
    let mut component = json!({
        "type": if is_program { "application" } else { "library" },
        "bom-ref": part.purl,
        "name": part.name.name,
        "version": part.name.version,
        // `excluded` are those of which nothing runs where the binary does.
        "scope": if part.place == Place::Linked { "required" } else { "excluded" },
        "licenses": licenses(&part.license),
        "purl": part.purl,
    });
    if let Some(sum) = &part.checksum {
        component["hashes"] = hash(sum);
    }
    if !part.repository.is_empty() {
        component["externalReferences"] = json!([{ "type": "vcs", "url": part.repository }]);
    }
    component
}

fn of_runtime(part: &Runtime) -> Value {
    json!({
        "type": "library",
        // A crate of the daemon may be one of the library's, too.
        "bom-ref": format!("runtime:{}", part.purl),
        "name": part.name.name,
        "version": part.name.version,
        "scope": "required",
        "licenses": licenses(&part.license),
        "purl": part.purl,
    })
}

fn dependencies(part: &Crate) -> Value {
    let mut uses: Vec<_> = part.dependencies.iter().collect();
    uses.sort_unstable();
    json!({ "ref": part.purl, "dependsOn": uses })
}

fn licenses(expression: &str) -> Value {
    json!([{ "expression": expression }])
}

fn hash(sum: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": sum }])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn field<'a>(values: &'a Value, name: &str) -> Vec<&'a str> {
        let values = values.as_array().into_iter().flatten();
        values.filter_map(|value| value[name].as_str()).collect()
    }

    #[test]
    fn everything_has_a_name_a_licence_and_its_place() {
        let crates = crates::of_binary(&Tree::here(), Architecture::X86_64).expect("crates");
        let runtime = runtime::of(Architecture::X86_64).expect("libraries of the toolchain");
        let document = document(&crates, &runtime);
        let components = &document["components"];
        let references: BTreeSet<_> = field(components, "bom-ref").into_iter().collect();
        // All but the program itself, and no two by one name.
        assert_eq!(references.len(), crates.len() - 1 + runtime.len());
        assert_eq!(document["metadata"]["component"]["name"], "lockc");
        for part in crates.iter().filter(|it| it.name.name != "lockc") {
            assert!(references.contains(part.purl.as_str()), "{} is missing", part.purl);
        }
        for component in components.as_array().into_iter().flatten() {
            let license = component["licenses"][0]["expression"].as_str().unwrap_or_default();
            assert!(!license.is_empty() && !license.contains('/'), "{component}");
            assert!(component["purl"].as_str().is_some_and(|it| it.starts_with("pkg:")));
        }
        for uses in document["dependencies"].as_array().into_iter().flatten() {
            for used in uses["dependsOn"].as_array().into_iter().flatten() {
                assert!(references.contains(used.as_str().unwrap_or_default()), "{used}");
            }
        }
        let uses = document["dependencies"].as_array().into_iter().flatten();
        let uses: Vec<_> = uses.collect();
        for part in &crates {
            assert!(uses.iter().any(|it| it["ref"] == part.purl.as_str()), "{}", part.purl);
        }
        let root = uses.iter().find(|it| it["ref"] == document["metadata"]["component"]["bom-ref"]);
        let used = root.map(|it| it["dependsOn"].to_string()).unwrap_or_default();
        assert!(used.contains("pkg:generic/lockc-ebpf@"), "{used}");
    }

    #[test]
    fn numbers_are_uuids() {
        let sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(uuid(sum), "01234567-89ab-8def-8123-456789abcdef");
    }
}
