//! The keys of one `[policy.NAME]`.

use std::{collections::BTreeMap, ops::Range};

use lockc_common::PolicyFlags;
use toml::de::DeTable;

use super::{MAX_RULES_PER_POLICY, Problem, problem::suggest, read::MODES, reader::Reader};
use crate::policy::{
    Access, Endpoint, EndpointError, Exec, Family, Network, NetworkMode, PathRule, Policy, Verdict,
    admission::{Admission, Control, Handling, Standard},
};

/// Keys of a policy.
const KEYS: &[&str] = &[
    "extends",
    "mode",
    "run_as_non_root",
    "user_namespaces",
    "io_uring",
    "paths",
    "host_paths",
    "network",
    "exec",
    "admission",
];

/// Keys that allow or deny what [`PolicyFlags`] stands for.
const OPERATIONS: [(&str, u32); 2] =
    [("user_namespaces", PolicyFlags::USER_NAMESPACES), ("io_uring", PolicyFlags::IO_URING)];

/// Allowed or denied.
const ACCESS: [(&str, Access); 2] = [("allow", Access::Allow), ("deny", Access::Deny)];

/// Linux capabilities (`capabilities(7)`; include/uapi/linux/capability.h, 6.12).
#[rustfmt::skip]
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
];

impl Reader {
    /// Puts what a table says into the policy that it extends. Lists are added to inherited ones;
    /// a path rule replaces an inherited one about the same path.
    pub(super) fn policy_table(&mut self, table: &DeTable<'_>, policy: &mut Policy) {
        self.check_keys(table, &format!("policy.{}", policy.name), KEYS);
        if let Some(mode) = self.choice(table, "mode", &MODES) {
            policy.mode = Some(mode);
        }
        for (key, flag) in OPERATIONS {
            if let Some(access) = self.choice(table, key, &ACCESS) {
                policy.set_access(flag, access);
            }
        }
        if let Some(paths) = self.table(table, "paths") {
            self.paths(paths, policy);
        }
        if let Some(host_paths) = self.table(table, "host_paths") {
            self.check_keys(host_paths, "host_paths", &["deny"]);
            for (path, _) in self.path_list(host_paths, "deny").unwrap_or_default() {
                add(&mut policy.host_paths, path);
            }
        }
        if let Some(network) = self.table(table, "network") {
            self.network(network, &mut policy.network);
        }
        if let Some(exec) = self.table(table, "exec") {
            self.exec(exec, &mut policy.exec);
        }
        let admission = self.table(table, "admission");
        if let Some(admission) = admission
            && let Some(standard) = self.standard(admission)
        {
            raise(&mut policy.admission, standard);
        }
        if let Some(required) = self.boolean(table, "run_as_non_root") {
            let handling = if required { Handling::Enforce } else { Handling::Off };
            policy.admission.set(Control::RunAsNonRoot, handling);
            let twice = admission.and_then(|table| table.get_key_value("run_as_non_root"));
            if let (Some((second, _)), Some(first)) = (twice, table.get("run_as_non_root")) {
                let message = "`admission.run_as_non_root` and `run_as_non_root` are the same";
                let problem = Problem::new(second.span(), message);
                self.problems.push(problem.also("first", first.span()));
            }
        }
        if let Some(table) = admission {
            self.admission(table, &mut policy.admission);
        }
    }

    fn paths(&mut self, table: &DeTable<'_>, policy: &mut Policy) {
        self.check_keys(table, "paths", &["deny", "read_only", "allow", "default"]);
        let inherited = policy.paths.clone();
        let mut typed: BTreeMap<PathRule, (Verdict, Range<usize>)> = BTreeMap::new();
        for verdict in Verdict::ALL {
            for (rule, span) in self.path_list(table, verdict.key()).unwrap_or_default() {
                let Some((other, first)) = typed.get(&rule) else {
                    typed.insert(rule, (verdict, span));
                    policy.paths.insert(rule, verdict);
                    continue;
                };
                let problem = if *other == verdict {
                    Problem::warning(span, format!("`{rule}` is listed twice"))
                } else {
                    let message = format!(
                        "`{rule}` is in `paths.{}` and in `paths.{}`",
                        other.key(),
                        verdict.key()
                    );
                    Problem::new(span, message)
                };
                self.problems.push(problem.also("first", first.clone()));
            }
        }
        if let Some(default) = self.choice(table, "default", &ACCESS) {
            policy.paths.default = default;
        }
        self.check_paths(policy, &inherited, &typed);
    }

