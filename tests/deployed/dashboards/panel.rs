//! One panel, and what Grafana needs of it.

use serde_json::{Value, json};

/// What each expression is about: what the variables choose.
pub(super) const CHOSEN: &str =
    r#"cluster=~"$cluster",namespace=~"$namespace",node=~"$node",instance=~"$instance""#;
/// Where an expression has `CHOSEN`.
const PLACE: &str = "$of";

/// Whom the variables choose, in an alert's labels: one of sums has none of them.
pub(super) const CHOSEN_ALERTS: &str =
    r#"alertname=~"NixCsi.*",cluster=~"$cluster|",namespace=~"$namespace|",instance=~"$instance|""#;

pub(super) struct Panel {
    kind: &'static str,
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    targets: Vec<Value>,
    defaults: Value,
    overrides: Vec<Value>,
    options: Value,
    pub(super) size: (u64, u64),
}

impl Panel {
    fn new(kind: &'static str, title: &'static str, unit: &'static str) -> Self {
        Self {
            kind,
            title,
            description: "",
            unit,
            targets: Vec::new(),
            defaults: json!({}),
            overrides: Vec::new(),
            options: json!({}),
            size: (12, 8),
        }
    }

    /// A heading; the panels below it can be folded.
    pub(super) fn row(title: &'static str) -> Self {
        Self { size: (24, 1), ..Self::new("row", title, "") }
    }

    /// One number of now, or of the time that is shown.
    pub(super) fn stat(title: &'static str, unit: &'static str) -> Self {
        Self {
            size: (3, 4),
            defaults: json!({"color": {"mode": "thresholds"}}),
            options: json!({
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "textMode": "auto",
            }),
            ..Self::new("stat", title, unit)
        }
        .levels(&[])
    }

