//! The parts: what the driver says of itself, what its Admin service says, and what can be had without either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use crate::bundle::{self, Cleaner, Facts, Known, Part};
use crate::cli::{Failure, builds, gc, message, status, uploads};
use crate::config::BundleArgs;
use crate::grpc::client::{self, Channel};
use crate::grpc::proto::admin::admin_client::AdminClient;
use crate::grpc::proto::admin::{
    BuildsRequest, BundleRequest, ListUploadsRequest, PolicyRequest, StatusRequest, StatusResponse,
};
use crate::model::STORE_DIR;
use crate::nix::{NETRC, NIX_CONF};

/// For the whole bundle, whatever its parts may take.
const WHOLE: Duration = Duration::from_secs(90);
/// For all that the driver says of itself, whose parts have limits of their own.
const ALL: Duration = Duration::from_secs(30);
/// For a call of the Admin service, and for reading which secrets there are.
const CALL: Duration = Duration::from_secs(10);
/// For a look at the store, which may be large.
const STORE: Duration = Duration::from_secs(60);

/// What only the driver can say. A cache has no Admin service and one file more.
const OF_DRIVER: [&str; 6] =
    ["health.txt", "gc.txt", "metrics.txt", "log.txt", "settings.json", "nix.conf.txt"];

/// By name.
type Parts = BTreeMap<String, Part>;

/// All parts, and whether somebody has answered.
pub(super) async fn all(args: &BundleArgs) -> (Vec<Part>, String) {
    let end = Instant::now() + WHOLE;
    let mut parts = Parts::new();
    let socket = args.admin_endpoint.path();
    let answered = driver(socket, &mut parts).await.map_err(|Failure(reason)| reason);
    let (told, said) = match &answered {
        Ok(true) => (true, format!("the driver answers at {}", socket.display())),
        Ok(false) => {
            let why = "says nothing of itself for a bundle: it is another version of nix-csi";
            (false, format!("what answers at {} {why}", socket.display()))
        }
        Err(reason) => (false, reason.clone()),
    };
    if !told {
        for name in OF_DRIVER {
            parts.entry(name.to_owned()).or_insert_with(|| Part::new(name, Err(said.clone())));
        }
        here(args, &mut parts).await;
    }
    let cleaner = cleaner(known(args, &parts), end.min(Instant::now() + CALL)).await;
    // Who says nothing is not asked again and again.
    let client = match answered {
        Ok(_) => {
            let connected = within(end, CALL, client::admin(socket)).await;
            connected.and_then(|connected| connected.map_err(|error| error.to_string()))
        }
        Err(reason) => Err(reason),
    };
    let status = admin(client, end, &mut parts, &cleaner).await;
    let mounts = mounts(&parts, status.as_ref());
    insert(&mut parts, &cleaner, "mounts.txt", mounts);
    let store = within(end, STORE, gc::would_go(args)).await;
    let store = store.and_then(|found| found.map_err(|Failure(reason)| reason));
    insert(&mut parts, &cleaner, "gc-dry-run.txt", store);
    (parts.into_values().collect(), said)
}

