//! How much of the store an evaluation sees.

/// Whoever may not mount a path for knowing its name must not read it in an expression either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sight {
    /// The node's store, and whatever is in it.
    #[default]
    Store,
    /// A store of the tenant's own, with what its evaluations have fetched and made.
    Own,
}
