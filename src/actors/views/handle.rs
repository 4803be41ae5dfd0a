//! The views actor as other rooms see it.

use actix::Addr;

use super::count::Count;
use super::{ListViews, ViewSummary, Views};
use crate::actors::core::{ActorGone, ask};

/// Answers questions about views; an actor that is gone knows of none.
#[derive(Clone)]
pub struct ViewsHandle(pub(crate) Addr<Views>);

impl ViewsHandle {
    /// Whether the actor answers.
    pub async fn answer(&self) -> Result<(), ActorGone> {
        ask(&self.0, ListViews).await.map(drop)
    }

    /// Counts for the metrics, at scrape time.
    pub async fn count(&self) {
        let _ = ask(&self.0, Count).await; // gone: what it said last stays
    }

    pub async fn list(&self) -> Vec<ViewSummary> {
        ask(&self.0, ListViews).await.unwrap_or_default()
    }
}
