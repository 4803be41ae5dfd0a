use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::*;

const REMEMBER: Duration = Duration::from_secs(30);

fn substituters(urls: &[&str]) -> Substituters {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    Substituters::new(urls, ProbeLimits::default(), &[], None)
}

#[test]
fn what_came_from_the_cache_is_known_by_its_url_or_as_the_only_one_over_ssh() {
    let of = |urls: &[&str]| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let cache = Some("ssh-ng://nix@cache?trusted=1");
        Substituters::new(urls, ProbeLimits::default(), &[], cache)
    };
    let alone = of(&["https://a.example", "ssh-ng://nix@cache?trusted=1"]);
    for (from, is) in [
        ("ssh-ng://nix@cache", true),
        ("ssh-ng://cache", true),
        ("ssh-ng://", true),
        ("ssh-ng://nix@other", false),
        ("https://a.example", false),
        ("", false),
    ] {
        assert_eq!(alone.is_cache(from), is, "{from}");
    }
    let beside = of(&["ssh-ng://nix@other", "ssh-ng://nix@cache"]);
    assert!(beside.is_cache("ssh-ng://cache") && !beside.is_cache("ssh-ng://"));
    let without = of(&["https://a.example"]);
    assert!(!without.is_cache("ssh-ng://") && !without.is_cache("ssh-ng://cache"));
}

/// Time passes while the machine's sockets don't see it: with time paused for long, a probe's limit
/// could be over before the kernel has answered.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A listener whose connections come out of the channel.
async fn listen() -> (u16, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if sender.send(stream).is_err() {
                break;
            }
        }
    });
    (port, connections)
}

/// Says `text` to whoever connects and counts them.
async fn sshd(text: &'static str) -> (String, Arc<AtomicUsize>) {
    let (port, mut connections) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Some(mut stream) = connections.recv().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (format!("ssh-ng://root@127.0.0.1:{port}?trusted=1"), count)
}

