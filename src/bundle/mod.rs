//! What a bug report has of a process and of its machine: parts, each bounded in size and in time. One that
//! fails costs the others nothing.

mod clean;
mod machine;
mod settings;

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub use clean::{Cleaner, Known};
pub use machine::{Facts, nix_conf_file};
use machine::{disk, limits, mounts, os_release, processes, versions};
pub use settings::setting;

/// Bytes of one; a message of gRPC has 4 MiB at most.
pub const MOST: usize = 3 << 20;
/// For one.
pub const LIMIT: Duration = Duration::from_secs(10);
/// At once: parts wait for disks more than for anything else.
const AT_ONCE: usize = 4;

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// `None`: it could not be had.
    pub content: Option<Vec<u8>>,
    /// Why it is not there, or not whole; empty if it is.
    pub lacks: String,
}

impl Part {
    /// Cut at what may be.
    pub fn new(name: &str, content: Result<String, String>) -> Self {
        let name = name.to_owned();
        match content {
            Ok(mut text) => {
                let bytes = text.len();
                text.truncate(text.floor_char_boundary(MOST));
                let is_whole = text.len() == bytes;
                let cut = || format!("its first {} bytes of {bytes}", text.len());
                let lacks = if is_whole { String::new() } else { cut() };
                Self { name, content: Some(text.into_bytes()), lacks }
            }
            Err(lacks) => Self { name, content: None, lacks },
        }
    }
}

type Collect = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// Where a part comes from.
#[derive(Clone)]
pub struct Origin {
    name: &'static str,
    collect: Collect,
}

impl Origin {
    pub fn new<F>(name: &'static str, collect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        Self { name, collect: Arc::new(move || collect().boxed()) }
    }

    /// The same of what blocks; what hangs keeps its thread.
    pub fn blocking(
        name: &'static str,
        collect: impl Fn() -> Result<String, String> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, move || {
            let collect = collect.clone();
            async move { spawn_blocking(collect).await.unwrap_or_else(|panic| said(&panic)) }
        })
    }
}

/// An error as a part's.
pub fn said<T>(error: &impl Display) -> Result<T, String> {
    Err(error.to_string())
}

/// All parts, each as soon as it is there, without what `cleaner` takes out.
pub fn collect(
    origins: Vec<Origin>,
    cleaner: Cleaner,
) -> impl Stream<Item = Part> + Send + 'static {
    let parts = futures::stream::iter(origins).map(move |Origin { name, collect }| {
        let cleaner = cleaner.clone();
        async move {
            let late = |_| Err(format!("it took longer than {} s", LIMIT.as_secs()));
            let collected = timeout(LIMIT, collect()).await.unwrap_or_else(late);
            let told = collected.map(|text| cleaner.clean_file(name, &text));
            Part::new(name, told.map_err(|error| cleaner.clean(&error).into_owned()))
        }
    });
    parts.buffer_unordered(AT_ONCE)
}

/// What any process can say of the machine that it runs on.
pub fn of_machine(facts: Facts, disks: Vec<PathBuf>) -> Vec<Origin> {
    let of = facts.of;
    vec![
        Origin::blocking("versions.txt", move || Ok(versions(&facts))),
        Origin::blocking("os-release.txt", os_release),
        Origin::blocking("mountinfo.txt", mounts),
        Origin::blocking("limits.txt", limits),
        Origin::blocking("disk.txt", move || Ok(disk(&disks))),
        Origin::blocking("processes.txt", move || processes(of)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Vec<Origin> {
        vec![
            Origin::new("hangs", std::future::pending),
            Origin::blocking("panics", || panic!("for a test")),
            Origin::new("fails", || async { Err("no https://u:s3cret@h/".to_owned()) }),
            Origin::new("is", || async { Ok("see https://u:s3cret@h/".to_owned()) }),
            Origin::blocking("large", || Ok("é".repeat(MOST))),
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_costs_the_others_nothing() {
        let mut parts: Vec<_> = collect(origins(), Cleaner::default()).collect().await;
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        let lacks: Vec<_> = parts.iter().map(|part| (&*part.name, &*part.lacks)).collect();
        assert_eq!(lacks[0], ("fails", "no https://h/"));
        assert_eq!(lacks[1], ("hangs", "it took longer than 10 s"));
        assert_eq!(lacks[2], ("is", ""));
        assert_eq!(lacks[3], ("large", "its first 3145728 bytes of 6291456"));
        assert!(lacks[4].0 == "panics" && lacks[4].1.contains("panic"), "{lacks:?}");
        let is_there: Vec<_> = parts.iter().map(|part| part.content.is_some()).collect();
        assert_eq!(is_there, [false, false, true, true, false]);
        assert_eq!(parts[2].content.as_deref(), Some(&b"see https://h/"[..]));
    }
}
