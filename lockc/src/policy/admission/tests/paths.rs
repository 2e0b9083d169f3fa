//! Host paths and sockets of engines.

use super::{
    super::{
        Standard::{Baseline, Restricted},
        evaluate,
    },
    *,
};
use crate::runtime::bundle::Root;

/// Which controls object to a mount: host paths, sockets.
fn objections(standard: Standard, mount: &Mount) -> (bool, bool) {
    let findings = judged(standard, |facts| facts.mounts.push(mount.clone()));
    let objects = |control| findings.iter().any(|finding| finding.control == control);
    let objections = (objects(Control::HostPaths), objects(Control::RuntimeSockets));
    assert_eq!(findings.len(), usize::from(objections.0) + usize::from(objections.1));
    objections
}

#[test]
fn what_belongs_to_the_host() {
    for source in [
        "/",
        "//",
        "/./",
        "/bin",
        "/boot/efi",
        "/dev",
        "/dev/sda",
        "/etc",
        "/etc/shadow",
        "/home",
        "/home/edge",
        "/home/edge/.ssh",
        "/home/edge/.ssh/authorized_keys",
        "/home/edge/.config",
        "/home/edge/.local/share",
        "/lib/modules",
        "/opt",
        "/opt/cni/bin",
        "/proc",
        "/proc/1/root/srv",
        "/root",
        "/root/.local/share",
        "/run",
        "/run/user/1000",
        "/run/systemd/private",
        "/sys",
        "/sys/fs/cgroup",
        "/usr",
        "/usr/local/bin",
        "/var",
        "/var/lib",
        "/var/lib/docker",
        "/var/lib/docker/containers/0a1b",
        "/var/lib/docker/containers/0a1b/hostconfig.json",
        "/var/lib/docker/overlay2/0a1b/merged",
        "/var/lib/docker/volumes",
        "/var/lib/containerd",
        "/var/lib/containers/storage/overlay-containers/0a1b/userdata",
        "/var/lib/containers/storage/overlay-containers/0a1b/userdata/config.json",
        // Where a container can make links.
        "/var/lib/docker/volumes/web/_data/link",
        "/var/lib/docker/volumes/volumes/_data/_data",
        "/var/lib/docker/volumes/containers/_data/hosts",
        "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~empty-dir/cache/mount",
        "/var/lib/docker/containers/0a1b/mounts/shm/link",
        "/var/lib/containers/storage/volumes/web/_data/link",
        "/var/lib/rancher/k3s/storage/pvc-1/link",
        "/var/lib/kubelet",
        "/var/lib/kubelet/pods",
        "/var/lib/kubelet/pods/uid/volumes",
        "/var/lib/kubelet/pki",
        "/var/lib/rancher/k3s/server/token",
        "/var/log",
        "/var/run/secrets",
        "/var/spool",
        "/var/spool/cron/crontabs",
        // What no text tells.
        "",
        ".",
        "rootfs/etc",
        "/srv/..",
        "/srv/../srv/data",
        "/var/lib/docker/volumes/v/_data/../../../containers",
        "/srv\0",
    ] {
        for standard in [Baseline, Restricted] {
            let mount = bind(source, &["rbind", "rw"]);
            assert!(objections(standard, &mount).0, "{standard:?} admits {source:?}");
        }
    }
    let long = format!("/srv/{}", "a".repeat(4096));
    assert!(objections(Baseline, &bind(&long, &[])).0);
}

#[test]
fn ordinary_data() {
    for source in [
        "/srv",
        "/srv/data",
        "/srv/etc",
        "/data/docker.sock.d",
        "/home/edge/stack/data",
        "/home/edge/.config/app",
        "/media/usb",
        "/mnt",
        "/opt/app",
        "/tmp/x",
        "/var/lib/app",
        "/var/lib/docker-data",
        "/var/www",
        "/etcetera",
    ] {
        let mount = bind(source, &["rbind"]);
        assert_eq!(objections(Baseline, &mount), (false, false), "{source}");
        assert_eq!(objections(Restricted, &mount), (true, false), "{source}");
    }
}

