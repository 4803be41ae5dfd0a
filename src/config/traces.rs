//! Settings of traces.

use std::ffi::OsStr;

use clap::Args;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use http::Uri;

#[derive(Debug, Clone, Default, Args)]
pub struct TraceSettings {
    /// A collector that traces are sent to, by OTLP over gRPC, such as http://collector.monitoring:4317 or
    /// https://…; without it there are none.
    #[arg(long, env = "NIX_CSI_OTLP_ENDPOINT", value_parser = CollectorParser, value_name = "URL")]
    pub otlp_endpoint: Option<Uri>,
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
    /// Volumes matter more than a standard variable that a whole cluster may have: it is refused here, not at the start.
    pub fn collector(&self) -> Result<Option<Uri>, String> {
        let standard = self.otel_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        match (&self.otlp_endpoint, standard) {
            (Some(uri), _) => Ok(Some(uri.clone())),
            (None, Some(text)) => collector(text)
                .map(Some)
                .map_err(|reason| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {reason}")),
            (None, None) => Ok(None),
        }
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

fn collector(text: &str) -> Result<Uri, &'static str> {
    let known = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    };
    let uri = text.parse().ok().filter(known);
    uri.ok_or("it is no address of a collector: write for example http://collector:4317")
}

/// Does not show what it refuses, as clap's own parsers do: what is no URL may have a password anywhere.
#[derive(Clone)]
struct CollectorParser;

impl TypedValueParser for CollectorParser {
    type Value = Uri;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Uri, clap::Error> {
        collector(&value.to_string_lossy()).map_err(|reason| {
            let line = format!("invalid value for '--otlp-endpoint <URL>': {reason}\n");
            clap::Error::raw(ErrorKind::ValueValidation, line).with_cmd(command)
        })
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    let parsed = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    parsed.ok_or_else(|| "it is no share: write a number from 0 to 1, such as 0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        traces: TraceSettings,
    }

    fn parsed(option: &str, value: &str) -> Result<Option<Uri>, String> {
        let cli = Cli::try_parse_from(["x", option, value]).map_err(|e| e.to_string())?;
        cli.traces.collector()
    }

    #[test]
    fn a_collector_has_a_url_and_one_that_is_none_is_not_shown() {
        for option in ["--otlp-endpoint", "--otel-endpoint"] {
            for good in ["http://c:4317", "https://u:p@c.example/", "http://[::1]:4317"] {
                assert_eq!(parsed(option, good), Ok(Some(good.parse().unwrap())));
            }
            for bad in
                ["http://user:p ss@c:4317", "grpc://user:p@c", "c:4317", "http://", "http:///c"]
            {
                let said = parsed(option, bad).unwrap_err();
                assert!(said.contains("no address of a collector"), "{said}");
                assert!(!said.contains("user") && !said.contains("p@"), "{said}");
            }
        }
        assert_eq!(parsed("--otel-endpoint", ""), Ok(None));
    }
}
