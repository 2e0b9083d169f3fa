//! Sockets of container engines, told by where the engine has bound them.

#![expect(
    clippy::inline_always,
    reason = "the programs call these on the verifier's terms: within one function"
)]

use crate::interface::Name;

/// What an abstract name is taken for that cannot be read.
pub const SHIM: [u64; 2] = Name::of("/containerd-shim").0;

/// Whether a socket with this name belongs to an engine, to kubelet or to lockc, as does one whose name cannot be read: `parent` is the directory that it is in,
/// `grandparent` the one above; empty where there is none. The same with and without root, and below any
/// directory: `/run/docker.sock`, `/run/k3s/containerd/containerd.sock`, `/run/containerd/s/HASH` of a shim,
/// `/run/user/1000/podman/podman.sock`, `/var/lib/kubelet/pod-resources/kubelet.sock`.
#[inline(always)]
pub fn is_engine_socket(name: Name, parent: Name, grandparent: Name) -> bool {
    name == Name::default()
        || name == const { Name::of("docker.sock") }
        || name == const { Name::of("containerd.sock") }
        || name == const { Name::of("podman.sock") }
        || name == const { Name::of("crio.sock") }
        || name == const { Name::of("cri-dockerd.sock") }
        || name == const { Name::of("dockershim.sock") }
        || name == const { Name::of("buildkitd.sock") }
        || name == const { Name::of("kubelet.sock") }
        || name == const { Name::of("lockc.sock") }
        || is_engine_directory(parent)
        || is_engine_directory(grandparent)
}

#[inline(always)]
fn is_engine_directory(name: Name) -> bool {
    name == const { Name::of("containerd") }
        || name == const { Name::of("crio") }
        || name == const { Name::of("podman") }
        || name == const { Name::of("kubelet") }
}

/// Whether the first 16 bytes of an abstract name are those of a containerd shim's socket (containerd before
/// 1.3.9 and 1.4.3; CVE-2020-15257), with and without the slash.
#[inline(always)]
pub const fn is_shim(bytes: [u64; 2]) -> bool {
    let plain = Name::of("containerd-shim").0;
    (bytes[0] == SHIM[0] && bytes[1] == SHIM[1])
        || (bytes[0] == plain[0] && bytes[1] & 0xff_ffff_ffff_ffff == plain[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_engine(path: &str) -> bool {
        let mut names = path.rsplit('/').map(|name| Name::of(&name[..name.len().min(16)]));
        let mut next = || names.next().unwrap_or_default();
        is_engine_socket(next(), next(), next())
    }

    #[test]
    fn sockets() {
        for path in [
            "/run/docker.sock",
            "/run/lockc/lockc.sock",
            "/run/k3s/containerd/containerd.sock",
            "/run/containerd/containerd.sock.ttrpc",
            "/run/containerd/s/0123456789abcdef",
            "/run/user/1000/podman/podman.sock",
            "/run/podman/podman.sock",
            "/run/crio/crio.sock",
            "/run/cri-dockerd.sock",
            "/var/lib/kubelet/pod-resources/kubelet.sock",
            "/var/lib/kubelet/plugins_registry/x.sock",
        ] {
            assert!(is_engine(path), "{path}");
        }
        for path in [
            "/run/mysqld/mysqld.sock",
            "/run/systemd/journal/dev-log",
            "/tmp/.X11-unix/X0",
            "/run/dbus/system_bus_socket",
            "/srv/docker/app/app.sock",
            "/run/docker.sock2",
            "app.sock",
        ] {
            assert!(!is_engine(path), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_engines() {
        let app = Name::of("app");
        assert!(is_engine_socket(Name::default(), app, app) && is_shim(SHIM));
        assert!(!is_engine_socket(app, Name::default(), Name::default()));
    }

    #[test]
    fn shims() {
        let word = |text: &[u8]| {
            let half = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&text[at..at + 8]);
                u64::from_ne_bytes(word)
            };
            [half(0), half(8)]
        };
        assert!(is_shim(word(b"/containerd-shim")) && is_shim(word(b"containerd-shim/")));
        assert!(!is_shim(word(b"/containerd-shi/")) && !is_shim(word(b"/tmp/.X11-unix/X")));
    }
}
