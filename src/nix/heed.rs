//! Runs what fetches or builds, and learns from what it says about the stores that it asked.

use tokio::time::Instant;

use crate::model::Secret;

use super::command::CommandSpec;
use super::internal_log::LogReader;
use super::process::Ended;
use super::real::Inner;
use super::stall::Pulse;
use super::substituters::Choice;
use super::{Limit, NixError, ProgressSink, RealiseError, Step, process};

impl Inner {
    /// Substituters that a command could not reach are left out of the next one. A builder's word does
    /// not count: one tenant's build would take a cache from all others.
    pub(super) fn learn_from(&self, log: &LogReader) {
        if let Some(substituters) = &*self.known_substituters() {
            let messages = log.warnings().chain(log.errors()).filter(|m| !m.maybe_a_builders);
            messages.for_each(|message| substituters.learn_from(&message.text));
        }
    }

    /// Runs a command that fetches or builds, and reads its log. An error is a store over ssh from which
    /// nothing came, at this step; `None` instead of its end: it took longer than a realisation may.
    pub(super) async fn heed<K: Send + 'static>(
        &self,
        spec: &CommandSpec,
        progress: &ProgressSink,
        kept: K,
        choice: &Choice,
        (step, secret): (Step, Option<&Secret>),
    ) -> Result<(Option<Result<(Ended, K), NixError>>, LogReader), RealiseError> {
        // A file that can't be read has none to show.
        let mut tokens = self.tokens().unwrap_or_default();
        tokens.add(secret);
        let mut log = LogReader::new(self.redactor(&tokens, secret));
        let pulse = Pulse::new(self.heard.clone());
        let there = step == Step::Build;
        let ended = {
            let on_line = |line: &[u8]| {
                progress.update(|p| {
                    log.line(line, p);
                    p.spent.note(log.activities(), there, Instant::now());
                });
                pulse.beat(&log);
            };
            let run = process::run(spec, &[], on_line, kept);
            tokio::select! {
                ended = self.config.limits.realise.bound(run) => Ok(ended),
                () = self.stalls(&pulse, choice) => Err(self.stalled(choice, step)),
            }
        };
        progress.update(|p| p.spent.end(Instant::now()));
        Ok((ended?, log))
    }

    /// Ends when a command that may wait for a store over ssh has heard nothing for too long.
    async fn stalls(&self, pulse: &Pulse, choice: &Choice) {
        if choice.has_ssh() {
            pulse.stops(self.config.limits.stall).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Leaves those stores out from now on.
    fn stalled(&self, choice: &Choice, step: Step) -> RealiseError {
        let Limit { setting, most } = self.config.limits.stall;
        let most = humantime::format_duration(most);
        let reason = format!("it said nothing for {most} ({setting})");
        let known = self.known_substituters().clone();
        let urls = known.map(|s| s.report_stalled(choice, &reason)).unwrap_or_default();
        let who = if urls.is_empty() { "a store over ssh".to_owned() } else { urls.join(" and ") };
        let cause = format!("{who} said nothing for {most}: {setting}");
        RealiseError::Temporary { step, cause }
    }
}
