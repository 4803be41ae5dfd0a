//! What a run of Nix's is at, by its log. Pure, and bounded in memory.

use std::collections::HashMap;

use super::log_line::Line;

pub(super) const COPY_PATH: u64 = 100;
pub(super) const FILE_TRANSFER: u64 = 101;
pub(super) const COPY_PATHS: u64 = 103;
pub(super) const BUILDS: u64 = 104;
pub(super) const BUILD: u64 = 105;
pub(super) const SUBSTITUTE: u64 = 108;
/// For a lock, or for a machine to build on.
pub(super) const BUILD_WAITING: u64 = 110;
pub(super) const FETCH_TREE: u64 = 112;

const MAX_ACTIVITIES: usize = 4096;
/// Of each kind: those of more are not counted.
const MAX_NAMES: usize = 1 << 14;

#[derive(Default)]
pub(super) struct Activity {
    pub(super) kind: u64,
    /// A derivation's or a path's name.
    pub(super) name: String,
    pub(super) done: u64,
    pub(super) expected: u64,
}

/// Those under way, by their numbers, and what came of others.
#[derive(Default)]
pub(super) struct Activities {
    all: HashMap<u64, Activity>,
    fetches: usize,
    builds: usize,
    /// The derivations whose builds started, as Nix names them.
    built: Vec<String>,
    built_afar: bool,
    /// Paths of which a fetch began, and from where it did last.
    fetched: HashMap<String, String>,
    /// Paths of which a copy began.
    copied: Vec<String>,
}

impl Activities {
    pub(super) fn start(&mut self, id: u64, activity: Activity, line: &Line) {
        let what = || line.string(0).to_owned();
        match activity.kind {
            BUILD => {
                self.built_afar |= !line.string(1).is_empty();
                if self.built.len() < MAX_NAMES {
                    self.built.push(what());
                }
            }
            SUBSTITUTE if self.fetched.len() < MAX_NAMES => {
                self.fetched.insert(what(), line.string(1).to_owned());
            }
            COPY_PATH if self.copied.len() < MAX_NAMES => self.copied.push(what()),
            _ => {}
        }
        if self.all.len() >= MAX_ACTIVITIES {
            return;
        }
        self.stop(id);
        if let Some(count) = self.counter(activity.kind) {
            *count += 1;
        }
        self.all.insert(id, activity);
    }

    pub(super) fn stop(&mut self, id: u64) -> Option<Activity> {
        let activity = self.all.remove(&id)?;
        if let Some(count) = self.counter(activity.kind) {
            *count -= 1;
        }
        Some(activity)
    }

    fn counter(&mut self, kind: u64) -> Option<&mut usize> {
        match kind {
            SUBSTITUTE => Some(&mut self.fetches),
            BUILD => Some(&mut self.builds),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Activity> {
        self.all.get_mut(&id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Activity> {
        self.all.values()
    }

    /// Whether a fetch and whether a build is under way.
    pub(super) fn fetch_and_build(&self) -> (bool, bool) {
        (self.fetches > 0, self.builds > 0)
    }

    pub(super) fn built(&self) -> &[String] {
        &self.built
    }

    /// On another machine than the store's.
    pub(super) fn built_afar(&self) -> bool {
        self.built_afar
    }

    /// With the substituter of each.
    pub(super) fn fetched(&self) -> &HashMap<String, String> {
        &self.fetched
    }

    pub(super) fn copied(&self) -> &[String] {
        &self.copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::Progress;
    use crate::nix::internal_log::LogReader;

    fn start(id: u64, kind: u64, fields: &str) -> String {
        format!(r#"@nix {{"action":"start","id":{id},"type":{kind},"fields":[{fields}]}}"#)
    }

    fn read(lines: &[String]) -> LogReader {
        let (mut log, mut progress) = (LogReader::default(), Progress::default());
        for line in lines {
            log.line(line.as_bytes(), &mut progress);
        }
        log
    }

    #[test]
    fn what_is_fetched_and_copied_is_named_once_with_its_last_substituter() {
        let fetch =
            |id: u64, from: &str| start(id, SUBSTITUTE, &format!(r#""/nix/store/x","{from}""#));
        let copy = start(2, COPY_PATH, r#""/nix/store/x","https://c","daemon""#);
        let stop = r#"@nix {"action":"stop","id":1}"#.to_owned();
        let log = read(&[fetch(1, "https://a"), stop, fetch(3, "https://c"), copy]);
        let expected = HashMap::from([("/nix/store/x".to_owned(), "https://c".to_owned())]);
        assert_eq!(*log.activities().fetched(), expected);
        assert_eq!(log.activities().copied(), ["/nix/store/x"]);
    }

    #[test]
    fn numbers_that_come_again_leave_the_counts_right() {
        let build = start(1, BUILD, r#""/nix/store/x.drv","",1,1"#);
        let fetch = start(1, SUBSTITUTE, r#""/nix/store/x","https://c""#);
        let stop = r#"@nix {"action":"stop","id":1}"#.to_owned();
        let mut lines = vec![build.clone(), build, fetch];
        let log = read(&lines);
        assert_eq!(log.activities().fetch_and_build(), (true, false));
        assert_eq!(log.activities().built().len(), 2);
        assert!(!log.activities().built_afar());
        lines.push(stop);
        assert_eq!(read(&lines).activities().fetch_and_build(), (false, false));
    }

    #[test]
    fn memory_is_bounded() {
        let lines = |kind: u64| {
            (0..MAX_NAMES as u64 + 9).map(move |n| start(n, kind, &format!(r#""p{n}","u""#)))
        };
        let all: Vec<_> = [BUILD, SUBSTITUTE, COPY_PATH].into_iter().flat_map(lines).collect();
        let log = read(&all);
        let activities = log.activities();
        let names = [activities.built.len(), activities.fetched.len(), activities.copied.len()];
        assert_eq!((names, activities.all.len()), ([MAX_NAMES; 3], MAX_ACTIVITIES));
    }
}
