//! Figures in the `OpenMetrics` text format (1.0.0), by such means that parsers of the older Prometheus format (0.0.4), as
//! that of `node_exporter`, read it, too: names follow the conventions of Prometheus, units are base units.

use std::fmt::{Display, Write as _};

use super::{Container, Gate, Status};

/// All figures.
pub fn text(status: &Status, containers: &[Container]) -> String {
    let mut out = Out::default();
    out.up(true);
    let build = [("version", status.version.as_str()), ("kernel", status.kernel.as_str())];
    out.family("lockc_build_info", "gauge", "What runs; always 1.");
    out.sample("lockc_build_info", &build, 1);
    out.gauge(
        "lockc_start_time_seconds",
        "When the daemon was ready, since the epoch.",
        status.since,
    );
    out.gauge(
        "lockc_config_in_force",
        "1 if the configuration on disk is in force, else 0.",
        u64::from(status.stale.is_none()),
    );
    out.gauge(
        "lockc_config_load_time_seconds",
        "When the configuration in force was read, since the epoch.",
        status.in_force_since,
    );
    out.gauge("lockc_programs_attached", "BPF programs that are attached.", status.hooks.len());
    out.gauge("lockc_gaps", "What cannot be enforced on this kernel.", status.gaps.len());
    out.gauge("lockc_containers", "Containers that are enforced.", status.containers);
    let counters = &status.counters;
    for (name, help, value) in [
        ("lockc_denied_operations", "Operations that were denied.", counters.denied),
        ("lockc_audited_operations", "Operations that audit mode let pass.", counters.audited),
        ("lockc_events_lost", "Events that nobody took in time.", counters.lost),
        (
            "lockc_events_suppressed",
            "Events not sent as their container made too many.",
            counters.suppressed,
        ),
        (
            "lockc_unregistered_starts",
            "Runtimes executed while no daemon was there to decide.",
            counters.unregistered,
        ),
        ("lockc_events_unkept", "Events that could not be kept in the file.", status.unkept),
        ("lockc_adopted_tasks", "Tasks that ran before lockc and are contained.", counters.adopted),
    ] {
        out.counter(name, help, value);
    }
    out.gate(&status.gate);
    out.containers(containers);
    out.end()
}

/// The figures while no daemon runs.
pub fn down() -> String {
    let mut out = Out::default();
    out.up(false);
    out.end()
}

#[derive(Default)]
struct Out(String);

impl Out {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }

    fn up(&mut self, is_up: bool) {
        self.gauge("lockc_up", "1 if the daemon runs, else 0.", u8::from(is_up));
    }

    fn gate(&mut self, gate: &Gate) {
        let name = "lockc_gate_starts";
        self.family(name, "counter", "Executions of a runtime by what the gate answered.");
        for (outcome, count) in [("allowed", gate.allowed), ("denied", gate.denied)] {
            self.sample(&format!("{name}_total"), &[("outcome", outcome)], count);
        }
        self.counter("lockc_gate_late_answers", "Answers that came by the deadline.", gate.late);
        let name = "lockc_gate_duration_seconds";
        self.family(name, "histogram", "How long runtimes waited for an answer.");
        let mut count = 0;
        for bucket in &gate.buckets {
            count += bucket.count;
            let bound = bucket.up_to_us.map_or_else(|| "+Inf".to_owned(), seconds);
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], seconds(gate.sum_us));
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn containers(&mut self, containers: &[Container]) {
        type Figure =
            (&'static str, &'static str, &'static str, &'static str, fn(&Container) -> u64);
        const FIGURES: [Figure; 2] = [
            ("lockc_container_tasks", "", "gauge", "Tasks of a container.", |it| it.tasks),
            (
                "lockc_container_denied_operations",
                "_total",
                "counter",
                "What was denied a container, or would have been without audit mode.",
                |it| it.denied,
            ),
        ];
        for (name, suffix, kind, help, value) in FIGURES {
            self.family(name, kind, help);
            for container in containers {
                let id = container.shown_id();
                let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
                let labels = [
                    ("container", id.as_str()),
                    ("name", &or_empty(&container.name)),
                    ("policy", &or_empty(&container.policy)),
                    ("mode", &or_empty(&container.mode)),
                    // Two containers of different users may have one id.
                    ("record", &container.record),
                ];
                self.sample(&format!("{name}{suffix}"), &labels, value(container));
            }
        }
    }

    fn end(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a label's value may hold (`OpenMetrics` 1.0.0, section "Escaping").
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Bucket;

    #[test]
    fn figures_are_complete_and_cannot_be_forged() {
        let status = Status {
            gate: Gate {
                allowed: 3,
                buckets: vec![
                    Bucket { up_to_us: Some(50), count: 1 },
                    Bucket { up_to_us: Some(2_000_000), count: 2 },
                    Bucket { up_to_us: None, count: 0 },
                ],
                sum_us: 1_500_000,
                ..Gate::default()
            },
            ..Status::default()
        };
        let evil = "a\"} 1\nlockc_up 0\\";
        let containers = [Container { id: Some(evil.into()), denied: 4, ..Container::default() }];
        let text = text(&status, &containers);
        for line in [
            "# TYPE lockc_denied_operations counter",
            "lockc_denied_operations_total 0",
            "lockc_gate_starts_total{outcome=\"allowed\"} 3",
            "lockc_gate_duration_seconds_bucket{le=\"0.00005\"} 1",
            "lockc_gate_duration_seconds_bucket{le=\"2\"} 3",
            "lockc_gate_duration_seconds_bucket{le=\"+Inf\"} 3",
            "lockc_gate_duration_seconds_sum 1.5",
            "lockc_gate_duration_seconds_count 3",
            "lockc_up 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert!(!text.lines().any(|line| line == "lockc_up 0"), "{text}");
        assert!(text.contains(r#"container="a\"} 1\nlockc_up 0\\""#), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn while_nothing_runs_that_is_said() {
        assert!(down().contains("\nlockc_up 0\n# EOF\n"), "{}", down());
    }
}
