//! STUB
use std::ffi::OsString;
use std::time::Duration;
#[derive(Default, Clone, Debug)]
pub struct Choice {
    pub up: Vec<String>,
    pub down: Vec<Down>,
}
#[derive(Clone, Debug)]
pub struct Down {
    pub url: String,
    pub reason: String,
    pub again_in: Duration,
}
#[derive(Clone, Copy, Debug)]
pub struct ProbeLimits {
    pub limit: Duration,
    pub remember: Duration,
}
impl Default for ProbeLimits {
    fn default() -> Self {
        Self { limit: Duration::from_secs(5), remember: Duration::from_secs(30) }
    }
}
pub struct Substituters;
impl Substituters {
    pub fn new(_: Vec<String>, _: ProbeLimits, _: &[(OsString, OsString)]) -> Self {
        Self
    }
    pub fn down(&self) -> usize {
        0
    }
    pub async fn choose(&self) -> Choice {
        Choice::default()
    }
}
pub fn effective(_: &[u8]) -> Option<Vec<String>> {
    None
}
