//! Whoever watches dns-tool: the rules for Prometheus and the dashboard of Grafana speak of metrics that the guide has.

use std::collections::BTreeSet;

use dns_tool::forward::outcome::Outcome;
use serde_json::Value;

const GUIDE: &str = include_str!("../src/guide/monitoring.md");
const RULES: &str = include_str!("../scripts/prometheus/dns-tool.rules.yml");
const RULES_TEST: &str = include_str!("../scripts/prometheus/dns-tool.rules.test.yml");
const DASHBOARD: &str = include_str!("../scripts/grafana/dns-tool.json");

/// A row of the guide's table of metrics.
struct Metric<'a> {
    name: &'a str,
    kind: &'a str,
    labels: Vec<&'a str>,
}

fn metrics() -> Vec<Metric<'static>> {
    let mut metrics = Vec::new();
    for row in GUIDE.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells.get(1).map_or("", |cell| cell.trim_matches('`'));
        if !name.starts_with("dns_tool_") && !name.starts_with("process_") {
            continue;
        }
        // Between backticks, but for the values that follow in parentheses.
        let labels = cells[3].split(", `").map(|label| label.trim_matches('`'));
        let labels = labels.flat_map(|label| label.split('`').next());
        metrics.push(Metric {
            name,
            kind: cells[2],
            labels: labels.collect(),
        });
    }
    metrics
}

/// The names of ours and of the process that stand in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    words
        .filter(|word| word.starts_with("dns_tool_") || word.starts_with("process_"))
        .collect()
}

/// The names of the series that the guide's metrics have.
fn series() -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    for metric in metrics() {
        match metric.kind {
            "histogram" => {
                let parts = ["_bucket", "_count", "_sum"];
                series.extend(parts.map(|part| format!("{}{part}", metric.name)));
            }
            kind => {
                assert!(["counter", "gauge"].contains(&kind), "{}", metric.name);
                assert_eq!(
                    metric.name.ends_with("_total"),
                    kind == "counter",
                    "{}",
                    metric.name
                );
                series.insert(metric.name.to_owned());
            }
        }
    }
    assert!(series.len() > 40);
    series
}

#[test]
fn a_metric_has_one_row() {
    let mut seen = BTreeSet::new();
    for metric in metrics() {
        assert!(seen.insert(metric.name), "{}", metric.name);
    }
}

#[test]
fn the_rules_know_the_metrics_of_the_guide_and_no_others() {
    // What tells a person where to look may name a histogram as a whole.
    let whole: BTreeSet<_> = metrics()
        .iter()
        .map(|metric| metric.name.to_owned())
        .collect();
    let known = &series() | &whole;
    let used = names(RULES);
    assert!(used.len() > 20);
    for name in used {
        assert!(known.contains(name), "dns-tool.rules.yml: {name}");
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tried() {
    let mut alerts = RULES.split("- alert: ").skip(1).peekable();
    assert!(alerts.peek().is_some());
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(
            RULES_TEST.contains(&format!("alertname=\"{name}\"")),
            "no test in which {name} fires"
        );
    }
}

#[test]
fn what_the_rules_record_is_what_the_alerts_read() {
    let recorded = RULES
        .split("record: ")
        .skip(1)
        .filter_map(|rule| rule.lines().next());
    let recorded: BTreeSet<_> = recorded.collect();
    let words = RULES.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    let read: BTreeSet<_> = words.filter(|word| word.starts_with("dns_tool:")).collect();
    assert!(!recorded.is_empty());
    assert_eq!(read, recorded);
}

#[test]
fn each_panel_of_the_dashboard_has_a_title_and_asks_for_metrics_of_the_guide() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let source = &dashboard["templating"]["list"][0];
    assert_eq!(source["type"], "datasource");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    let variable = format!("${{{}}}", source["name"].as_str().expect("a name"));
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            !title.is_empty() && ids.insert(panel["id"].as_u64()),
            "{title:?}"
        );
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], *variable, "{title}");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            let names = names(expression);
            assert!(!names.is_empty(), "{title}: {expression}");
            used.extend(names);
        }
    }
    let known = series();
    for name in &used {
        assert!(known.contains(*name), "dns-tool.json: {name}");
    }
    // Of a histogram each part tells enough; what is left is the port's own.
    for metric in metrics() {
        let shown = used.iter().any(|name| name.starts_with(metric.name));
        assert!(
            shown || metric.name.contains("_monitor_"),
            "dns-tool.json shows no {}",
            metric.name
        );
    }
}

#[test]
fn the_labels_that_rules_and_dashboard_use_are_those_of_the_guide() {
    let metrics = metrics();
    let labels: BTreeSet<_> = metrics
        .iter()
        .flat_map(|metric| metric.labels.iter().copied())
        .collect();
    // Those that Prometheus adds.
    let known = &labels | &BTreeSet::from(["job", "instance", "le"]);
    for text in [RULES, DASHBOARD] {
        for list in text.split(" by (").skip(1) {
            let list = list.split(')').next().expect("a list");
            for label in list.split(", ") {
                assert!(known.contains(label), "by ({list})");
            }
        }
    }
}

#[test]
fn the_values_of_labels_that_rules_and_dashboard_match_are_those_that_exist() {
    let rows = GUIDE.lines().filter(|row| row.starts_with("| `dns_tool_"));
    let cells = rows.filter_map(|row| row.split('|').nth(3));
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut known: BTreeSet<_> = words.collect();
    known.extend(Outcome::ALL.iter().map(|outcome| outcome.name()));
    let mut matched = 0;
    for text in [RULES, RULES_TEST, DASHBOARD] {
        let text = text.replace("\\\"", "\"");
        for label in [
            "check",
            "kind",
            "outcome",
            "reason",
            "source",
            "stage",
            "transport",
        ] {
            for operator in ["=", "=~", "!=", "!~"] {
                let before = format!("{label}{operator}\"");
                for values in text.split(&before).skip(1) {
                    let values = values.split('"').next().expect("a value");
                    for value in values.split('|') {
                        assert!(known.contains(value), "{before}{values}\"");
                        matched += 1;
                    }
                }
            }
        }
    }
    assert!(matched > 10, "{matched} values were found");
}
