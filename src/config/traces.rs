//! Settings of traces.

use clap::Args;

#[derive(Debug, Clone, Default, Args)]
pub struct TraceSettings {
    /// A collector that traces are sent to, by OTLP over gRPC, such as http://collector.monitoring:4317 or
    /// https://…; without it there are none.
    #[arg(long, env = "NIX_CSI_OTLP_ENDPOINT", value_parser = endpoint, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that are sent, from 0 to 1; all of them if not given. What a caller has begun is
    /// sent if the caller says so.
    #[arg(long, env = "NIX_CSI_TRACE_RATIO", value_parser = ratio)]
    pub trace_ratio: Option<f64>,
    /// What OpenTelemetry calls the first of these.
    #[arg(long, hide = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otel_endpoint: Option<String>,
    #[arg(long, hide = true, env = "OTEL_SERVICE_NAME")]
    otel_service_name: Option<String>,
    #[arg(long, hide = true, env = "OTEL_RESOURCE_ATTRIBUTES", value_delimiter = ',')]
    otel_resource_attributes: Vec<String>,
}

impl TraceSettings {
    pub fn endpoint(&self) -> Option<&str> {
        let standard = self.otel_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        self.otlp_endpoint.as_deref().or(standard)
    }

    /// What is said of who sends them.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.otel_resource_attributes.iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.trim(), value.trim()))
    }

    pub fn service_name(&self) -> Option<&str> {
        self.otel_service_name.as_deref().filter(|name| !name.is_empty())
    }
}

fn endpoint(value: &str) -> Result<String, String> {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(value.to_owned()),
        _ => {
            Err("it is no address of a collector: write for example http://collector:4317"
                .to_owned())
        }
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    let parsed = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    parsed.ok_or_else(|| "it is no share: write a number from 0 to 1, such as 0.1".to_owned())
}
