#!/usr/bin/env python3
"""Writes the bundles of kubelet's containers (*.modelled.json) here: see README.md."""

import copy
import json
import pathlib

HERE = pathlib.Path(__file__).parent
REAL = json.loads((HERE / "ctr/seccomp.json").read_text())
ALL = json.loads((HERE / "docker/privileged.json").read_text())["process"]["capabilities"]["bounding"]
DEFAULT = REAL["process"]["capabilities"]["bounding"]

UID = "0b5b6f5e-3c1c-4a8e-9a7b-1d2f3e4a5b6c"
SANDBOX = "5f2c" * 16
CONTAINER = "9a1d" * 16
SLICE = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"
CRI = f"io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}"
STATE = f"/run/k3s/containerd/{CRI}"
DATA = f"/var/lib/rancher/k3s/agent/containerd/{CRI}"


def bind(source, destination, *options):
    return {"destination": destination, "type": "bind", "source": source,
            "options": ["rbind", "rprivate", *options]}


def pod(*parts):
    return "/".join(["/var/lib/kubelet/pods", UID, *parts])


def virtual():
    no = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": no},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": no},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*no, "ro"]},
    ]


def rules():
    character = [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 1), (5, 2)]
    return [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
        *({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
          for major, minor in character),
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    ]


def bundle(kind, name, namespaces, capabilities, user, seccomp, no_new_privileges, mounts):
    process = {
        "user": {"uid": user, "gid": user, "additionalGids": [user]},
        "args": ["/pause"] if kind == "sandbox" else [f"/{name}"],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "capabilities": {key: capabilities for key in ("bounding", "effective", "permitted")}
        if capabilities else {},
    }
    if no_new_privileges:
        process["noNewPrivileges"] = True
    linux = {
        "cgroupsPath": f"{SLICE}:cri-containerd:{SANDBOX if kind == 'sandbox' else CONTAINER}",
        "namespaces": namespaces,
        "resources": {"devices": rules()[: 1 if kind == "sandbox" else None], "cpu": {"shares": 102}},
        "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
                        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                        "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                        "/sys/devices/virtual/powercap"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
    if seccomp:
        linux["seccomp"] = REAL["linux"]["seccomp"]
    annotations = {
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.sandbox-id": SANDBOX,
        "io.kubernetes.cri.sandbox-name": f"{name}-7d",
        "io.kubernetes.cri.sandbox-namespace": "kube-system",
        "io.kubernetes.cri.sandbox-uid": UID,
    }
    if kind == "sandbox":
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0",
                           "net.ipv4.ping_group_range": "0 2147483647"}
        mounts = [bind(f"{STATE}/shm", "/dev/shm", "ro"),
                  bind(f"{DATA}/resolv.conf", "/etc/resolv.conf", "ro")]
    else:
        process["apparmorProfile"] = "cri-containerd.apparmor.d"
        annotations["io.kubernetes.cri.container-name"] = name
        annotations["io.kubernetes.cri.image-name"] = f"registry.example/{name}:1"
        token = pod("volumes", "kubernetes.io~projected", "kube-api-access-x7q2d")
        mounts = [
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            *mounts,
            bind(token, "/var/run/secrets/kubernetes.io/serviceaccount", "ro"),
            bind(pod("etc-hosts"), "/etc/hosts", "rw"),
            bind(pod("containers", name, "1f2e3d4c"), "/dev/termination-log", "rw"),
            bind(f"{DATA}/hostname", "/etc/hostname", "rw"),
            bind(f"{DATA}/resolv.conf", "/etc/resolv.conf", "rw"),
            bind(f"{STATE}/shm", "/dev/shm", "rw"),
        ]
    return {"ociVersion": "1.2.0", "process": process, "root": {"path": "rootfs", "readonly": True},
            "mounts": virtual() + mounts, "annotations": annotations, "linux": linux}


def of_sandbox():
    join = {"ipc": "ipc", "uts": "uts", "network": "net"}
    joined = [{"type": kind, "path": f"/proc/2711/ns/{file}"} for kind, file in join.items()]
    return [{"type": "pid"}, {"type": "mount"}, {"type": "cgroup"}, *joined]


def new():
    network = "/var/run/netns/cni-6a0ccd62-9bd1-33f2-7c06-3ba6fa2bd6c1"
    return [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")] + [
        {"type": "network", "path": network}]


def sandbox(name, namespaces):
    return bundle("sandbox", name, namespaces, DEFAULT, 65535, True, True, [])


def container(name, capabilities=DEFAULT, user=0, seccomp=False, no_new_privileges=False, mounts=()):
    return bundle("container", name, of_sandbox(), capabilities, user, seccomp, no_new_privileges,
                  list(mounts))


def privileged(it):
    it["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    it["linux"]["maskedPaths"] = it["linux"]["readonlyPaths"] = []
    del it["process"]["apparmorProfile"]
    for mount in it["mounts"]:
        if mount["type"] in ("sysfs", "cgroup"):
            mount["options"] = [option for option in mount["options"] if option != "ro"]
    return it


def crio(it, label="system_u:system_r:container_t:s0:c123,c456"):
    it = copy.deepcopy(it)
    kind = it["annotations"]["io.kubernetes.cri.container-type"]
    data = f"/var/run/containers/storage/overlay-containers/{SANDBOX}/userdata"
    for mount in it["mounts"]:
        if CRI in mount["source"]:
            mount["source"] = f"{data}/{mount['source'].rsplit('/')[-1]}"
    if kind == "container":
        it["mounts"].append(bind(f"{data}/.containerenv", "/run/.containerenv", "rw"))
        del it["process"]["apparmorProfile"]
    it["annotations"] = {"io.kubernetes.cri-o.ContainerType": kind,
                         "io.kubernetes.cri-o.SandboxID": SANDBOX,
                         "io.kubernetes.cri-o.Namespace": "default", "io.kubernetes.pod.uid": UID}
    it["root"] = {"path": f"/var/lib/containers/storage/overlay/{'77ab' * 16}/merged"}
    it["linux"]["cgroupsPath"] = f"{SLICE}:crio:{CONTAINER}"
    it["linux"]["resources"]["devices"] = rules()[:1]
    pinned = {"ipc": "ipcns", "uts": "utsns", "network": "netns"}
    for namespace in it["linux"]["namespaces"]:
        if namespace["type"] in pinned:
            directory = pinned[namespace["type"]]
            namespace["path"] = f"/var/run/{directory}/7c2a4f6e-8d2b-4b3a-9d57-2f6f0f1f4d11"
    it["process"]["selinuxLabel"] = label
    return it


def config_map(name, destination):
    return bind(pod("volumes", "kubernetes.io~configmap", name), destination, "ro")


web = container("web", mounts=[
    bind("/var/lib/rancher/k3s/storage/pvc-3f1b6f0e_default_data", "/data", "rw"),
    bind(pod("volume-subpaths", "config", "web", "0"), "/etc/nginx/conf.d/x.conf", "ro"),
])
BUNDLES = {
    "cri-containerd/k3s-sandbox": sandbox("coredns", new()),
    "cri-containerd/k3s-sandbox-host-network":
        sandbox("exporter", [entry for entry in new() if entry["type"] != "network"]),
    "cri-containerd/k3s-coredns":
        container("coredns", ["CAP_NET_BIND_SERVICE"], no_new_privileges=True,
                  mounts=[config_map("config-volume", "/etc/coredns")]),
    "cri-containerd/k3s-metrics-server":
        container("metrics-server", [], 1000, True, True,
                  [bind(pod("volumes", "kubernetes.io~empty-dir", "tmp-dir"), "/tmp", "rw")]),
    "cri-containerd/k3s-web": web,
    "cri-containerd/k3s-svclb": container("lb-tcp-80", ["CAP_NET_ADMIN"]),
    "cri-containerd/k3s-host-path":
        container("agent", mounts=[
            bind("/", "/host", "ro"),
            bind("/run/k3s/containerd/containerd.sock", "/run/containerd/containerd.sock", "rw")]),
    "cri-containerd/k3s-privileged":
        privileged(container("kube-proxy", ALL, mounts=[bind("/lib/modules", "/lib/modules", "ro")])),
    "cri-o/web": crio(web),
    "cri-o/sandbox": crio(sandbox("web", new())),
    "cri-o/spc": crio(web, "system_u:system_r:spc_t:s0"),
}
for path, content in BUNDLES.items():
    file = HERE / f"{path}.modelled.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, separators=(",", ":")))
