//! Metrics of all calls, whichever service they are of.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{LazyLock, OnceLock};
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntGauge, IntGaugeVec, Opts};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::server::NamedService;

use crate::metrics::{SECONDS, register};

static CALL_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one gRPC call; of a stream, until it ended.";
    let opts = HistogramOpts::new("nixcsi_grpc_seconds", help).buckets(SECONDS.to_vec());
    register(HistogramVec::new(opts, &["method", "code"]))
});

static IN_FLIGHT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_grpc_in_flight", "gRPC calls under way.");
    register(IntGaugeVec::new(opts, &["method"]))
});

/// Registers them all.
pub(crate) fn register_metrics() {
    LazyLock::force(&CALL_SECONDS);
    LazyLock::force(&METHODS);
}

/// Of all services. What a client calls otherwise is [`OTHER`]: its path is no label.
const NAMES: [&str; 25] = [
    "GetPluginInfo",
    "GetPluginCapabilities",
    "Probe",
    "NodeStageVolume",
    "NodeUnstageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeGetVolumeStats",
    "NodeExpandVolume",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "Status",
    "Progress",
    "Builds",
    "WatchBuilds",
    "RetryBuilds",
    "ListUploads",
    "RetryUploads",
    "Prefetch",
    "Release",
    "Policy",
    "Bundle",
    "GetInfo",
    "NotifyRegistrationStatus",
    OTHER,
];
const OTHER: &str = "other";

/// As gRPC's specification names them, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Its metrics, so that a call looks up no label.
struct Method {
    name: &'static str,
    in_flight: IntGauge,
    seconds: [OnceLock<Histogram>; CODES.len()],
}

static METHODS: LazyLock<[Method; NAMES.len()]> = LazyLock::new(|| {
    NAMES.map(|name| Method {
        name,
        in_flight: IN_FLIGHT.with_label_values(&[name]),
        seconds: [const { OnceLock::new() }; CODES.len()],
    })
});

impl Method {
    /// `path` is `/package.Service/Method`.
    fn of(path: &str) -> &'static Self {
        let called = path.rsplit('/').next().unwrap_or_default();
        let [known @ .., other] = &*METHODS;
        known.iter().find(|method| method.name == called).unwrap_or(other)
    }

    fn ended(&self, code: Code, seconds: f64) {
        let n = code as usize;
        let seen =
            self.seconds[n].get_or_init(|| CALL_SECONDS.with_label_values(&[self.name, CODES[n]]));
        seen.observe(seconds);
    }
}

/// A call under way; it ends when this is dropped.
struct Call {
    method: &'static Method,
    began: Instant,
    /// Cancelled, unless the service has said how it ended.
    code: Code,
}

impl Call {
    fn begin(path: &str) -> Self {
        let method = Method::of(path);
        method.in_flight.inc();
        Self { method, began: Instant::now(), code: Code::Cancelled }
    }

    /// A status is in the headers of what failed at once, and in the trailers of all else.
    fn learn(&mut self, of: &http::HeaderMap) {
        if let Some(status) = of.get("grpc-status") {
            self.code = Code::from_bytes(status.as_bytes());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.in_flight.dec();
        self.method.ended(self.code, self.began.elapsed().as_secs_f64());
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Measured<S>(pub(super) S);

impl<S: NamedService> NamedService for Measured<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Measured<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut call = Call::begin(request.uri().path());
        let answer = self.0.call(request);
        async move {
            let answer = answer.await?;
            call.learn(answer.headers());
            Ok(answer.map(|body| Body::new(Answer { body, call })))
        }
        .boxed()
    }
}

/// What is sent back, until its end.
struct Answer {
    body: Body,
    call: Call,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.learn(trailers);
                }
            }
            Some(Err(status)) => self.call.code = status.code(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use http_body::Body as _;

    use super::*;

    /// The methods of a file's services, of those that are served.
    fn methods(file: &str, services: &[&str]) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto").join(file);
        let text = fs::read_to_string(path).unwrap();
        let of = |service: &&str| {
            let (_, rest) = text.split_once(&format!("service {service} {{")).unwrap();
            let body = rest.split("\n}").next().unwrap().to_owned();
            let rpcs = body.split("  rpc ").skip(1).map(|rest| rest.split('(').next().unwrap());
            rpcs.map(|name| name.trim().to_owned()).collect::<Vec<_>>()
        };
        services.iter().flat_map(of).collect()
    }

    #[test]
    fn each_method_of_each_service_has_its_name() {
        let all = [
            methods("csi.proto", &["Identity", "Node"]),
            methods("nixcsi/admin.proto", &["Admin", "Debug"]),
            methods("pluginregistration.proto", &["Registration"]),
            vec![OTHER.to_owned()],
        ]
        .concat();
        assert_eq!(all.len(), NAMES.len(), "a name of two services");
        let names = NAMES.map(str::to_owned);
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), names.into_iter().collect());
        assert_eq!(Method::of("/csi.v1.Identity/Probe").name, "Probe");
        for path in ["/csi.v1.Identity/Probe/x", "", "/", "/csi.v1.Node/Other"] {
            assert_eq!(Method::of(path).name, OTHER, "{path:?}");
        }
    }

    #[test]
    fn codes_have_their_names() {
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).unwrap());
            assert_eq!(code as usize, number);
            let said = format!("{code:?}").to_lowercase();
            assert_eq!(name.to_lowercase().replace('_', ""), said);
        }
    }

    fn trailers(code: &'static str) -> http::HeaderMap {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(code));
        trailers
    }

    fn calls(code: Code) -> u64 {
        let labels = ["NodeExpandVolume", CODES[code as usize]];
        CALL_SECONDS.with_label_values(&labels).get_sample_count()
    }

    /// No other test calls this method.
    #[tokio::test]
    async fn a_call_ends_as_its_trailers_or_headers_say_or_is_cancelled() {
        const PATH: &str = "/csi.v1.Node/NodeExpandVolume";
        let in_flight = &Method::of(PATH).in_flight;
        let answering = |answer: fn() -> http::Response<Body>| {
            Measured(tower::service_fn(move |_: http::Request<Body>| async move {
                Ok::<_, Infallible>(answer())
            }))
        };
        let request = || http::Request::builder().uri(PATH).body(Body::empty()).unwrap();

        let failing = || {
            let mut answer = http::Response::new(Body::empty());
            *answer.headers_mut() = trailers("13");
            answer
        };
        answering(failing).call(request()).await.unwrap();
        assert_eq!((calls(Code::Internal), in_flight.get()), (1, 0));

        let well = || {
            let frames = [Ok(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers("0")))];
            http::Response::new(Body::new(Frames(frames.into())))
        };
        let mut body = answering(well).call(request()).await.unwrap().into_body();
        let mut frame =
            async || std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        frame().await.unwrap().unwrap();
        assert_eq!((calls(Code::Ok), in_flight.get()), (0, 1), "a stream goes on until its end");
        frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!((calls(Code::Ok), in_flight.get()), (1, 0));

        drop(answering(well).call(request()));
        drop(answering(well).call(request()).await.unwrap());
        assert_eq!((calls(Code::Cancelled), in_flight.get()), (2, 0));
    }

    struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, tonic::Status>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = tonic::Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
            Poll::Ready(self.0.pop_front())
        }
    }
}
