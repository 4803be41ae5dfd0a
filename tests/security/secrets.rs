//! What a pod's `nodePublishSecretRef` opens, to whom, and where it is seen.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix_csi::grpc::client::{Code, Status};

use crate::lab::{Cache, Lab, Node, Volume, names};
use crate::planted;
use crate::world::{MARK, SANDBOXED, builder, kubelets, of_pod, processes, traces};

/// For [`Cache::lock`], and in a netrc.
const USER: &str = "reader";

fn netrc(password: &str) -> (String, String) {
    ("netrc".to_owned(), format!("machine 127.0.0.1 login {USER} password {password}\n"))
}

/// A call of a kubelet for a volume with a Secret.
async fn publish(
    node: &Node,
    volume: &Volume,
    secret: Option<(String, String)>,
) -> Result<(), Status> {
    let mut request = volume.request();
    request.secrets.extend(secret);
    node.publish_request(request).await
}

/// A flake on a web server that lets nobody in without the password; its reference.
fn private_flake(lab: &Lab, web: &Cache, name: &str, script: &str) -> String {
    let system = nix_csi::model::System::current();
    let package = builder(name, "", script);
    let flake = format!("{{ outputs = _: {{ packages.{system}.x = {package}; }}; }}");
    let dir = lab.path("flake");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("flake.nix"), flake).unwrap();
    let (parent, tarball) = (lab.path(""), web.file(&format!("{name}.tar")));
    lab.ok("tar", &["-C", parent.to_str().unwrap(), "-cf", tarball.to_str().unwrap(), "flake"]);
    format!("{}/{name}.tar#x", web.url())
}

