//! The file that lists sources, and how it is followed.

use std::path::Path;

use actix::Handler;

use super::FILE;
use super::actor::Keeper;
use crate::actors::core::{Ctx, blocking};
use crate::actors::metrics;
use crate::actors::reconciler::{self, Look, directory, read_text};
use crate::metrics::count;
use crate::model::SourceList;

impl Keeper {
    pub(super) fn follow(&mut self, ctx: &mut Ctx<Self>) {
        if let Some(file) = &self.config.file {
            reconciler::follow([directory(file)].into(), ctx);
        }
    }

    /// What the file says counts from now on; one that can't be read changes nothing. Whether there is
    /// anything new.
    pub(super) fn read(&mut self, read: Result<SourceList, String>) -> bool {
        let before = self.listed.clone();
        let refused = match read {
            Ok(SourceList { sources, refused }) => {
                self.listed = Some(sources);
                refused
            }
            Err(why) => vec![why],
        };
        for why in refused.iter().filter(|why| !self.refused.contains(why)) {
            tracing::warn!(kind = FILE, "{why}");
        }
        metrics::CONFIG_REFUSED.with_label_values(&[FILE]).set(count(refused.len()));
        self.refused = refused;
        self.listed != before
    }

    fn read_again(&mut self, ctx: &mut Ctx<Self>) {
        let Some(file) = self.config.file.clone() else {
            return;
        };
        if !self.reading.begin() {
            return;
        }
        ctx.effect(blocking(move || list(&file)), |this, read, ctx| {
            match read {
                Ok(read) => {
                    if this.read(read) {
                        this.apply_settings(ctx);
                    }
                }
                Err(panic) => return ctx.fail(format!("reading the list of sources: {panic}")),
            }
            if this.reading.end() {
                this.read_again(ctx);
            }
        });
    }
}

/// Blocking.
pub(super) fn list(file: &Path) -> Result<SourceList, String> {
    let told = |why: String| format!("{}: {why}", file.display());
    let text = read_text(file).map_err(&told)?;
    let SourceList { sources, refused } = SourceList::parse(&text);
    Ok(SourceList { sources, refused: refused.into_iter().map(told).collect() })
}

impl Handler<Look> for Keeper {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Ctx<Self>) {
        self.read_again(ctx);
    }
}
