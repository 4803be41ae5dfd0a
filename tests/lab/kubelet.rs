//! The kubelet, as one volume sees it: each call on a fresh connection and with a deadline, after a
//! failed one a pause that doubles, and then the same call again, whatever the code was.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use nix_csi::grpc::client::{self, Code, Status};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Node, Volume};

/// `csiTimeout` of the kubelet's CSI plugin.
const DEADLINE: Duration = Duration::from_secs(120);
/// Its `exponentialbackoff`: the first pause and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(122);

/// How many times faster than a real kubelet.
#[derive(Debug, Clone, Copy)]
pub struct Pace(u32);

impl Pace {
    /// Two minutes are two seconds, unless `NIX_CSI_FULL=1` asks for real ones.
    pub fn of_this_run() -> Self {
        let full = std::env::var_os("NIX_CSI_FULL").is_some_and(|value| value == "1");
        Self(if full { 1 } else { 60 })
    }

    /// What takes so many seconds with a real kubelet.
    pub fn seconds(self, real: u64) -> Duration {
        Duration::from_secs(real) / self.0
    }

    /// Bytes a second that take as long as `real` ones with a real kubelet.
    pub fn rate(self, real: usize) -> usize {
        real * usize::try_from(self.0).unwrap()
    }
}

/// One call and how it ended; times are since the kubelet's start.
#[derive(Debug, Clone)]
pub struct Call {
    pub start: Duration,
    pub end: Duration,
    /// The end by the clock that builders read.
    pub ended: SystemTime,
    pub code: Code,
    pub message: String,
}

pub struct Kubelet {
    csi: PathBuf,
    volume: Volume,
    pace: Pace,
    began: Instant,
    calls: Mutex<Vec<Call>>,
}

impl Kubelet {
    /// It outlives the node: what counts is the socket's path.
    pub fn new(node: &Node, volume: &Volume, pace: Pace) -> Self {
        let (csi, volume) = (node.csi.clone(), volume.clone());
        Self { csi, volume, pace, began: Instant::now(), calls: Mutex::default() }
    }

    /// Calls until the volume is there; the call that brought it.
    pub async fn until_published(&self) -> Call {
        // Real kubelets never give up; a test's must.
        let patience = self.pace.seconds(20 * 60).max(Duration::from_secs(45));
        let published = async {
            loop {
                self.paused().await;
                let call = self.once(self.pace.seconds(DEADLINE.as_secs())).await;
                if call.code == Code::Ok {
                    return call;
                }
            }
        };
        let published = timeout(patience, published).await;
        published.unwrap_or_else(|_| panic!("not published: {:#?}", self.calls()))
    }

    /// One call that ends with the kubelet's own death, if it has not ended before.
    pub async fn cancel_after(&self, limit: Duration) -> Call {
        self.paused().await;
        let mut call = self.once(limit).await;
        if call.code == Code::DeadlineExceeded {
            call.code = Code::Cancelled;
            self.calls.lock().unwrap().last_mut().unwrap().code = Code::Cancelled;
        }
        call
    }

    /// Every call that has ended.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub fn codes(&self) -> Vec<Code> {
        self.calls().iter().map(|call| call.code).collect()
    }

    /// After a final code the kubelet forgets the volume and may never unpublish it.
    pub fn assert_only_retryable(&self) {
        let retryable = [
            Code::Ok,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        let calls = self.calls();
        assert!(calls.iter().all(|call| retryable.contains(&call.code)), "{calls:#?}");
    }

    /// Until the pause after the last call is over.
    async fn paused(&self) {
        let until = {
            let calls = self.calls.lock().unwrap();
            let Some(last) = calls.last() else { return };
            let doubled = u32::try_from(calls.len() - 1).unwrap().min(8);
            let pause = FIRST_PAUSE * 2_u32.pow(doubled);
            self.began + last.end + pause.min(LONGEST_PAUSE) / self.pace.0
        };
        sleep_until(until).await;
    }

    async fn once(&self, limit: Duration) -> Call {
        let asked = Instant::now();
        let answer = timeout(limit, self.publish()).await;
        let took = asked.elapsed();
        let (code, message) = match answer {
            Ok(Ok(())) => (Code::Ok, String::new()),
            // By whose clock the deadline passes first does not matter to gRPC's client.
            Ok(Err(_)) | Err(_) if took >= limit => {
                (Code::DeadlineExceeded, "context deadline exceeded".to_owned())
            }
            Ok(Err(status)) => (status.code(), status.message().to_owned()),
            Err(_) => unreachable!("the limit has passed"),
        };
        let start = asked.duration_since(self.began);
        let call = Call { start, end: start + took, ended: SystemTime::now(), code, message };
        self.calls.lock().unwrap().push(call.clone());
        call
    }

    async fn publish(&self) -> Result<(), Status> {
        let connected = client::node(&self.csi).await;
        let mut node = connected.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = tonic::Request::new(self.volume.request());
        // The server is told the deadline too.
        request.set_timeout(self.pace.seconds(DEADLINE.as_secs()));
        let answer = node.node_publish_volume(request).await.map(drop);
        // A connection that broke, not the server's word; gRPC's Go client says it so.
        answer.map_err(|e| match std::error::Error::source(&e) {
            Some(broken) => Status::unavailable(broken.to_string()),
            None => e,
        })
    }
}
