//! Policies of the tests' own, which their configuration has besides the built-in ones.

/// Name and table of each; a container gets one by its annotation.
pub(crate) const OWN: &[(&str, &str)] = &[
    (
        "deny-addresses",
        "extends = \"baseline\"\n\
         network.deny = [\"127.7.0.0/16\", \"127.0.0.0/8:7001\", \"::1\"]\n\
         network.allow = [\"127.7.7.7:7000\"]\n",
    ),
    (
        "allow-addresses",
        "extends = \"baseline\"\n\
         network.default = \"deny\"\n\
         network.allow = [\"127.0.0.1:7000\", \"0.0.0.0:7200\", \"127.6.0.0/16\"]\n",
    ),
    ("deny-programs", "extends = \"baseline\"\nexec.deny = [\"/srv/tools\"]\n"),
    (
        "allow-programs",
        "extends = \"baseline\"\n\
         exec.allow = [\"/bin\", \"/srv/tools\"]\n\
         exec.deny = [\"/srv/tools/grows\"]\n",
    ),
    ("no-fileless", "extends = \"baseline\"\nexec.fileless = \"deny\"\n"),
    ("no-drift", "extends = \"baseline\"\nexec.drift = \"deny\"\n"),
    (
        "audit-programs",
        "extends = \"baseline\"\nmode = \"audit\"\n\
         exec.deny = [\"/srv/tools\"]\nexec.fileless = \"deny\"\n",
    ),
    (
        "read-only-paths",
        "extends = \"baseline\"\n\
         paths.read_only = [\"/bin\", \"/srv/ro\", \"/srv/above/ro\", \"/srv/new/conf\"]\n\
         paths.allow = [\"/srv/ro/rw\"]\n",
    ),
    (
        "blocked-paths",
        "extends = \"baseline\"\n\
         paths.deny = [\"/srv/secret\", \"/srv/probe\"]\n\
         paths.allow = [\"/srv/secret/public\"]\n",
    ),
    (
        "default-deny-paths",
        "extends = \"baseline\"\n\
         paths.default = \"deny\"\n\
         paths.allow = [\"/proc\", \"/dev\", \"/tmp\", \"/srv/in\"]\n\
         paths.read_only = [\"/bin\", \"/etc\"]\n\
         paths.deny = [\"/srv/in/secret\"]\n",
    ),
    (
        "audited-paths",
        "extends = \"baseline\"\n\
         mode = \"audit\"\n\
         paths.read_only = [\"/srv/ro\"]\n\
         paths.deny = [\"/srv/secret\"]\n",
    ),
    (
        "no-host-files",
        "extends = \"baseline\"\n\
         host_paths.deny = [\"/srv/lockc-host/secret\", \"/srv/lockc-host/deep/kept\", \
         \"/srv/lockc-host/link\", \"/srv/lockc-mounts/volume/inside\", \"/srv/lockc-mounts/file\", \
         \"/srv/lockc-mounts/kept\", \"/srv/lockc-points/file\", \"/srv/lockc-points/replaced\", \
         \"/srv/lockc-points/volume/inside\"]\n",
    ),
    ("allow-family", "extends = \"baseline\"\nnetwork.families = [\"xdp\"]\n"),
    ("non-root", "extends = \"baseline\"\nrun_as_non_root = true\n"),
    ("confined", "extends = \"baseline\"\nuser_namespaces = \"deny\"\nio_uring = \"deny\"\n"),
];
