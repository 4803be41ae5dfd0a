//! An OpenTelemetry Collector that writes what it gets to a file.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::lab::{Lab, free_address, installed, wait_for};
use crate::spans::{Span, parse};

/// Dropping it kills it.
pub(crate) struct Collector {
    child: Child,
    address: String,
    scheme: &'static str,
    file: PathBuf,
}

impl Collector {
    /// One that listens.
    pub(crate) fn start(lab: &Lab) -> Self {
        Self::start_with(lab, None)
    }

    /// The same, with TLS and `<name>.pem` and `<name>.key` of the lab's directory if there is a name.
    pub(crate) fn start_with(lab: &Lab, certificate: Option<&str>) -> Self {
        let address = free_address();
        let (file, config) = (lab.path("traces.json"), lab.path("otelcol.yaml"));
        let tls = certificate.map_or_else(String::new, |name| {
            let (key, pem) = (lab.path(&format!("{name}.key")), lab.path(&format!("{name}.pem")));
            format!(", tls: {{cert_file: '{}', key_file: '{}'}}", pem.display(), key.display())
        });
        let text = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{address}'{tls}}}}}}}}}\n\
             exporters: {{file: {{path: '{}'}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n\
             \x20 pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n",
            file.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(lab.path("otelcol.log")).unwrap();
        let child = Command::new(installed("install-otelcol.sh"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let scheme = if certificate.is_some() { "https" } else { "http" };
        let mut collector = Self { child, address, scheme, file };
        wait_for("the collector", || {
            let ended = collector.child.try_wait().unwrap();
            let said = || fs::read_to_string(lab.path("otelcol.log")).unwrap();
            assert!(ended.is_none(), "the collector ended: {}", said());
            TcpStream::connect(&collector.address).is_ok()
        });
        collector
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// All that it got so far; ends it, since what it writes last is written then.
    pub(crate) fn spans(mut self) -> (Vec<Span>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        let text = fs::read_to_string(&self.file).unwrap();
        (text.lines().flat_map(parse).collect(), text)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