/// Answers each request for `nix-cache-info` so.
async fn web(answer: &'static str) -> u16 {
    let (port, mut connections) = listen().await;
    tokio::spawn(async move {
        while let Some(mut stream) = connections.recv().await {
            let mut request = [0; 256];
            let n = stream.read(&mut request).await.unwrap();
            assert!(
                String::from_utf8_lossy(&request[..n]).contains("/nix-cache-info HTTP/1.1\r\n")
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

/// A port that refuses while the socket is kept: bound, so that nobody else gets it, and deaf.
fn refuses() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn reasons(choice: &Choice) -> Vec<&str> {
    choice.down.iter().map(|down| down.reason.as_str()).collect()
}

#[tokio::test]
async fn what_answers_is_up_with_its_parameters_and_what_refuses_is_down_without_credentials() {
    let (ssh, _) = sshd("hello\r\nSSH-2.0-x\r\n").await;
    let port = web("HTTP/1.1 404 Not Found\r\n\r\n").await;
    let http = format!("http://u:p@127.0.0.1:{port}/cache?priority=1");
    let (_deaf, closed) = refuses();
    let refused = format!("https://u:secret@127.0.0.1:{closed}?token=x");
    let urls = [&ssh, "local", &refused, &http, "s3://b?region=x"];
    let substituters = substituters(&urls);
    let choice = substituters.choose(None).await;
    assert_eq!(choice.up, [&ssh, "local", &http, "s3://b?region=x"]);
    let [down] = &choice.down[..] else { panic!("{choice:?}") };
    assert_eq!(down.url, format!("https://127.0.0.1:{closed}?token=***"));
    let reason = format!("can't connect to 127.0.0.1:{closed}: Connection refused (os error 111)");
    assert_eq!(down.reason, reason);
    assert!(down.again_in <= REMEMBER && down.again_in > REMEMBER / 2);
    assert_eq!(substituters.down(), 1);
    let shown = format!("{choice:?}");
    assert!(!shown.contains("u:p") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn what_is_no_web_server_or_a_broken_one_is_down() {
    let urls =
        [web("HTTP/1.1 503 Later\r\n\r\n").await, web("SSH-2.0-OpenSSH\r\n").await, web("").await]
            .map(|port| format!("http://127.0.0.1:{port}"));
    let choice = substituters(&urls.each_ref().map(String::as_str)).choose(None).await;
    let expected = [
        "it answers with HTTP status 503",
        "what answers is no web server",
        "it closed the connection without an answer",
    ];
    assert_eq!(reasons(&choice), expected);
}

/// A success is believed for a moment only, and not at all after a command failed.
#[tokio::test]
async fn what_goes_down_is_seen_soon() {
    let (ssh, connects) = sshd("SSH-2.0-x\r\n").await;
    let substituters = substituters(&[&ssh]);
    let count = || connects.load(Ordering::Relaxed);
    for _ in 0..3 {
        substituters.choose(None).await;
    }
    assert_eq!(count(), 1);
    substituters.doubt();
    substituters.choose(None).await;
    assert_eq!(count(), 2);
    pass(FRESH).await;
    substituters.choose(None).await;
    assert_eq!(count(), 3);
    let down = |message: &str| {
        substituters.learn_from(message);
        substituters.down()
    };
    let place = ssh.split('?').next().unwrap();
    assert_eq!(down(&format!("unable to download '{place}/x': HTTP error 404")), 0);
    assert_eq!(down(&format!("unable to download '{place}0/x': Timeout was reached")), 0);
    assert_eq!(down(&format!("copying path from '{place}/x'")), 0);
    let shown = place.replace("root@", "");
    for lost in [
        "unable to download '{}/x': Timeout was reached",
        "cannot open connection to remote store '{}': error: unexpected end-of-file",
        "cannot open connection to remote store 'ssh-ng://': error: Nix daemon disconnected",
    ] {
        assert_eq!(down(&lost.replace("{}", &shown)), 1);
        pass(REMEMBER).await;
        substituters.choose(None).await;
        assert_eq!(down(""), 0);
    }
    assert_eq!(down(&format!("unable to download '{place}/x': Timeout was reached")), 1);
}

#[tokio::test]
async fn which_of_several_is_lost_is_asked_and_not_guessed() {
    let ((a, _), (b, asked)) = (sshd("SSH-2.0-a\r\n").await, sshd("SSH-2.0-b\r\n").await);
    let substituters = substituters(&[&a, &b]);
    substituters.choose(None).await;
    substituters.learn_from("cannot open connection to remote store 'ssh-ng://': error: gone");
    assert_eq!((substituters.down(), asked.load(Ordering::Relaxed)), (0, 1));
    substituters.choose(None).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_no_sshd_is_down() {
    let (ended, mut connections) = listen().await;
    tokio::spawn(async move { while connections.recv().await.is_some() {} });
    let (web, _) = sshd(Box::leak("HTTP/1.1 400 no SSH-\r\n".repeat(1000).into_boxed_str())).await;
    let choice = substituters(&[&format!("ssh://127.0.0.1:{ended}"), &web]).choose(None).await;
    let expected = ["it closed the connection without an SSH banner", "what answers is no sshd"];
    assert_eq!(reasons(&choice), expected);
}

/// As a stopped sshd's does, the kernel accepts and nobody speaks.
#[tokio::test(start_paused = true)]
async fn an_sshd_that_says_nothing_is_down_after_the_limit() {
    let (port, _connections) = listen().await;
    let silent = format!("ssh-ng://127.0.0.1:{port}");
    let began = Instant::now();
    let choice = substituters(&[&silent, &silent]).choose(None).await;
    assert_eq!(reasons(&choice), ["no answer within 5s"; 2]);
    let took = began.elapsed().as_secs();
    assert_eq!(took, 5, "one after the other");
    assert_eq!(choice.down[0].again_in, REMEMBER);
}

#[tokio::test]
async fn names_are_resolved_and_any_address_will_do() {
    let port = web("HTTP/1.0 200 OK\r\n\r\n").await;
    // Refused by the resolver itself: nothing is asked of a network.
    let nowhere = "x".repeat(64);
    // May be ::1 first, where nobody listens.
    let localhost = format!("http://localhost:{port}");
    let choice = substituters(&[&localhost, &format!("https://{nowhere}/")]).choose(None).await;
    assert_eq!(choice.up, [localhost]);
    let [reason] = reasons(&choice)[..] else { panic!("{choice:?}") };
    assert!(reason.starts_with(&format!("can't resolve {nowhere}: ")), "{reason}");
}

#[tokio::test]
async fn directories_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    std::fs::write(format!("{dir}/file"), "").unwrap();
    let there = format!("file://{dir}?trusted=1");
    let choice = substituters(&[&there, dir, &format!("{dir}/none"), &format!("{dir}/file")])
        .choose(None)
        .await;
    assert_eq!(choice.up, [&there, dir]);
    let [none, file] = reasons(&choice)[..] else { panic!("{choice:?}") };
    assert_eq!(none, format!("can't look at {dir}/none: No such file or directory (os error 2)"));
    assert_eq!(file, format!("{dir}/file is not a directory"));
}

/// Else each probe of a dead file system would take a thread for good.
#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_is_not_joined_by_another() {
    let substituters = substituters(&["/"]);
    let hangs = substituters.0.places[0].looks.clone().try_acquire_owned().unwrap();
    assert_eq!(reasons(&substituters.choose(None).await), ["no answer within 5s"]);
    drop(hangs);
    tokio::time::advance(REMEMBER).await;
    assert_eq!(substituters.choose(None).await.up, ["/"]);
}

#[tokio::test]
async fn an_answer_is_remembered_for_a_while() {
    let (ssh, connects) = sshd("no sshd, and then the end").await;
    let (_deaf, port) = refuses();
    let refused = format!("http://127.0.0.1:{port}");
    let substituters = substituters(&[&ssh, &refused]);
    let count = || connects.load(Ordering::Relaxed);
    let first = substituters.choose(None).await;
    assert_eq!(count(), 1);
    pass(Duration::from_secs(20)).await;
    let later = substituters.choose(None).await;
    assert_eq!((count(), &later.up, reasons(&later)), (1, &first.up, reasons(&first)));
    assert!(later.down[0].again_in <= Duration::from_secs(10), "{later:?}");
    pass(Duration::from_secs(11)).await;
    substituters.choose(None).await;
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn callers_share_a_probe_also_when_the_first_gives_up() {
    let (port, mut connections) = listen().await;
    let substituters = substituters(&[&format!("ssh-ng://127.0.0.1:{port}")]);
    let mut callers: Vec<_> = (0..20)
        .map(|_| {
            let substituters = substituters.clone();
            tokio::spawn(async move { substituters.choose(None).await.up.len() })
        })
        .collect();
    let _first = connections.recv().await.unwrap();
    // The first spawned is the first to be polled.
    callers.remove(0).abort();
    let mut second = connections.recv().await.unwrap();
    second.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 1);
    }
    assert!(connections.try_recv().is_err(), "one more probe");
}

#[tokio::test]
async fn a_report_counts_at_once_and_more_than_a_probe_that_was_under_way() {
    let (port, mut connections) = listen().await;
    let url = format!("ssh-ng://root@127.0.0.1:{port}?trusted=1");
    let reported = format!("ssh-ng://127.0.0.1:{port}/");
    let substituters = substituters(&["local", &url]);
    let say = async |stream: Option<TcpStream>| {
        stream.unwrap().write_all(b"SSH-2.0-x\r\n").await.unwrap();
    };
    let (choice, ()) = tokio::join!(substituters.choose(None), async {
        let stream = connections.recv().await;
        assert!(substituters.report_down(&reported, "at https://u:p@h: \u{1b}[1mno"));
        say(stream).await;
    });
    assert_eq!(
        (choice.up, reasons(&substituters.known(None))),
        (vec!["local".to_owned()], vec!["at https://h: no"])
    );
    // It is believed again after a probe.
    pass(REMEMBER).await;
    let (choice, ()) =
        tokio::join!(substituters.choose(None), async { say(connections.recv().await).await });
    assert_eq!(choice.up, ["local", &url]);

    assert!(!substituters.report_down("https://other", "x"));
    assert_eq!(substituters.down(), 0);
    // What is not probed recovers by itself.
    assert!(substituters.report_down("local", "x"));
    assert_eq!((substituters.down(), substituters.choose(None).await.up), (1, vec![url]));
    pass(REMEMBER).await;
    let (choice, ()) =
        tokio::join!(substituters.choose(None), async { say(connections.recv().await).await });
    assert_eq!(choice.up.len(), 2);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn going_down_and_coming_back_are_logged_once() {
    // tracing may miss who begins to listen while a place that logs is being made known, in a test beside this one.
    let (_deaf, closed) = refuses();
    substituters(&[&format!("https://127.0.0.1:{closed}")]).choose(None).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();
    let (deaf, port) = refuses();
    let substituters = substituters(&[&format!("https://u:p@127.0.0.1:{port}"), "auto"]);
    for _ in 0..3 {
        substituters.choose(None).await;
        pass(REMEMBER).await;
    }
    substituters.report_down(&format!("https://127.0.0.1:{port}"), "again");
    pass(REMEMBER).await;
    let _listener = deaf.listen(8).unwrap();
    for _ in 0..3 {
        assert_eq!(substituters.choose(None).await.up.len(), 2);
        pass(REMEMBER).await;
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().map(str::trim).collect();
    let expected = [
        format!(
            "WARN a substituter is down: left out for now substituter=https://127.0.0.1:{port} \
             reason=can't connect to 127.0.0.1:{port}: Connection refused (os error 111)"
        ),
        format!("INFO a substituter is up again substituter=https://127.0.0.1:{port}"),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_empty_list_costs_nothing() {
    let choice = substituters(&[]).choose(None).await;
    assert_eq!(choice, Choice::default());
}

/// Whom the policy leaves out is not asked for a sign of life either.
#[tokio::test]
async fn only_those_that_may_be_asked_are() {
    let policy = |urls: &str| {
        let text = format!("preset: open\ndefault: {{substituters: [{urls}]}}");
        crate::model::Policy::parse(&text).unwrap().rules("x").fetch_from()
    };
    let (ssh, asked) = sshd("SSH-2.0-x\r\n").await;
    let (_deaf, closed) = refuses();
    let refused = format!("http://127.0.0.1:{closed}?priority=3");
    let substituters = substituters(&[&ssh, "daemon", &refused]);
    let none = policy("");
    let choice = substituters.choose(none.as_ref()).await;
    assert_eq!((choice.only(), choice.down.len()), (Some(String::new()), 0));
    let some = policy(&format!("daemon, 'http://127.0.0.1:{closed}/'"));
    let choice = substituters.choose(some.as_ref()).await;
    assert_eq!((choice.only(), choice.down.len()), (Some("daemon".to_owned()), 1));
    assert_eq!(substituters.allowed(some.as_ref().unwrap()), format!("daemon {refused}"));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    // One that may be asked hangs: nothing is said of one that was not.
    assert_eq!(substituters.report_stalled(&choice, "x"), [""; 0]);
    let choice = substituters.choose(None).await;
    assert_eq!(choice.only(), Some(format!("{ssh} daemon")));
    assert_eq!(substituters.report_stalled(&choice, "x").len(), 1);
    assert_eq!(Choice { up: vec![ssh], ..Choice::default() }.only(), None);
}

#[test]
fn nixs_own_list_is_read_in_each_shape() {
    let list = |json: &str| effective(json.as_bytes());
    let both = Some(vec!["https://a".to_owned(), "ssh-ng://b?trusted=1".to_owned()]);
    for json in [
        r#"{"sandbox":{"value":true},"substituters":{"value":["https://a","ssh-ng://b?trusted=1"]}}"#,
        r#"{"substituters":{"value":" https://a  ssh-ng://b?trusted=1 https://a"}}"#,
        r#"{"substituters":["https://a ssh-ng://b?trusted=1"],"substitute":{"value":true}}"#,
        r#"{"substituters":"https://a\nssh-ng://b?trusted=1"}"#,
    ] {
        assert_eq!(list(json), both, "{json}");
    }
    let none = Some(vec![]);
    assert_eq!(list(r#"{"substituters":{"value":[]}}"#), none);
    assert_eq!(list(r#"{"substitute":{"value":false},"substituters":{"value":["a"]}}"#), none);
    for json in ["", "[]", "{}", "3", r#"{"substituters":{"value":3}}"#, r#"{"substituters":[3]}"#]
    {
        assert_eq!(list(json), None, "{json}");
    }
}
