//! What a collection takes, oldest use first. Pure.
//!
//! A path was used when something was that refers to it: what a closure needs is as young as the closure.
//! So an old path's referrers are old too, and whatever is cut off from the end of a plan, what is left can
//! be deleted from its beginning.

use super::used::Uses;
use crate::model::{Index, StoreGraph};

/// A path that nothing holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    pub path: Index,
    /// Seconds since 1970: of itself, or of what refers to it.
    pub used: u64,
}

/// All that is dead, in an order in which it can be deleted: referrers first. `reached`: see
/// [`StoreGraph::reached`].
pub fn dead(graph: &StoreGraph, reached: &[Option<Index>], uses: &Uses) -> Vec<Dead> {
    let is_dead = |path: Index| reached[path as usize].is_none();
    let mut last: Vec<u64> = Vec::with_capacity(graph.len());
    let mut referrers = vec![0u32; graph.len()];
    for path in graph.indices() {
        let known = graph.path(path);
        last.push(uses.of(&known.path, known.at));
        if is_dead(path) {
            for to in graph.references(path) {
                referrers[*to as usize] += 1;
            }
        }
    }
    // Whose referrers are all in the order already.
    let mut ready: Vec<Index> =
        graph.indices().filter(|path| is_dead(*path) && referrers[*path as usize] == 0).collect();
    let mut order = Vec::with_capacity(ready.len());
    while let Some(path) = ready.pop() {
        let used = last[path as usize];
        order.push(Dead { path, used });
        for &to in graph.references(path) {
            let n = to as usize;
            last[n] = last[n].max(used);
            referrers[n] -= 1;
            if referrers[n] == 0 && is_dead(to) {
                ready.push(to);
            }
        }
    }
    // Stable: of the same age a referrer stays before what it refers to.
    order.sort_by_key(|dead| dead.used);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::HashMap;

    use super::*;
    use crate::model::{Registered, StorePath};

    fn path(n: u32) -> StorePath {
        StorePath::parse(&format!("/nix/store/{n:0>32}-p")).unwrap()
    }

    fn graph(ages: &[u64], references: &[(u32, u32)]) -> StoreGraph {
        let paths = ages.iter().zip(0..);
        let paths = paths.map(|(at, n)| Registered { path: path(n), at: *at, nar_size: 1 });
        StoreGraph::new(paths.collect(), references.to_vec())
    }

    fn order(all: &[Dead]) -> Vec<(u32, u64)> {
        all.iter().map(|dead| (dead.path, dead.used)).collect()
    }

    #[test]
    fn what_a_used_closure_needs_is_as_young() {
        // 0 → 1 → 2, 3 → 2; 4 is a root and needs 5.
        let graph = graph(&[10, 1, 2, 5, 0, 0], &[(0, 1), (1, 2), (3, 2), (4, 5), (1, 1)]);
        let reached = graph.reached([4]);
        assert_eq!(reached, [None, None, None, None, Some(4), Some(4)]);
        let none = Uses::default();
        assert_eq!(order(&dead(&graph, &reached, &none)), [(3, 5), (0, 10), (1, 10), (2, 10)]);
        let used = Uses { known: HashMap::from([(path(3), 20)]), since: 4 };
        assert_eq!(order(&dead(&graph, &reached, &used)), [(0, 10), (1, 10), (3, 20), (2, 20)]);
    }

    proptest! {
        #[test]
        fn any_beginning_of_a_plan_can_be_deleted(
            ages in prop::collection::vec(0..50u64, 1..40),
            edges in prop::collection::vec((0..40u32, 0..40u32), 0..120),
            roots in prop::collection::vec(0..40u32, 0..4),
        ) {
            let count = u32::try_from(ages.len()).unwrap();
            // References are older: no circles.
            let edges: Vec<_> =
                edges.into_iter().map(|(a, b)| (a.max(b) % count, a.min(b) % count))
                .filter(|(a, b)| a > b).collect();
            let graph = graph(&ages, &edges);
            let reached = graph.reached(roots.into_iter().filter(|root| *root < count));
            let plan = dead(&graph, &reached, &Uses::default());
            let place: HashMap<u32, usize> =
                plan.iter().enumerate().map(|(n, dead)| (dead.path, n)).collect();
            prop_assert_eq!(place.len(), reached.iter().filter(|by| by.is_none()).count());
            for (from, to) in edges {
                if let Some(needed) = place.get(&to) {
                    prop_assert!(place[&from] < *needed, "{} before {}", to, from);
                }
            }
            prop_assert!(plan.windows(2).all(|two| two[0].used <= two[1].used));
            prop_assert!(plan.iter().all(|dead| dead.used >= graph.path(dead.path).at));
        }
    }

    #[test]
    fn a_large_store_is_planned_soon() {
        let count = 100_000u32;
        let ages: Vec<u64> = (0..u64::from(count)).collect();
        let edges: Vec<_> =
            (1..count).flat_map(|n| (1..=10).map(move |k| (n, n / (k + 1)))).collect();
        let graph = graph(&ages, &edges);
        let plan = dead(&graph, &graph.reached([7]), &Uses::default());
        assert!(plan.len() > 90_000);
    }
}