#[test]
fn what_engines_and_kubelet_mount() {
    for source in [
        "/var/lib/docker/containers/0a1b/resolv.conf",
        "/var/lib/docker/containers/0a1b/mounts/shm",
        "/var/lib/docker/containers/0a1b/mounts/secrets/token",
        "/var/lib/docker/volumes/web/_data",
        "/var/lib/docker/100000.100000/volumes/web/_data",
        "/var/snap/docker/common/var-lib-docker/volumes/web/_data",
        "/home/edge/.local/share/docker/volumes/web/_data",
        "/var/lib/containers/storage/volumes/web/_data",
        "/run/containers/storage/overlay-containers/0a1b/userdata/hosts",
        "/var/run/containers/storage/overlay-containers/0a1b/userdata/.containerenv",
        "/run/user/1000/containers/overlay-containers/0a1b/userdata/resolv.conf",
        "/home/edge/.local/share/containers/storage/overlay-containers/0a1b/userdata/shm",
        "/root/.local/share/containers/storage/volumes/web/_data",
        "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/0a1b/shm",
        "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/0a1b/resolv.conf",
        "/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/0a1b/hostname",
        "/var/lib/kubelet/pods/uid/etc-hosts",
        "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~secret/token",
        "/var/lib/kubelet/pods/uid/volume-subpaths/config/web/0",
        "/var/lib/kubelet/pods/uid/containers/web/0a1b",
        "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/pvc-1/mount",
        "/var/lib/rancher/k3s/storage/pvc-1",
        "/var/lib/nerdctl/1935db59/volumes/default/web/_data",
    ] {
        for standard in [Baseline, Restricted] {
            assert_eq!(objections(standard, &bind(source, &[])), (false, false), "{source}");
        }
    }
}

#[test]
fn some_things_only_read_only() {
    for (source, restricted) in [
        ("/etc/localtime", true),
        ("/etc/ssl/certs/ca-certificates.crt", true),
        ("/usr/share/zoneinfo", true),
        ("/usr/libexec/docker/docker-init", false),
        ("/usr/libexec/podman/catatonit", false),
    ] {
        for (options, read_only) in [
            (&["ro"][..], true),
            (&["rbind", "rro"], true),
            (&["ro", "rw"], false),
            (&["rw"], false),
            (&[], false),
        ] {
            let mount = bind(source, options);
            assert_eq!(objections(Baseline, &mount).0, !read_only, "{source} {options:?}");
            let objects = !read_only || restricted;
            assert_eq!(objections(Restricted, &mount).0, objects, "{source} {options:?}");
        }
    }
    assert!(objections(Baseline, &bind("/etc/passwd", &["ro"])).0);
}

#[test]
fn binds_are_known_by_type_or_option() {
    for (kind, options, objects) in [
        (Some("bind"), &[][..], true),
        (Some("rbind"), &[], true),
        (None, &["bind"], true),
        (Some("none"), &["rbind"], true),
        (Some("tmpfs"), &["rbind"], true),
        (Some("proc"), &["bind"], true),
        (Some("tmpfs"), &["size=1m"], false),
        (Some("mqueue"), &[], false),
    ] {
        let mount = Mount { kind: kind.map(str::to_owned), ..bind("/etc", options) };
        assert_eq!(objections(Baseline, &mount).0, objects, "{kind:?} {options:?}");
    }
}

#[test]
fn other_file_systems() {
    for (kind, options, expected) in [
        ("ext4", &[][..], Some("mounts of the host: file system of type `ext4`")),
        ("devtmpfs", &[], Some("mounts of the host: file system of type `devtmpfs`")),
        ("", &[], Some("mounts of the host: file system of type ``")),
        ("overlay", &["lowerdir=/srv/a:/srv/b,upperdir=/srv/u", "workdir=/srv/w"], None),
        ("overlay", &["lowerdir=/srv/a:/etc"], Some("mounts of the host: `/etc`")),
        ("overlay", &["lowerdir+=/root"], Some("mounts of the host: `/root`")),
        ("overlay", &["ro,datadir+=/boot"], Some("mounts of the host: `/boot`")),
        ("overlay", &["upperdir=etc"], Some("mounts of the host: `etc`")),
        (
            "overlay",
            &["lowerdir=/et\\c"],
            Some("mounts of the host: file system of type `overlay`"),
        ),
    ] {
        let mount = Mount { kind: Some(kind.into()), ..bind("overlay", options) };
        let found = found(Control::HostPaths, Baseline, |facts| facts.mounts.push(mount));
        assert_eq!(found.as_deref(), expected, "{kind} {options:?}");
    }
}

