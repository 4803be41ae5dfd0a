//! From the metrics of nodes and cache to rows. Pure.

use super::Row;

pub(super) const CACHE: &str = "cache reachable";
pub(super) const BUILDERS: &str = "builders";

/// Families of the driver's, and what their states are called; a test compares them with the driver's own.
pub(super) const LAST_UPLOAD: &str = "nixcsi_cache_last_upload";
pub(super) const BUILDERS_BY_STATE: &str = "nixcsi_builders";
const PUSHES: &str = "nixcsi_upload_seconds_count";

/// What a pod's `/metrics` said.
#[derive(Debug, Clone)]
pub(super) struct Samples(String);

impl Samples {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// Value of each sample of a family with one label.
    fn family<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (label, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("\"} ")?;
            Some((label.split_once("=\"")?.1, value.trim().parse().ok()?))
        })
    }

    /// How often the node has pushed to its cache.
    pub(super) fn pushes(&self) -> f64 {
        self.family(PUSHES).map(|(_, count)| count).sum()
    }

    /// How the last push ended; `None`: the node uploads nothing.
    pub(super) fn last_upload(&self) -> Option<&str> {
        let known = self.family(LAST_UPLOAD).find(|(_, value)| *value > 0.0);
        known.map(|(how, _)| how)
    }
}

/// A pod by what is to be shown of it, and its metrics or why there are none.
pub(super) type Asked = (String, Result<Samples, String>);

const NOT_ASKED: &str = "it needs get on pods/proxy in the driver's namespace, and a network policy that lets the \
                         API server reach the port metrics";

/// What nodes say of their cache.
pub(super) fn cache(nodes: &[Asked]) -> Row {
    let (mut failures, mut reached, mut untold, mut ways) = (Vec::new(), 0, 0, Vec::new());
    for (node, asked) in nodes {
        let (why, way) = match asked.as_ref().map(Samples::last_upload) {
            Ok(None) => continue,
            Ok(Some("ok")) => {
                reached += 1;
                continue;
            }
            Ok(Some("none")) => {
                untold += 1;
                continue;
            }
            Ok(Some(how)) => refusal(how),
            Err(error) => (format!("its metrics can't be read: {error}"), NOT_ASKED),
        };
        failures.push(format!("{node}: {why}"));
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    if !failures.is_empty() {
        return Row::failed(CACHE, failures.join("; "), ways.join("; "));
    }
    match (reached, untold) {
        (0, 0) => Row::skipped(CACHE, "no node uploads to a cache"),
        (0, _) => Row::skipped(CACHE, "no node has uploaded anything yet"),
        (_, 0) => Row::ok(CACHE, format!("the last upload of {reached} nodes succeeded")),
        _ => Row::ok(
            CACHE,
            format!("the last upload of {reached} nodes succeeded; {untold} had none yet"),
        ),
    }
}

fn refusal(how: &str) -> (String, &'static str) {
    let (why, way) = match how {
        "unreachable" => (
            "the cache did not answer",
            "is its pod ready, its Service and NetworkPolicy there, and the URL of NIX_CSI_CACHE right?",
        ),
        "key-refused" => (
            "the cache refused the node's ssh key",
            "put the node's public key into the cache's --authorized-keys (ConfigMap nix-csi-cache-authorized); \
             docs/keys.md",
        ),
        "host-key" => (
            "the cache's host key is not the one that the node knows",
            "put it into the node's known_hosts (ConfigMap nix-csi-public-keys); docs/keys.md",
        ),
        "signing" => (
            "the node can't sign what it uploads",
            "look at NIX_CSI_SIGNING_KEY (Secret nix-csi-node-keys); docs/keys.md",
        ),
        "full" => ("the cache's disk is full", "make room: `nix-csi gc` in its pod; docs/gc.md"),
        "refused" => (
            "the cache did not take a closure",
            "is the node's signing key among the cache's --trusted-public-key? `nix-csi uploads` in the \
             driver's pod has the reason",
        ),
        _ => ("an upload failed", "`nix-csi uploads` in the driver's pod has the reason"),
    };
    (format!("{why} ({how})"), way)
}

/// What the cache says of its builders.
pub(super) fn builders(caches: &[Asked]) -> Row {
    let Some((pod, asked)) = caches.first() else {
        return Row::skipped(BUILDERS, "there is no cache that runs");
    };
    let samples = match asked {
        Ok(samples) => samples,
        Err(error) => {
            let found = format!("the metrics of {pod} can't be read: {error}");
            return Row::failed(BUILDERS, found, NOT_ASKED);
        }
    };
    let known: Vec<_> = samples.family(BUILDERS_BY_STATE).collect();
    if known.is_empty() {
        return Row::skipped(BUILDERS, "the cache has no --builder-namespace");
    }
    let count = |state: &str| known.iter().find(|(s, _)| *s == state).map_or(0.0, |(_, n)| *n);
    let some = known.iter().filter(|(_, count)| *count > 0.0);
    let found: Vec<_> = some.map(|(state, count)| format!("{count} {state}")).collect();
    let found = found.join(", ");
    if count("benched") + count("invalid") > 0.0 {
        let way = "benched builders don't answer the cache at port ssh (NetworkPolicy, keys), invalid ones have \
                   an annotation that can't be read: the cache's log names them; docs/cache.md";
        return Row::failed(BUILDERS, found, way);
    }
    if count("ready") > 0.0 {
        return Row::ok(BUILDERS, found);
    }
    let found = if found.is_empty() { "none".to_owned() } else { found };
    let way = "nodes' pods need the label of --builder-selector, and --ssh-listen; docs/cache.md";
    Row::failed(BUILDERS, found, way)
}

#[cfg(test)]
mod tests;