    fn network(&mut self, table: &DeTable<'_>, network: &mut Network) {
        self.check_keys(table, "network", &["mode", "deny", "allow", "default", "families"]);
        let modes = [NetworkMode::HostDefault, NetworkMode::None].map(|mode| (mode.name(), mode));
        if let Some(mode) = self.choice(table, "mode", &modes) {
            network.mode = mode;
        }
        if let Some(default) = self.choice(table, "default", &ACCESS) {
            network.default = default;
        }
        let (denied, allowed) = (self.endpoints(table, "deny"), self.endpoints(table, "allow"));
        for (endpoint, span) in &allowed {
            if let Some((_, first)) = denied.iter().find(|(denied, _)| denied == endpoint) {
                let message = format!("`{endpoint}` is in `network.deny` and in `network.allow`");
                let problem = Problem::new(span.clone(), message);
                self.problems.push(problem.also("first", first.clone()));
            }
        }
        for (endpoint, _) in denied {
            add(&mut network.deny, endpoint);
        }
        let first = allowed.first().map(|(_, span)| span.clone());
        for (endpoint, _) in allowed {
            add(&mut network.allow, endpoint);
        }
        if let Some(span) = first
            && !network.restricts_addresses()
        {
            let message = "`network.allow` changes nothing: no address is denied";
            let help = "set `network.default = \"deny\"`, or list what is denied in `network.deny`";
            self.problems.push(Problem::warning(span, message).help(Some(help.to_owned())));
        }
        for (name, span) in self.texts(table, "families", MAX_RULES_PER_POLICY).unwrap_or_default()
        {
            if let Some(family) = Family::named(name) {
                add(&mut network.families, family);
                continue;
            }
            let message = format!("unknown family of sockets `{}`", name.escape_debug());
            let help = suggest(name, Family::names());
            self.problems.push(Problem::new(span, message).help(help));
        }
    }

    fn endpoints(&mut self, table: &DeTable<'_>, key: &str) -> Vec<(Endpoint, Range<usize>)> {
        let mut endpoints = Vec::new();
        for (text, span) in self.texts(table, key, MAX_RULES_PER_POLICY).unwrap_or_default() {
            match text.parse() {
                Ok(endpoint) => endpoints.push((endpoint, span)),
                Err(error) => {
                    let help = match &error {
                        EndpointError::HostBits { network, .. } => {
                            Some(format!("did you mean `{network}`?"))
                        }
                        EndpointError::Form { .. } => None,
                    };
                    self.problems.push(Problem::new(span, error.to_string()).help(help));
                }
            }
        }
        endpoints
    }

    fn exec(&mut self, table: &DeTable<'_>, exec: &mut Exec) {
        self.check_keys(table, "exec", &["allow", "deny", "fileless", "drift"]);
        let denied = self.path_list(table, "deny").unwrap_or_default();
        if let Some(paths) = self.path_list(table, "allow") {
            let allow = exec.allow.get_or_insert_default();
            for (path, span) in paths {
                if let Some((_, first)) = denied.iter().find(|(denied, _)| *denied == path) {
                    let message = format!("`{path}` is in `exec.deny` and in `exec.allow`");
                    self.problems.push(Problem::new(span, message).also("first", first.clone()));
                }
                // The more derived policy has the last word.
                exec.deny.retain(|denied| *denied != path);
                add(allow, path);
            }
        }
        for (path, _) in denied {
            if let Some(allow) = &mut exec.allow {
                allow.retain(|allowed| *allowed != path);
            }
            add(&mut exec.deny, path);
        }
        if let Some(fileless) = self.choice(table, "fileless", &ACCESS) {
            exec.fileless = fileless;
        }
        if let Some(drift) = self.choice(table, "drift", &ACCESS) {
            exec.drift = drift;
        }
    }

    fn standard(&mut self, table: &DeTable<'_>) -> Option<Standard> {
        let standards = [("baseline", Standard::Baseline), ("restricted", Standard::Restricted)];
        self.choice(table, "standard", &standards)
    }