#[test]
fn root_file_systems() {
    for (path, objects) in [
        ("rootfs", false),
        ("./rootfs", false),
        ("/srv/image", false),
        ("/var/lib/docker/overlay2/0a1b/merged", false),
        ("/var/lib/docker/rootfs/overlayfs/0a1b", false),
        ("/var/lib/containers/storage/overlay/0a1b/merged", false),
        ("/home/edge/.local/share/containers/storage/vfs/dir/0a1b", false),
        ("/run/containerd/io.containerd.runtime.v2.task/moby/0a1b/rootfs", false),
        ("/", true),
        ("/usr", true),
        ("/home", true),
        ("../../..", true),
        ("rootfs\0", true),
        ("/var/lib/docker/overlay2", true),
        ("/var/lib/docker/volumes/web/_data/merged", true),
    ] {
        for standard in [Baseline, Restricted] {
            let findings = judged(standard, |facts| {
                facts.root = Some(Root { path: path.into(), readonly: true });
            });
            let found = findings.iter().any(|finding| finding.control == Control::HostPaths);
            assert_eq!(found, objects, "{path}");
        }
    }
}

#[test]
fn sockets_of_engines() {
    for (source, objects) in [
        ("/var/run/docker.sock", true),
        ("/run//docker.sock", true),
        ("/run/containerd/containerd.sock", true),
        ("/run/containerd", true),
        ("/run/containerd/s/0a1b", true),
        ("/run/k3s", true),
        ("/run/user/1000/podman", true),
        ("/srv/sockets/docker.sock", true),
        ("/var/lib/kubelet", true),
        ("/var/lib/kubelet/device-plugins", true),
        ("/", true),
        ("/run/lock", false),
        ("/run/docker.sock.d", false),
        ("/srv", false),
        ("/var/lib/kubelet/pki", false),
    ] {
        for standard in [Baseline, Restricted] {
            assert_eq!(objections(standard, &bind(source, &["ro"])).1, objects, "{source}");
        }
    }
}

/// A container made a link to `/etc` in a volume, and its user mounts the link.
#[test]
fn where_a_source_leads_is_judged_too() {
    let led = |standard, resolved: &str| {
        let mut mount = bind("/srv/data/x", &["ro"]);
        mount.resolved = Some(resolved.into());
        let admission = admission(standard);
        let mut facts = ordinary();
        facts.mounts.push(mount);
        let findings = evaluate(&facts, &admission);
        findings.iter().map(|finding| finding.control).collect::<Vec<_>>()
    };
    assert_eq!(led(Baseline, "/etc"), [Control::HostPaths]);
    assert_eq!(led(Baseline, "/run/docker.sock"), [Control::HostPaths, Control::RuntimeSockets]);
    assert_eq!(led(Baseline, "/mnt/disk/data/x"), []);
    assert_eq!(led(Restricted, "/mnt/disk/data/x"), [Control::HostPaths], "as without the link");
}

#[test]
fn exceptions_admit_what_is_below_them_and_no_socket() {
    let admits = |allowed: &str, source: &str, control: Control| {
        let mut facts = ordinary();
        facts.mounts.push(bind(source, &[]));
        let mut rules = admission(Restricted);
        rules.host_paths.push(allowed.into());
        evaluate(&facts, &rules).iter().all(|finding| finding.control != control)
    };
    for (allowed, source, admitted) in [
        ("/etc/app", "/etc/app", true),
        ("/etc/app", "/etc/app/x.conf", true),
        ("/etc/app/", "//etc/./app/x.conf", true),
        ("/etc/app", "/etc/application", false),
        ("/etc/app", "/etc", false),
        ("/etc/app", "/etc/app/../shadow", false),
        ("/run/x", "/var/run/x", true),
        ("/var/run/x", "/run/x", true),
        ("/", "/etc", true),
        ("", "/srv", false),
        ("srv", "/srv", false),
    ] {
        assert_eq!(admits(allowed, source, Control::HostPaths), admitted, "{allowed} {source}");
    }
    assert!(!admits("/run/docker.sock", "/run/docker.sock", Control::RuntimeSockets));
}
