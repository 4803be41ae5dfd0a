//! The cache's half: a socket at which each session has a connection while it lives. What a session has
//! of the desk it gives back by ending, however that comes.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::key::{KeyId, Shares, Spent};
use crate::metrics::register;

/// To a session: it may be, or may not, or its key has all it may; it is its turn. From one: whose it is,
/// as a [`KeyId`]; it wants a turn; it is done with it.
pub(super) const ADMITTED: u8 = b'+';
pub(super) const REFUSED: u8 = b'-';
pub(super) const KEY_REFUSED: u8 = b'k';
pub(super) const TURN: u8 = b't';
pub(super) const WANTED: u8 = b'w';
pub(super) const DONE: u8 = b'd';

/// After an accept that failed, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// For a session to say whose it is.
const PATIENCE: Duration = Duration::from_secs(10);

static SESSIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new("nixcsi_cache_sessions", "Sessions of clients over ssh."))
});
static REFUSALS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Sessions beyond --max-sessions or --max-sessions-per-key.";
    register(IntCounter::new("nixcsi_cache_sessions_refused_total", help))
});
static TRANSFERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Sessions that pass more than a trickle, or wait for their turn to.";
    register(IntGaugeVec::new(Opts::new("nixcsi_cache_transfers", help), &["state"]))
});

/// Registers all metrics of the desk.
pub fn register_metrics() {
    LazyLock::force(&SESSIONS);
    LazyLock::force(&REFUSALS);
    LazyLock::force(&TRANSFERS);
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub sessions: usize,
    /// Of those, how many one key may have.
    pub per_key: usize,
    /// Of those, how many may pass as much as they can.
    pub transfers: usize,
}

pub struct Desk {
    listener: UnixListener,
    /// The one account, beside root, that has sessions.
    account: u32,
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    sessions: Semaphore,
    shares: Shares,
    /// Fair: who came first is first.
    transfers: Semaphore,
    is_full: AtomicBool,
    is_busy: AtomicBool,
}

impl Desk {
    /// Replaces a socket that an earlier process left.
    pub fn open(socket: &Path, account: u32, limits: Limits) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        // Who connects is looked at.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
        let shared = Shared {
            limits,
            sessions: Semaphore::new(limits.sessions),
            shares: Shares::new(limits.per_key),
            transfers: Semaphore::new(limits.transfers),
            is_full: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
        };
        for state in ["moving", "waiting"] {
            TRANSFERS.with_label_values(&[state]).set(0);
        }
        SESSIONS.set(0);
        REFUSALS.inc_by(0);
        Ok(Self { listener, account, shared: Arc::new(shared) })
    }

    /// For ever; when it is dropped, what there is of sessions trickles.
    pub async fn serve(self) {
        let mut sessions = tokio::task::JoinSet::new();
        loop {
            while sessions.try_join_next().is_some() {}
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "can't accept a session");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let is_ours = |uid: u32| uid == self.account || uid == 0;
            if stream.peer_cred().is_ok_and(|peer| is_ours(peer.uid())) {
                let shared = self.shared.clone();
                sessions.spawn(async move { shared.session(stream).await });
            }
        }
    }
}

impl Shared {
    /// An error is its end.
    async fn session(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut key = KeyId([0; 32]);
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut key.0)).await??;
        let Ok(_admitted) = self.sessions.try_acquire() else {
            REFUSALS.inc();
            if !self.is_full.swap(true, Ordering::Relaxed) {
                let most = self.limits.sessions;
                tracing::warn!(most, "sessions are refused for now: --max-sessions");
            }
            return stream.write_all(&[REFUSED]).await;
        };
        let _share = match self.shares.take(key) {
            Ok(share) => share,
            Err(Spent { is_new }) => {
                REFUSALS.inc();
                if is_new {
                    let most = self.limits.per_key;
                    tracing::warn!(%key, most, "a key's sessions are refused: --max-sessions-per-key");
                }
                return stream.write_all(&[KEY_REFUSED]).await;
            }
        };
        let _counted = Counted::new(SESSIONS.clone());
        let ended = self.admitted(&mut stream).await;
        // Not with each one that ends while others wait at the door.
        if self.sessions.available_permits() * 10 >= self.limits.sessions {
            self.is_full.store(false, Ordering::Relaxed);
        }
        ended
    }

    async fn admitted(&self, stream: &mut UnixStream) -> io::Result<()> {
        stream.write_all(&[ADMITTED]).await?;
        loop {
            heard(stream, WANTED).await?;
            // What a session says while it waits is its end.
            let turn = tokio::select! {
                turn = self.turn() => turn,
                said = stream.read_u8() => return said.map(drop),
            };
            let _counted = Counted::new(TRANSFERS.with_label_values(&["moving"]));
            stream.write_all(&[TURN]).await?;
            heard(stream, DONE).await?;
            drop(turn);
        }
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(free) = self.transfers.try_acquire() {
            self.is_busy.store(false, Ordering::Relaxed);
            return Some(free);
        }
        let _counted = Counted::new(TRANSFERS.with_label_values(&["waiting"]));
        if !self.is_busy.swap(true, Ordering::Relaxed) {
            let most = self.limits.transfers;
            tracing::info!(most, "transfers wait for their turn: --max-transfers");
        }
        self.transfers.acquire().await.ok()
    }
}

async fn heard(stream: &mut UnixStream, word: u8) -> io::Result<()> {
    if stream.read_u8().await? == word { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
