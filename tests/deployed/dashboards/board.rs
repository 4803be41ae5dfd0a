//! A dashboard: its variables, its links, and where its panels are.

use serde_json::{Value, json};

use super::panel::{CHOSEN, CHOSEN_ALERTS, Panel};

/// Of Grafana's model; older ones are raised when they are loaded.
const SCHEMA: u32 = 39;
const WIDTH: u64 = 24;
pub(super) const TAG: &str = "nix-csi";

pub(super) struct Dashboard {
    /// Its file's name, and after `nix-csi-` its uid.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) panels: Vec<Panel>,
}

impl Dashboard {
    pub(super) fn render(self) -> Value {
        json!({
            "annotations": {"list": annotations()},
            "description": self.description,
            "editable": true,
            "graphTooltip": 1,
            "links": [{
                "asDropdown": false,
                "icon": "external link",
                "includeVars": true,
                "keepTime": true,
                "tags": [TAG],
                "targetBlank": false,
                "title": "nix-csi",
                "type": "dashboards",
            }],
            "panels": placed(self.panels),
            "refresh": "30s",
            "schemaVersion": SCHEMA,
            "tags": [TAG],
            "templating": {"list": variables()},
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "title": self.title,
            "uid": format!("nix-csi-{}", self.name),
            "version": 1,
        })
    }
}

/// In lines, as words in a text.
fn placed(panels: Vec<Panel>) -> Vec<Value> {
    let (mut x, mut y, mut highest) = (0, 0, 0);
    let mut all = Vec::new();
    for (n, panel) in panels.into_iter().enumerate() {
        let (width, height) = panel.size;
        if x + width > WIDTH {
            (x, y, highest) = (0, y + highest, 0);
        }
        all.push(panel.render(n + 1, x, y));
        x += width;
        highest = highest.max(height);
    }
    all
}

fn variables() -> Vec<Value> {
    let source = json!({
        "current": {},
        "hide": 0,
        "label": "Data source",
        "name": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "type": "datasource",
    });
    let mut all = vec![source];
    let mut chosen = Vec::new();
    for (name, label) in [
        ("cluster", "Cluster"),
        ("namespace", "Namespace"),
        ("node", "Node"),
        ("instance", "Instance"),
    ] {
        let of = chosen.join(",");
        let query = format!("label_values(nixcsi_actor_alive{{{of}}}, {name})");
        all.push(json!({
            // Also of series that have no such label.
            "allValue": ".*",
            "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "definition": query,
            "hide": 0,
            "includeAll": true,
            "label": label,
            "multi": true,
            "name": name,
            "query": {"qryType": 1, "query": query, "refId": name},
            // When the time that is shown changes.
            "refresh": 2,
            "sort": 1,
            "type": "query",
        }));
        chosen.push(format!(r#"{name}=~"${name}""#));
    }
    all
}

fn annotations() -> Vec<Value> {
    let annotation = |name: &str, color: &str, expression: String, text: &str| {
        json!({
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "enable": true,
            "expr": expression,
            "hide": false,
            "iconColor": color,
            "name": name,
            "step": "60s",
            "textFormat": text,
            "titleFormat": name,
        })
    };
    let firing = format!(r#"ALERTS{{{CHOSEN_ALERTS},alertstate="firing"}}"#);
    let started = format!(
        "time() - process_start_time_seconds{{{CHOSEN}}} < 60 \
         and on (cluster, namespace, instance) nixcsi_ready{{{CHOSEN}}}"
    );
    vec![
        annotation("Alert", "red", firing, "{{alertname}} {{node}} {{instance}}"),
        annotation("Driver started", "blue", started, "{{node}} {{instance}}"),
    ]
}
