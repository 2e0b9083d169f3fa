//! Is lockc worse than it was?

use anyhow::{Context as _, Result, ensure};

use super::figures::Figures;

/// What may not get worse.
const HELD: &[&str] = &["lockc-host", "lockc-contained"];
/// Share of an operation's whole cost by which what lockc adds may grow, and instructions besides: a hash that
/// collides, a page that is new.
const TOLERANCE: f64 = 0.02;
const SLACK: f64 = 10.0;

/// A line for each operation that lockc has made more expensive than it is recorded. What lockc adds is compared; on
/// the same kernel the whole must have grown with it, or else it is what there is without lockc that varies.
pub(super) fn regressions(recorded: &Figures, now: &Figures) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for configuration in HELD {
        let before = recorded.instructions.get(*configuration);
        let before = before.with_context(|| format!("{configuration} is not recorded"))?;
        let after = now.instructions.get(*configuration);
        let after = after.with_context(|| format!("{configuration} was not measured"))?;
        let new = after.keys().find(|operation| !before.contains_key(*operation));
        ensure!(new.is_none(), "{configuration} {} is not recorded", new.map_or("", |it| it));
        for (operation, total) in before {
            let added = |figures: &Figures| {
                figures
                    .added(configuration, operation)
                    .with_context(|| format!("{configuration} {operation} has no figures"))
            };
            let (before, after) = (added(recorded)?, added(now)?);
            let mut growth = after - before;
            if recorded.kernel == now.kernel {
                let whole = now.get(configuration, operation).unwrap_or(f64::INFINITY);
                growth = growth.min(whole - total);
            }
            if growth > total * TOLERANCE + SLACK {
                lines.push(format!(
                    "{configuration} {operation}: lockc adds {after:.0} instructions, {before:.0} are recorded ({:+.1} % of the whole)",
                    100.0 * growth / total
                ));
            }
        }
    }
    if !lines.is_empty() && recorded.kernel != now.kernel {
        lines.push(format!("(recorded on {}, measured on {})", recorded.kernel, now.kernel));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(kernel: &str, none: f64, lockc: f64) -> Figures {
        Figures::parse(&format!(
            "kernel {kernel}\nnone-host open {none}\nnone-contained open {none}\n\
             lockc-host open {lockc}\nlockc-contained open {lockc}\n"
        ))
        .unwrap()
    }

    #[test]
    fn what_costs_two_percent_more_is_named() {
        let recorded = figures("6.12.1", 5000.0, 5300.0);
        let worse = |now: &Figures| regressions(&recorded, now).unwrap();
        assert_eq!(worse(&recorded), [""; 0]);
        assert_eq!(worse(&figures("6.12.1", 5000.0, 5300.0 + 115.0)), [""; 0]);
        let lines = worse(&figures("6.12.1", 5000.0, 5300.0 + 117.0));
        assert_eq!(
            lines[0],
            "lockc-host open: lockc adds 417 instructions, 300 are recorded (+2.2 % of the whole)"
        );
        assert_eq!(lines.len(), 2);
        // Cheaper is fine.
        assert_eq!(worse(&figures("6.12.1", 5000.0, 5000.0)), [""; 0]);
    }

    #[test]
    fn what_varies_without_lockc_is_not_lockc() {
        let recorded = figures("6.12.1", 5500.0, 5800.0);
        assert_eq!(regressions(&recorded, &figures("6.12.1", 5000.0, 5800.0)).unwrap(), [""; 0]);
        assert_eq!(regressions(&recorded, &figures("6.12.1", 5500.0, 6000.0)).unwrap().len(), 2);
    }

    #[test]
    fn another_kernel_is_not_lockc() {
        let recorded = figures("6.12.1", 5000.0, 5300.0);
        let worse = |now: &Figures| regressions(&recorded, now).unwrap();
        assert_eq!(worse(&figures("6.12.2", 8000.0, 8300.0)), [""; 0]);
        let lines = worse(&figures("6.12.2", 8000.0, 9000.0));
        assert_eq!(lines.last().unwrap(), "(recorded on 6.12.1, measured on 6.12.2)");
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let recorded = figures("6.12.1", 5000.0, 5300.0);
        let said = "kernel 6\nnone-host open 1\nlockc-host open 1\n";
        let error = regressions(&recorded, &Figures::parse(said).unwrap()).unwrap_err().to_string();
        assert!(error.contains("was not measured") || error.contains("no figures"), "{error}");
        let mut more = figures("6.12.1", 5000.0, 5300.0);
        for costs in more.instructions.values_mut() {
            costs.insert("fly".to_owned(), 1.0);
        }
        let error = regressions(&recorded, &more).unwrap_err().to_string();
        assert_eq!(error, "lockc-host fly is not recorded");
    }
}
