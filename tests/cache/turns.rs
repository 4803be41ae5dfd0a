//! Who may pass much at once: sessions of the real binary before a daemon of the test's, which speaks no
//! Nix.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix_csi::relay::{Desk, Limits};
use tokio::time::Instant;

use crate::lab::{node_binary, until};

/// What passes without a turn, and each second; a piece or two may be under way.
const FREE: u64 = 1 << 20;
const TRICKLE: u64 = 32 << 10;
const PIECES: u64 = 256 << 10;
/// More than that.
const MUCH: u64 = 4 << 20;

struct Place {
    dir: tempfile::TempDir,
    desk: tokio::task::JoinHandle<()>,
}

impl Place {
    /// `says` is what the daemon says to each session.
    fn new(limits: Limits, says: impl Fn(UnixStream) + Copy + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("daemon")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || says(stream));
            }
        });
        let account = rustix::process::getuid().as_raw();
        let desk = Desk::open(&dir.path().join("desk"), account, limits).unwrap();
        Self { dir, desk: tokio::spawn(desk.serve()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn session(&self) -> Session {
        let mut relay = Command::new(node_binary());
        relay.arg("relay").args([self.path("daemon"), self.path("desk")]);
        let piped = relay.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let heard = Arc::new(AtomicU64::new(0));
        let (mut output, counted) = (child.stdout.take().unwrap(), heard.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                counted.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Session { child, heard }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.desk.abort();
    }
}

struct Session {
    child: Child,
    heard: Arc<AtomicU64>,
}

impl Session {
    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// About 12 MB a second, as long as somebody listens.
fn flood(mut stream: UnixStream) {
    let piece = vec![0; 64 << 10];
    while stream.write_all(&piece).is_ok() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Much at first, then a line now and then, as of a build.
fn chat(mut stream: UnixStream) {
    let much = vec![0; usize::try_from(2 * MUCH).unwrap()];
    let mut said = stream.write_all(&much);
    while said.is_ok() {
        std::thread::park_timeout(Duration::from_millis(50));
        said = stream.write_all(&[b'\n'; 100]);
    }
}

fn having_much(sessions: &[Session]) -> usize {
    sessions.iter().filter(|session| session.heard() > MUCH).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_so_many_pass_much_and_the_others_are_slow_and_not_silent() {
    let place = Place::new(Limits { sessions: 10, per_key: 10, transfers: 2 }, flood);
    let began = Instant::now();
    let mut sessions: Vec<_> = (0..5).map(|_| place.session()).collect();
    until("two to pass much", async || having_much(&sessions) == 2).await;
    until("the others to come to their limit", async || {
        sessions.iter().all(|session| session.heard() > FREE - PIECES)
    })
    .await;
    let before: Vec<_> = sessions.iter().map(Session::heard).collect();
    until("all to hear something", async || {
        sessions.iter().zip(&before).all(|(session, before)| session.heard() > *before)
    })
    .await;
    let most = FREE + PIECES + TRICKLE * (1 + began.elapsed().as_secs());
    let slow = sessions.iter().filter(|session| session.heard() <= most).count();
    assert_eq!((slow, having_much(&sessions)), (3, 2));

    // One that is killed gives its turn back.
    let at = sessions.iter().position(|session| session.heard() > MUCH).unwrap();
    drop(sessions.swap_remove(at));
    until("another one to pass much", async || having_much(&sessions) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_says_little_keeps_nobody_waiting() {
    let place = Place::new(Limits { sessions: 10, per_key: 10, transfers: 1 }, chat);
    let sessions: Vec<_> = (0..4).map(|_| place.session()).collect();
    until("each to have had its turn", async || having_much(&sessions) == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_too_many_is_told_to_come_again() {
    let place = Place::new(Limits { sessions: 2, per_key: 2, transfers: 2 }, chat);
    let sessions = [place.session(), place.session()];
    until("both to be served", async || sessions.iter().all(|session| session.heard() > 0)).await;
    let mut refused = place.session();
    until("one to be refused", async || refused.is_over()).await;
    assert_eq!(refused.child.wait().unwrap().code(), Some(75));
    let mut said = String::new();
    refused.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("--max-sessions") && said.contains("try again later"), "{said}");
    assert_eq!(refused.heard(), 0);

    drop(sessions);
    until("another one to be served", async || {
        let mut next = place.session();
        until("an answer", async || next.heard() > 0 || next.is_over()).await;
        next.heard() > 0
    })
    .await;
}