    pub(super) fn lines(title: &'static str, unit: &'static str) -> Self {
        Self {
            defaults: json!({
                "color": {"mode": "palette-classic"},
                "custom": {"drawStyle": "line", "fillOpacity": 8, "lineWidth": 1, "showPoints": "never"},
                "min": 0,
            }),
            options: json!({
                "legend": {
                    "calcs": ["lastNotNull", "max"],
                    "displayMode": "table",
                    "placement": "right",
                    "showLegend": true,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            ..Self::new("timeseries", title, unit)
        }
    }

    /// Lines on top of each other: their height is the sum.
    pub(super) fn stacked(title: &'static str, unit: &'static str) -> Self {
        let mut panel = Self::lines(title, unit);
        panel.defaults["custom"]["stacking"] = json!({"mode": "normal", "group": "A"});
        panel.defaults["custom"]["fillOpacity"] = json!(40);
        panel
    }

    /// Of the buckets of a histogram: when how many took how long.
    pub(super) fn heat(title: &'static str, buckets: &str) -> Self {
        let expression = format!("sum by (le) (increase({buckets}[$__rate_interval]))");
        let mut panel = Self {
            size: (8, 8),
            options: json!({
                "calculate": false,
                "cellGap": 1,
                "color": {
                    "exponent": 0.5,
                    "fill": "dark-orange",
                    "mode": "scheme",
                    "reverse": false,
                    "scale": "exponential",
                    "scheme": "Oranges",
                    "steps": 64,
                },
                "exemplars": {"color": "blue"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": true},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"mode": "single", "showColorScale": false, "yHistogram": true},
                "yAxis": {"axisPlacement": "left", "reverse": false, "unit": "s"},
            }),
            ..Self::new("heatmap", title, "short")
        }
        .ask(&expression, "{{le}}");
        panel.targets[0]["format"] = json!("heatmap");
        panel
    }

    /// A bar for each, longest first.
    pub(super) fn bars(title: &'static str, unit: &'static str) -> Self {
        Self {
            defaults: json!({"color": {"mode": "thresholds"}, "min": 0}),
            options: json!({
                "displayMode": "basic",
                "orientation": "horizontal",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "showUnfilled": true,
                "valueMode": "color",
            }),
            ..Self::new("bargauge", title, unit)
        }
        .levels(&[])
    }

    /// What a query says now, a line for each series, with these labels as columns.
    pub(super) fn table(
        title: &'static str,
        unit: &'static str,
        query: &str,
        columns: &[&str],
    ) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned());
        let order: serde_json::Map<_, _> =
            columns.chain(["Value".to_owned()]).zip((0..).map(Value::from)).collect();
        let names: Vec<_> = order.keys().cloned().collect();
        let mut panel = Self {
            options: json!({
                "cellHeight": "sm",
                "showHeader": true,
                "transformations": [
                    {"id": "filterFieldsByName", "options": {"include": {"names": names}}},
                    {"id": "organize", "options": {"indexByName": order}},
                ],
            }),
            ..Self::new("table", title, unit)
        }
        .ask(query, "");
        panel.targets[0]["format"] = json!("table");
        panel
    }

    /// What is good, and what to do where it is not.
    pub(super) fn says(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// One more query; `$of` in it is what the variables choose.
    pub(super) fn ask(mut self, expression: &str, legend: &str) -> Self {
        let expression = expression.replace("$alerts", CHOSEN_ALERTS).replace(PLACE, CHOSEN);
        let id = char::from(b'A' + u8::try_from(self.targets.len()).unwrap()).to_string();
        let is_of_now = ["stat", "bargauge", "table"].contains(&self.kind);
        self.targets.push(json!({
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "editorMode": "code",
            "expr": expression,
            "instant": is_of_now,
            "legendFormat": legend,
            "range": !is_of_now,
            "refId": id,
        }));
        self
    }

    /// Green, and from these values on other colours of Grafana's.
    pub(super) fn levels(mut self, levels: &[(f64, &str)]) -> Self {
        let first = json!({"color": "green", "value": null});
        let more = levels.iter().map(|(value, color)| json!({"color": color, "value": value}));
        let steps: Vec<_> = std::iter::once(first).chain(more).collect();
        self.defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
        self
    }

    /// Where less is worse: red, and from these values on other colours.
    pub(super) fn rising(mut self, levels: &[(f64, &str)]) -> Self {
        self = self.levels(levels);
        self.defaults["thresholds"]["steps"][0]["color"] = json!("red");
        self
    }

    /// By powers of ten, where some are a thousand times the others.
    pub(super) fn by_powers(mut self) -> Self {
        self.defaults["custom"]["scaleDistribution"] = json!({"log": 10, "type": "log"});
        self.defaults.as_object_mut().unwrap().remove("min");
        self
    }

    /// The axis goes so far.
    pub(super) fn up_to(mut self, most: f64) -> Self {
        self.defaults["max"] = json!(most);
        self
    }

    /// The colour of a series that everybody knows.
    pub(super) fn paint(mut self, name: &str, color: &str) -> Self {
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }));
        self
    }

    /// A click leads to another dashboard, of the same time and choice.
    pub(super) fn opens(mut self, dashboard: &str, title: &str) -> Self {
        let url = format!("/d/nix-csi-{dashboard}?${{__url_time_range}}&${{__all_variables}}");
        self.defaults["links"] = json!([{"title": title, "url": url}]);
        self
    }

    pub(super) fn size(mut self, width: u64, height: u64) -> Self {
        self.size = (width, height);
        self
    }

    pub(super) fn render(mut self, id: usize, x: u64, y: u64) -> Value {
        let (w, h) = self.size;
        let place = json!({"h": h, "w": w, "x": x, "y": y});
        if self.kind == "row" {
            return json!({
                "collapsed": false, "gridPos": place, "id": id, "panels": [],
                "title": self.title, "type": "row",
            });
        }
        // Beside a table there would be no room for lines.
        if self.kind == "timeseries" && w < 12 {
            let legend = json!({
                "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true,
            });
            self.options["legend"] = legend;
        }
        self.defaults["unit"] = json!(self.unit);
        let mut panel = json!({
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "description": self.description,
            "fieldConfig": {"defaults": self.defaults, "overrides": self.overrides},
            "gridPos": place,
            "id": id,
            "options": self.options,
            "targets": self.targets,
            "title": self.title,
            "type": self.kind,
        });
        // Which are no options of the table's own.
        if let Some(options) = panel["options"].as_object_mut()
            && let Some(transformations) = options.remove("transformations")
        {
            panel["transformations"] = transformations;
        }
        panel
    }
}