    fn admission(&mut self, table: &DeTable<'_>, admission: &mut Admission) {
        let mut keys = Control::ALL.map(Control::name).to_vec();
        keys.extend(["standard", "allow_capabilities", "allow_host_paths"]);
        self.check_keys(table, "admission", &keys);
        let handlings = [Handling::Enforce, Handling::Audit, Handling::Off]
            .map(|handling| (handling.name(), handling));
        for control in Control::ALL {
            if let Some(handling) = self.choice(table, control.name(), &handlings) {
                admission.set(control, handling);
            }
        }
        let names = self.texts(table, "allow_capabilities", MAX_RULES_PER_POLICY);
        for (name, span) in names.unwrap_or_default() {
            if CAPABILITIES.contains(&name) {
                add(&mut admission.capabilities, name.to_owned());
                continue;
            }
            let message = format!("unknown capability `{}`", name.escape_debug());
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let help = suggest(&full, CAPABILITIES.iter().copied());
            self.problems.push(Problem::new(span, message).help(help));
        }
        for (path, _) in self.path_list(table, "allow_host_paths").unwrap_or_default() {
            add(&mut admission.host_paths, path.to_string());
        }
    }

    fn path_list(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
    ) -> Option<Vec<(PathRule, Range<usize>)>> {
        let texts = self.texts(table, key, MAX_RULES_PER_POLICY)?;
        let mut paths = Vec::with_capacity(texts.len());
        for (text, span) in texts {
            match path_rule(text) {
                Ok(rule) => paths.push((rule, span)),
                Err((message, help)) => {
                    self.problems.push(Problem::new(span, message).help(help));
                }
            }
        }
        Some(paths)
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// `/x` and `/x/**` are the same: the path and all below it. The kernel side looks up prefixes;
/// other globs cannot be enforced by it.
fn path_rule(text: &str) -> Result<PathRule, (String, Option<String>)> {
    let path = text.strip_suffix("/**").unwrap_or(text);
    let path = if path.is_empty() && !text.is_empty() { "/" } else { path };
    if path.contains(['*', '?', '[', ']', '{', '}', '\\']) {
        let message = format!(
            "`{}` cannot be enforced: a path has no glob but a closing `/**`",
            text.escape_debug()
        );
        let help = text.strip_suffix("/*").filter(|rest| rest.starts_with('/'));
        return Err((message, help.map(|rest| format!("`{rest}/**` is all below `{rest}`"))));
    }
    PathRule::new(path).map_err(|error| (error.to_string(), None))
}

/// Makes the limits of `standard` apply: its controls that are off are turned on, as strictly as
/// the strictest that is on, and controls that it does not have are turned off.
fn raise(admission: &mut Admission, standard: Standard) {
    let strictest = Control::ALL
        .into_iter()
        .map(|control| admission.handling(control))
        .max()
        .filter(|handling| *handling != Handling::Off)
        .unwrap_or(Handling::Enforce);
    for control in Control::ALL {
        if control.standard() > standard {
            admission.set(control, Handling::Off);
        } else if admission.handling(control) == Handling::Off {
            admission.set(control, strictest);
        }
    }
    admission.standard = standard;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, expected) in [
            ("/x/**", Ok("/x")),
            ("/x", Ok("/x")),
            ("/x/", Ok("/x")),
            ("/**", Ok("/")),
            ("/", Ok("/")),
            ("", Err("path `` is not absolute")),
            ("**", Err("`**` cannot be enforced: a path has no glob but a closing `/**`")),
            ("/x/*", Err("`/x/*` cannot be enforced: a path has no glob but a closing `/**`")),
            (
                "/x/**/**",
                Err("`/x/**/**` cannot be enforced: a path has no glob but a closing `/**`"),
            ),
            ("/x**", Err("`/x**` cannot be enforced: a path has no glob but a closing `/**`")),
            ("x/**", Err("path `x` is not absolute")),
            ("/a/../b", Err("path `/a/../b` contains `..`")),
        ] {
            let got = path_rule(text).map(|rule| rule.to_string()).map_err(|(message, _)| message);
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn standards_bring_their_controls() {
        let handling = |admission: &Admission| {
            let get = |control| admission.handling(control);
            (get(Control::Seccomp), get(Control::RunAsNonRoot))
        };
        for (from, standard, expected) in [
            (
                (Standard::Baseline, Handling::Audit),
                Standard::Restricted,
                (Handling::Audit, Handling::Audit),
            ),
            (
                (Standard::Baseline, Handling::Off),
                Standard::Restricted,
                (Handling::Enforce, Handling::Enforce),
            ),
            (
                (Standard::Baseline, Handling::Off),
                Standard::Baseline,
                (Handling::Enforce, Handling::Off),
            ),
            (
                (Standard::Restricted, Handling::Enforce),
                Standard::Baseline,
                (Handling::Enforce, Handling::Off),
            ),
        ] {
            let mut admission = Admission::new(from.0, from.1);
            raise(&mut admission, standard);
            assert_eq!((admission.standard, handling(&admission)), (standard, expected));
        }
    }
}
