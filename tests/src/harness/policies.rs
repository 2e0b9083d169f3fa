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
    ("allow-family", "extends = \"baseline\"\nnetwork.families = [\"xdp\"]\n"),
    ("non-root", "extends = \"baseline\"\nrun_as_non_root = true\n"),
    ("confined", "extends = \"baseline\"\nuser_namespaces = \"deny\"\nio_uring = \"deny\"\n"),
];
