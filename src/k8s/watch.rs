//! A watch of objects of one kind, as what an actor needs to hear of it.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::error::with_causes;

/// What a watch tells. The first is a `Reset`, or `Lost` until there can be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// These are all that there are.
    Reset(Vec<T>),
    Applied(T),
    Deleted(T),
    /// The watch broke and is begun anew: what is known may be old until the next `Reset`.
    Lost(String),
}

/// Watches without end; after an error it begins anew by itself, with a backoff. Of each object only
/// what `parse` makes of it is kept.
pub(super) fn changes<K, T>(
    api: Api<K>,
    config: watcher::Config,
    parse: fn(K) -> Option<T>,
) -> impl Stream<Item = Change<T>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send,
{
    let fold = move |listed: &mut Vec<T>, item: watcher::Result<watcher::Event<K>>| {
        // A list comes in parts, and is one message when it is whole.
        let change = match item {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(parse(object));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Change::Reset(std::mem::take(listed))),
            Ok(watcher::Event::Apply(object)) => parse(object).map(Change::Applied),
            Ok(watcher::Event::Delete(object)) => parse(object).map(Change::Deleted),
            Err(error) => Some(Change::Lost(with_causes(&error))),
        };
        futures::future::ready(Some(change))
    };
    let changes = watcher(api, config).default_backoff();
    changes.scan(Vec::new(), fold).filter_map(futures::future::ready)
}