fn volume(lab: &Lab, name: &str, namespace: &str, source: (&str, &str)) -> Volume {
    of_pod(lab.volume(name, &[source]), namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_opens_what_it_is_for_and_for_nobody_else() {
    let lab = planted!();
    let web = lab.cache().await;
    let reference = private_flake(&lab, &web, "private", "echo private > $out");
    web.lock(USER, MARK);
    // What a killed process has left.
    fs::create_dir_all(lab.path("run/secrets")).unwrap();
    fs::write(lab.path("run/secrets/0"), MARK).unwrap();
    // Without a policy, where everybody may name everything.
    let node = lab.node(&[SANDBOXED, &["--log", "warn,nix_csi=trace"]].concat()).await;
    assert_eq!(traces(&lab, &node), [""; 0]);
    let source = ("flakeRef", &*reference);

    let first = volume(&lab, "first", "web", source);
    for (secret, said) in [(None, "401"), (Some(netrc("another-password")), "401")] {
        let status = publish(&node, &first, secret).await.unwrap_err();
        let text = status.message();
        assert!(text.contains(said) && !text.contains("another-password"), "{status}");
    }
    publish(&node, &first, Some(netrc(MARK))).await.unwrap();
    let text = lab.ok("cat", &[&format!("{}/var/result", first.target.display())]);
    assert_eq!(text, "private");
    // As a kubelet calls again, with or without.
    publish(&node, &first, Some(netrc(MARK))).await.unwrap();
    publish(&node, &first, None).await.unwrap();

    // It is known what it comes to, and it is in the store.
    for (name, namespace, secret) in [
        ("none", "other", None),
        ("wrong", "other", Some(netrc("another-password"))),
        ("same", "web", None),
    ] {
        let other = volume(&lab, name, namespace, source);
        let status = publish(&node, &other, secret).await.unwrap_err();
        assert!(status.message().contains("401"), "{name}: {status}");
    }
    // Another team's password is as good.
    let other = volume(&lab, "other", "other", source);
    publish(&node, &other, Some(netrc(MARK))).await.unwrap();

    assert_eq!(names(&lab.path("run/secrets")), [""; 0]);
    assert!(!processes(&lab).1.contains(MARK));
    assert_eq!(traces(&lab, &node), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_nowhere_else_while_it_is_used() {
    let lab = planted!();
    let mut web = lab.cache().await;
    let reference = private_flake(&lab, &web, "slow", "echo slow > $out");
    web.lock(USER, MARK);
    web.set(crate::lab::Mode::Hang);
    let node = lab.node(&[SANDBOXED, &["--log", "warn,nix_csi=trace"]].concat()).await;
    let first = volume(&lab, "slow", "web", ("flakeRef", &reference));
    let looked = async {
        crate::lab::until("the request", async || web.requests() > 0).await;
        let (count, text) = processes(&lab);
        assert!(count >= 4 && text.contains("metadata") && !text.contains(MARK), "{text}");
        let secrets = lab.path("run/secrets");
        let seen = traces(&lab, &node);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].starts_with(secrets.to_str().unwrap()), "{seen:?}");
        web.kill().await;
    };
    let (published, ()) = tokio::join!(publish(&node, &first, Some(netrc(MARK))), looked);
    let status = published.unwrap_err();
    assert!(!status.message().contains(MARK), "{status}");
    assert_eq!(traces(&lab, &node), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_lets_in_to_a_private_cache() {
    let lab = planted!();
    let web = lab.cache().await;
    let root = lab.closure(&["--argstr", "seed", "secret"]);
    web.upload(&lab, &root);
    lab.ok("nix-store", &["--delete", "--ignore-liveness", &root]);
    web.lock(USER, MARK);
    let substituters = web.substituters();
    let options = [
        "--nix-option",
        &substituters,
        "--nix-option",
        "require-sigs=false",
        "--probe-memory",
        "0s",
    ];
    let node = lab.node(&options).await;
    let source = ("storePath", &*root);
    let status = publish(&node, &volume(&lab, "none", "web", source), None).await.unwrap_err();
    assert!([Code::NotFound, Code::Unavailable].contains(&status.code()), "{status}");
    let with = volume(&lab, "with", "web", source);
    publish(&node, &with, Some(netrc(MARK))).await.unwrap();
    assert_eq!(names(&lab.path("run/secrets")), [""; 0]);
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// Fetchers keep what they have fetched, and go on with it where they are not let in.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_fetcher_has_kept_needs_the_secret_too() {
    let lab = planted!();
    if lab.run("git", &["--version"]).status.code() != Some(0) {
        return crate::lab::skipped("what_a_fetcher_has_kept_needs_the_secret_too", "no git");
    }
    let web = lab.cache().await;
    private_flake(&lab, &web, "kept", "echo kept > $out");
    let (dir, bare) = (lab.path("flake"), web.file("repo.git"));
    let commit = "git init -q . && git add flake.nix && git -c user.name=a -c user.email=a@b commit -qm x && \
                  git clone -q --bare . $0 && git -C $0 update-server-info && git rev-parse HEAD";
    let script = format!("cd {} && {commit}", dir.display());
    let revision = lab.ok("sh", &["-euc", &script, bare.to_str().unwrap()]);
    web.lock(USER, MARK);
    // With or without a secret, evaluations are in stores of the namespace's own.
    let policy = lab.path("policy.yaml");
    fs::write(&policy, "preset: open\ndefault: {storePath: public}\n").unwrap();
    let options = ["--policy-file", policy.to_str().unwrap()];
    let node = lab.node(&[SANDBOXED, &options].concat()).await;
    for reference in [
        format!("git+{}/repo.git#x", web.url()),
        format!("git+{}/repo.git?rev={}#x", web.url(), revision.trim()),
    ] {
        let source = ("flakeRef", &*reference);
        let with = kubelets(&lab, "with", "web", source);
        publish(&node, &with, Some(netrc(MARK))).await.unwrap();
        node.unpublish(&with).await.unwrap();
        for namespace in ["web", "other"] {
            let without = kubelets(&lab, "without", namespace, source);
            let status = publish(&node, &without, None).await.unwrap_err();
            assert!(!status.message().contains(MARK), "{status}");
        }
    }
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// An impure expression reads what its own pod was given; who reads the pod's Events is somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_an_expression_says_is_not_shown() {
    let lab = planted!();
    let node = lab.node(&["--eval-mode", "impure", "--log", "warn,nix_csi=trace"]).await;
    let text = "throw (builtins.readFile /nix-csi/home/.netrc)";
    let volume = volume(&lab, "said", "web", ("nixExpr", text));
    let status = publish(&node, &volume, Some(netrc(MARK))).await.unwrap_err();
    let expected = format!("login {USER} password ***");
    assert!(status.message().contains(&expected), "{status}");
    assert!(!status.message().contains(MARK), "{status}");
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// The operator's program.
const EXCHANGE: &str = r#"#!/bin/sh
read -r request
cd "${0%/*}"
echo asked >> asked
case $request in
*'"namespace":"web"'*TOKEN*) cat answer ;;
*) echo "not for $request" >&2; exit 3 ;;
esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_token_is_exchanged_for_what_opens_its_source() {
    const TOKEN: &str = "eyJhbGciOi-token-of-web";
    let lab = planted!();
    let web = lab.cache().await;
    let reference = private_flake(&lab, &web, "exchanged", "echo exchanged > $out");
    web.lock(USER, MARK);
    let program = lab.path("exchange");
    let answer = serde_json::json!({ "netrc": netrc(MARK).1 });
    fs::write(lab.path("answer"), answer.to_string()).unwrap();
    fs::write(&program, EXCHANGE.replace("TOKEN", TOKEN)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let exchange = program.to_str().unwrap();
    let log = ["--log", "warn,nix_csi=trace"];
    let node = lab.node(&[SANDBOXED, &["--token-exchange", exchange], &log].concat()).await;
    let key = "csi.storage.k8s.io/serviceAccount.tokens";
    let tokens =
        |token: &str| format!(r#"{{"cache":{{"token":"{token}","expirationTimestamp":"x"}}}}"#);
    let asked = || fs::read_to_string(lab.path("asked")).unwrap_or_default().lines().count();

    let mut wrong = volume(&lab, "wrong", "web", ("flakeRef", &reference));
    wrong.attributes.insert(key.to_owned(), tokens("eyJhbGciOi-another"));
    let status = publish(&node, &wrong, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("exchange) failed with 3: not for"), "{status}");
    assert!(!status.message().contains("eyJhbGciOi"), "{status}");

    let mut first = volume(&lab, "first", "web", ("flakeRef", &reference));
    first.attributes.insert(key.to_owned(), tokens(TOKEN));
    publish(&node, &first, None).await.unwrap();
    assert_eq!(asked(), 2);
    // Among the secrets, where they count more; what is known needs no exchange.
    let mut second = volume(&lab, "second", "web", ("flakeRef", &reference));
    second.attributes.insert(key.to_owned(), tokens("eyJhbGciOi-another"));
    publish(&node, &second, Some((key.to_owned(), tokens(TOKEN)))).await.unwrap();
    assert_eq!(asked(), 2);
    let other = volume(&lab, "other", "other", ("flakeRef", &reference));
    let status = publish(&node, &other, Some((key.to_owned(), tokens(TOKEN)))).await.unwrap_err();
    assert!(status.message().contains("failed with 3"), "{status}");
    assert_eq!(traces(&lab, &node), [""; 0]);
    assert!(!fs::read_to_string(&node.log).unwrap().contains("eyJhbGciOi"));
    let records = lab.path("run/volumes");
    for record in names(&records) {
        assert!(!fs::read_to_string(records.join(record)).unwrap().contains("eyJhbGciOi"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_none_is_refused_by_its_key() {
    let lab = planted!();
    let node = lab.node(&[]).await;
    let volume = volume(&lab, "v", "web", ("nixExpr", "1"));
    for (key, value, said) in [
        ("token", MARK, "secrets (nodePublishSecretRef) have the key \"token\""),
        ("access-tokens", MARK, "secrets (nodePublishSecretRef): access-tokens: write HOST=TOKEN"),
    ] {
        let secret = Some((key.to_owned(), value.to_owned()));
        let status = publish(&node, &volume, secret).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(said) && !status.message().contains(MARK), "{status}");
    }
    assert_eq!(traces(&lab, &node), [""; 0]);
}
