//! The selectors of containers and pods, which are tables: `container.name`, `k8s.pod-label.app`.

use super::{
    super::{
        report::Report,
        suggest,
        table::{Table, Value, string},
    },
    Selector,
};

/// Keys of the tables.
pub(super) const FAMILIES: [&str; 2] = ["container", "k8s"];

/// Longest value, bytes: what the agent takes from a runtime.
const MAX_VALUE: usize = 4096;

/// Keys that hold text, and the key that holds labels.
const fn keys(family: &str) -> ([&'static str; 4], &'static str) {
    match family.as_bytes() {
        b"container" => (["name", "image", "image-digest", "label"], "label"),
        _ => (
            ["namespace", "service-account", "pod-name", "pod-label"],
            "pod-label",
        ),
    }
}

pub(super) fn read(report: &mut Report<'_>, family: &str, value: &Value<'_>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    let (known, labels) = keys(family);
    let Some(table) = Table::open(report, value, &format!("selector `{family}`")) else {
        return selectors;
    };
    if table.keys().next().is_none() {
        report.error(
            &value.span(),
            format!("selector `{family}` is empty"),
            format!("add at least one of: {}", known.join(", ")),
        );
    }
    for (key, span, value) in table.keys() {
        let full = format!("{family}.{key}");
        if key == labels {
            let labels = table.labels(report, key);
            selectors.extend(
                labels
                    .into_iter()
                    .map(|(label, value)| Selector::Container {
                        key: format!("{full}.{label}"),
                        value,
                    }),
            );
        } else if !known.contains(&key) {
            report.error(
                &span,
                format!("unknown selector `{full}`"),
                suggest::remedy(key, &known),
            );
        } else if let Some(text) = string(report, value, &full) {
            if key == "image-digest" && !is_digest(text) {
                report.error(
                    &value.span(),
                    format!("{full} {text:?} is not `sha256:` with 64 hexadecimal digits"),
                    "write what `podman inspect` or `crictl images --digests` shows",
                );
            } else if text.is_empty() || text.len() > MAX_VALUE {
                report.error(
                    &value.span(),
                    format!("selector `{full}` has no value that a runtime could report"),
                    "write the text as the runtime shows it",
                );
            }
            selectors.push(Selector::Container {
                key: full,
                value: text.to_owned(),
            });
        }
    }
    selectors
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64
            && digits
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}
