//! What was uploaded lately. Pure.

use std::collections::{HashSet, VecDeque};

use crate::model::StorePath;

/// A node's working set is far smaller; what falls out is offered to the cache once more.
const MOST: usize = 4096;

/// Roots that the cache has taken, the latest of them.
#[derive(Debug, Default)]
pub(super) struct Sent {
    known: HashSet<StorePath>,
    order: VecDeque<StorePath>,
}

impl Sent {
    pub(super) fn contains(&self, path: &StorePath) -> bool {
        self.known.contains(path)
    }

    pub(super) fn insert(&mut self, path: StorePath) {
        if !self.known.insert(path.clone()) {
            return;
        }
        self.order.push_back(path);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let path = |n: usize| {
            let name = format!("0123456789abcdfghijklmnpqrsvwxyz-{n}");
            StorePath::from_base_name(&name).unwrap()
        };
        let mut sent = Sent::default();
        (0..=MOST).for_each(|n| sent.insert(path(n)));
        sent.insert(path(MOST));
        assert!(!sent.contains(&path(0)));
        assert!(sent.contains(&path(1)) && sent.contains(&path(MOST)));
        assert_eq!((sent.known.len(), sent.order.len()), (MOST, MOST));
    }
}
