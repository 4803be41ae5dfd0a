//! What a real node sends to a real OpenTelemetry Collector.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod collector;
mod lost;
mod publish;
mod spans;