/// At most so long, and no longer than to the bundle's end.
async fn within<T>(
    end: Instant,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, String> {
    let own = Instant::now() + limit;
    timeout_at(end.min(own), work).await.map_err(|_| {
        if end < own {
            format!("the {} s that a bundle may take were over", WHOLE.as_secs())
        } else {
            format!("it took longer than {} s", limit.as_secs())
        }
    })
}

type Clean = Result<Cleaner, String>;

/// Reads files, which may hang.
async fn cleaner(known: Known, end: Instant) -> Clean {
    let read = timeout_at(end, spawn_blocking(move || Cleaner::of(&known))).await;
    let late = |_| "its secrets are not known: reading the files with them takes too long";
    read.map_err(late)?.map_err(|panic| panic.to_string())
}

/// Without a cleaner nothing is shown.
fn insert(parts: &mut Parts, cleaner: &Clean, name: &str, content: Result<String, String>) {
    let content = cleaner.as_ref().map_err(Clone::clone).and_then(|cleaner| {
        let content = content.map(|text| cleaner.clean_file(name, &text));
        content.map_err(|error| cleaner.clean(&error).into_owned())
    });
    parts.insert(name.to_owned(), Part::new(name, content));
}

/// What the driver says of itself; a stream that breaks leaves what has come. `false`: it knows no bundle.
async fn driver(socket: &Path, parts: &mut Parts) -> Result<bool, Failure> {
    let collected = async {
        let mut debug = client::debug(socket).await?;
        let said = match debug.bundle(BundleRequest {}).await {
            Err(status) if status.code() == client::Code::Unimplemented => return Ok(false),
            said => said.map_err(|e| message(&e))?,
        };
        let mut said = said.into_inner();
        while let Some(part) = said.message().await.map_err(|e| message(&e))? {
            let (name, content, lacks) = (part.name, part.content, part.lacks);
            parts.insert(name.clone(), Part { name, content, lacks });
        }
        Ok(true)
    };
    let late = |_| Err(format!("the driver did not answer within {} s", ALL.as_secs()).into());
    timeout(ALL, collected).await.unwrap_or_else(late)
}

/// The same of the machine, as this process sees it.
async fn here(args: &BundleArgs, parts: &mut Parts) {
    let disks = vec![STORE_DIR.into(), args.state_dir.clone(), "/tmp".into()];
    let facts =
        Facts { lines: vec!["(of the program that made this bundle)".to_owned()], of: None };
    let mut own = Box::pin(bundle::collect(bundle::of_machine(facts, disks), Cleaner::default()));
    while let Some(part) = own.next().await {
        parts.entry(part.name.clone()).or_insert(part);
    }
}

/// Where the driver says that it has secrets; its answers have none, and here is one more look.
fn known(args: &BundleArgs, parts: &Parts) -> Known {
    let settings = parts.get("settings.json").and_then(|part| part.content.as_deref());
    let settings: Value =
        settings.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let values = |name: &str| {
        let one = settings.as_array().into_iter().flatten().find(|one| one["name"] == name);
        let values = one.and_then(|one| one["values"].as_array()).into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let files = |name: &str| values(name).into_iter().map(PathBuf::from);
    let confs = [NIX_CONF.into(), args.state_dir.join("nix.conf")];
    Known {
        access_tokens: files("--access-tokens-file").collect(),
        netrcs: vec![NETRC.into()],
        confs: files("--nix-conf").chain(confs).collect(),
        values: values("--nix-option"),
    }
}

/// What `nix-csi status`, `builds`, `uploads` and `policy` show.
async fn admin(
    client: Result<AdminClient<Channel>, String>,
    end: Instant,
    parts: &mut Parts,
    cleaner: &Clean,
) -> Option<StatusResponse> {
    let ask = client.clone();
    let found = answer(ask, end, async |mut it| it.status(StatusRequest {}).await).await;
    let text = |show: fn(&StatusResponse) -> String| found.as_ref().map(show).map_err(Clone::clone);
    insert(parts, cleaner, "status.txt", text(status::as_tables));
    insert(parts, cleaner, "status.json", text(|found| pretty(&status::as_json(found))));
    insert(parts, cleaner, "kept.json", text(|found| pretty(&status::as_json(found)["kept"])));
    let built = answer(client.clone(), end, async |mut it| it.builds(BuildsRequest {}).await).await;
    insert(
        parts,
        cleaner,
        "builds.txt",
        built.as_ref().map(builds::as_tables).map_err(Clone::clone),
    );
    insert(parts, cleaner, "builds.json", built.map(|found| pretty(&builds::as_json(&found))));
    let sent =
        answer(client.clone(), end, async |mut it| it.list_uploads(ListUploadsRequest {}).await);
    let sent = sent.await;
    insert(
        parts,
        cleaner,
        "uploads.txt",
        sent.as_ref().map(uploads::as_table).map_err(Clone::clone),
    );
    insert(parts, cleaner, "uploads.json", sent.map(|found| pretty(&uploads::as_json(&found))));
    let ask = PolicyRequest { namespace: String::new() };
    let policy = answer(client, end, async |mut it| it.policy(ask).await).await;
    insert(
        parts,
        cleaner,
        "policy.txt",
        policy.map(|policy| {
            let lines = [
                ("origin", policy.origin),
                ("refused", policy.refused),
                ("awaited", policy.awaited),
            ];
            let lines = lines.into_iter().filter(|(_, said)| !said.is_empty());
            let head: Vec<_> = lines.map(|(name, said)| format!("# {name}: {said}\n")).collect();
            let text = if policy.text.is_empty() { "# there is no policy\n" } else { &policy.text };
            head.concat() + text
        }),
    );
    found.ok()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A call with a limit of its own.
async fn answer<T>(
    client: Result<AdminClient<Channel>, String>,
    end: Instant,
    call: impl AsyncFnOnce(AdminClient<Channel>) -> Result<client::Response<T>, client::Status>,
) -> Result<T, String> {
    let answered = within(end, CALL, call(client?)).await?;
    answered.map(client::Response::into_inner).map_err(|status| message(&status).0)
}

/// The mounts of nix-csi's: of its store and its directories, and at targets.
fn mounts(parts: &Parts, status: Option<&StatusResponse>) -> Result<String, String> {
    let all = parts.get("mountinfo.txt").and_then(|part| part.content.as_deref());
    let all = String::from_utf8_lossy(all.ok_or("there is no mountinfo.txt")?);
    let targets = status.into_iter().flat_map(|status| &status.volumes);
    let targets: Vec<_> = targets.map(|volume| volume.target_path.as_str()).collect();
    let is_ours = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        point == "/nix"
            || point.starts_with("/nix/")
            || line.contains("nix-csi")
            || targets.iter().any(|target| point.starts_with(target))
    };
    Ok(all.split_inclusive('\n').filter(is_ours).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that accepts and says nothing, as a process that is stopped.
    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_waited_for_so_long_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let Failure(reason) = driver(&socket, &mut Parts::new()).await.unwrap_err();
        assert_eq!(reason, "the driver did not answer within 30 s");
        let client = client::admin(&socket).await.map_err(|error| error.to_string());
        let answered = async |client, seconds| {
            let end = Instant::now() + Duration::from_secs(seconds);
            let ask = async |mut it: AdminClient<_>| it.builds(BuildsRequest {}).await;
            let error = answer(client, end, ask).await.unwrap_err();
            // Timers are of whole milliseconds.
            assert!(Instant::now() < end + Duration::from_millis(10), "{error}");
            error
        };
        assert_eq!(answered(client.clone(), 11).await, "it took longer than 10 s");
        let over = "the 90 s that a bundle may take were over";
        assert_eq!(answered(client.clone(), 9).await, over);
        assert_eq!(answered(client, 0).await, over);
    }

    /// A file that can't be read to its end, as of a file system that is gone.
    #[tokio::test]
    async fn without_the_secrets_nothing_is_shown_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("netrc");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        let open = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let known = Known { netrcs: vec![pipe.clone()], ..Known::default() };
        let cleaner = cleaner(known, Instant::now() + Duration::from_millis(50)).await;
        // In this order the thread that reads it, or has yet to open it, ends.
        std::fs::remove_file(&pipe).unwrap();
        drop(open);
        let mut parts = Parts::new();
        insert(&mut parts, &cleaner, "x", Ok("text".to_owned()));
        assert!(parts["x"].content.is_none(), "{parts:?}");
        assert!(parts["x"].lacks.starts_with("its secrets are not known"), "{parts:?}");
    }

    #[test]
    fn mounts_of_others_are_left_out() {
        let line = |point: &str| format!("1 2 0:3 / {point} rw - tmpfs x rw\n");
        let all: String = ["/", "/nix/store", "/pods/a/mount", "/home"].map(line).concat();
        let mut parts = Parts::new();
        assert!(mounts(&parts, None).is_err());
        insert(&mut parts, &Ok(Cleaner::default()), "mountinfo.txt", Ok(all));
        let volume = crate::grpc::proto::admin::Volume {
            target_path: "/pods/a/mount".to_owned(),
            ..Default::default()
        };
        let status = StatusResponse { volumes: vec![volume], ..StatusResponse::default() };
        let ours = mounts(&parts, Some(&status)).unwrap();
        assert_eq!(ours, [line("/nix/store"), line("/pods/a/mount")].concat());
        assert_eq!(mounts(&parts, None).unwrap(), line("/nix/store"));
    }
}
