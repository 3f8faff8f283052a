//! Fills the texts of rules as Prometheus does: the same alert reads the same, whoever raises it.

use crate::observe::rules::Instance;

const DAY: u64 = 86_400;

/// A rule's summary or description for one instance. The rules use labels, the value, and the value as a duration; a
/// test of theirs holds them to that.
pub(super) fn filled(template: &str, instance: &Instance) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((expression, behind)) = after.split_once("}}") else {
            rest = after;
            break;
        };
        text.push_str(&value_of(expression.trim(), instance));
        rest = behind;
    }
    text.push_str(rest);
    text
}

fn value_of(expression: &str, instance: &Instance) -> String {
    if let Some(label) = expression.strip_prefix("$labels.") {
        return instance.labels.get(label).cloned().unwrap_or_default();
    }
    match expression {
        "$value | humanizeDuration" => duration(instance.value),
        _ => instance.value.to_string(),
    }
}

/// As `humanizeDuration` of Prometheus: `1d 2h 3m 4s`.
fn duration(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    let seconds = seconds.abs();
    if seconds < 60.0 {
        // Four significant digits, and no zeros at the end.
        let digits = if seconds < 10.0 { 1000.0 } else { 100.0 };
        return format!("{sign}{}s", (seconds * digits).round() / digits);
    }
    let whole = seconds as u64;
    let (days, hours, minutes, seconds) = (whole / DAY, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    let parts = match (days, hours) {
        (0, 0) => format!("{minutes}m {seconds}s"),
        (0, _) => format!("{hours}h {minutes}m {seconds}s"),
        _ => format!("{days}d {hours}h {minutes}m {seconds}s"),
    };
    format!("{sign}{parts}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn texts_read_as_prometheus_would_write_them() {
        let instance = |value| Instance {
            labels: BTreeMap::from([("target".to_owned(), "shop".to_owned())]),
            value,
        };
        let text = "{{ $labels.target }}: {{ $value }} for {{ $value | humanizeDuration }}.";
        for (value, expected) in [
            (3.0, "shop: 3 for 3s."),
            (0.5, "shop: 0.5 for 0.5s."),
            (12.3456, "shop: 12.3456 for 12.35s."),
            (901.0, "shop: 901 for 15m 1s."),
            (-3661.0, "shop: -3661 for -1h 1m 1s."),
            (90_061.0, "shop: 90061 for 1d 1h 1m 1s."),
        ] {
            assert_eq!(filled(text, &instance(value)), expected);
        }
    }

    #[test]
    fn a_label_is_never_taken_for_a_template() {
        let instance = Instance {
            labels: BTreeMap::from([("target".to_owned(), "{{ $value }}".to_owned())]),
            value: 1.0,
        };
        assert_eq!(filled("a {{ $labels.target }} b", &instance), "a {{ $value }} b");
        assert_eq!(filled("{{ $labels.none }}", &instance), "");
    }
}
