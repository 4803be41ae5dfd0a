use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::*;
use crate::model::{Access, Attributes, Layout, Sight, Source, VolumeSize, VolumeSpec};

const POLICY: &str = r#"
preset: strict
default:
  flakeRef: ["github:example/", "git+https://git.example.org/team"]
  writable: true
  maxSize: 1Gi
namespaces:
  ci: {nixExpr: true, storePath: true, maxSize: none}
  "team-*": {maxVolumes: 3}
  "team-a*": {flakeRef: true, writable: false}
  closed: {storePath: false}
"#;

fn policy() -> Policy {
    Policy::parse(POLICY).unwrap()
}

fn spec(key: &str, value: &str, size: Option<&str>, access: Access) -> VolumeSpec {
    VolumeSpec {
        access,
        access_mode: 1,
        attributes: Attributes::default(),
        source: Source::parse(key, value).unwrap(),
        pod: None,
        layout: Layout::Plain,
        size: size.map(|text| VolumeSize::parse(text).unwrap()),
        secret: None,
        tokens: None,
    }
}

const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";

/// The rule that refuses a read-only volume.
fn refused(namespace: &str, key: &str, value: &str) -> Option<String> {
    let spec = spec(key, value, None, Access::ReadOnly);
    policy().rules(namespace).check(&spec).err().map(|refusal| refusal.rule)
}

#[test]
fn the_nearest_word_counts() {
    let none = None::<String>;
    assert_eq!(refused("web", "nixExpr", "1").unwrap(), "preset strict, nixExpr");
    assert_eq!(refused("closed", "storePath", PATH).unwrap(), "namespaces.closed.storePath");
    // It depends on the path.
    assert_eq!(refused("web", "storePath", PATH), none);
    assert_eq!(refused("ci", "nixExpr", "1"), none);
    assert_eq!(refused("ci", "storePath", PATH), none);
    assert_eq!(refused("ci", "flakeRef", "github:other/x").unwrap(), "default.flakeRef");
    assert_eq!(refused("team-b", "flakeRef", "github:other/x").unwrap(), "default.flakeRef");
    // The longer pattern; it has not what the shorter one says.
    assert_eq!(refused("team-abc", "flakeRef", "github:other/x"), none);
    policy().rules("team-abc").check_count(1000).unwrap();
    let full = policy().rules("team-b").check_count(3).unwrap_err();
    assert!(full.rule == "namespaces.team-*.maxVolumes" && full.is_of_the_moment());
    policy().rules("team-b").check_count(2).unwrap();
    // A pattern is no exact name.
    assert_eq!(refused("cider", "nixExpr", "1").unwrap(), "preset strict, nixExpr");
}

#[test]
fn what_is_written_is_bounded() {
    let check = |namespace: &str, size| {
        let spec = spec("flakeRef", "github:example/x", size, Access::Writable);
        policy().rules(namespace).check(&spec).map_err(|refusal| refusal.to_string())
    };
    check("web", Some("1Gi")).unwrap();
    check("ci", None).unwrap();
    let error = check("web", None).unwrap_err();
    assert!(
        error.contains("needs volumeAttributes.size here: give it 1073741824 bytes"),
        "{error}"
    );
    let error = check("web", Some("1025Mi")).unwrap_err();
    assert!(error.contains("size of 1074790400 bytes is more than the 1073741824"), "{error}");
    let error = check("team-a", Some("16Mi")).unwrap_err();
    assert!(error.contains("readOnly: true"), "{error}");
}

#[test]
fn a_reference_leads_where_it_begins() {
    let check = |reference| refused("web", "flakeRef", reference).is_none();
    for good in [
        "github:example/x",
        "github:example/x/branch?dir=a&rev=0#attr",
        "git+https://git.example.org/team",
        "git+https://git.example.org/team/repo.git?ref=main&rev=0",
        "github:example/x#a.b.\"c?host=d\"",
    ] {
        assert!(check(good), "{good}");
    }
    for bad in [
        "github:examples/x",
        "github:EXAMPLE/x",
        "gitlab:example/x",
        "github:example/../other/x",
        "github:example/./x",
        "github:example/%2e%2e/other",
        "github:example/x?host=evil.example",
        "github:example/x?dir=a&host=evil.example#a",
        "github:example/x?Dir=a",
        "github:example/x?narHash=sha256-x",
        "git+https://git.example.org/teams/x",
        "git+https://git.example.org@evil.example/team/x",
        "git+https://git.example.org.evil.example/team",
        "git+https://git.example.org/team/../other",
        "git+https://git.example.org/team/x?url=https://evil.example",
        "git+https://git.example.org/team\\..\\other",
        "git+http://git.example.org/team/x",
        "nixpkgs",
    ] {
        assert!(!check(bad), "{bad}");
    }
}

#[test]
fn what_is_refused_says_where_and_what_would_do() {
    let spec = spec("flakeRef", "git+https://me:secret@evil.example/x", None, Access::ReadOnly);
    let text = policy().rules("web").check(&spec).unwrap_err().text("web");
    assert!(
        text.starts_with(
            "the policy refuses this to namespace web (default.flakeRef): volumeAttributes."
        ),
        "{text}"
    );
    assert!(text.contains("begins with none of github:example/, git+https://git.example.org/team"));
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_policy_that_is_none_is_named() {
    for (text, words) in [
        ("", "the policy is empty: write `preset: open`"),
        (" \n", "the policy is empty"),
        ("default: {}", "preset"),
        ("preset: lax", "lax"),
        ("preset: open\nnixExpr: false", "nixExpr"),
        ("preset: open\ndefault: {nixexpr: false}", "nixexpr"),
        ("preset: open\ndefault: {nixExpr: no-way}", "nixExpr"),
        ("preset: open\ndefault: {flakeRef: 3}", "flakeRef is true, false or a list"),
        (
            "preset: open\ndefault: {flakeRef: [nixpkgs]}",
            "default.flakeRef \"nixpkgs\": it has no scheme",
        ),
        ("preset: open\ndefault: {flakeRef: ['file:///etc']}", "it names no host"),
        ("preset: open\ndefault: {flakeRef: ['github:a/../']}", ". or .."),
        ("preset: open\ndefault: {flakeRef: ['github:a?dir=x']}", "beyond the address"),
        (
            "preset: open\nnamespaces: {web: {maxSize: 1x}}",
            "namespaces.web.maxSize \"1x\": it is no size",
        ),
        ("preset: open\nnamespaces: {Web: {}}", "namespaces \"Web\": it is no namespace's name"),
        ("preset: open\nnamespaces: {'a*b': {}}", "namespaces \"a*b\""),
        ("preset: open\nnamespaces: {web: {}, web: {}}", "web"),
        ("preset: open\ndefault: {maxVolumes: -1}", "maxVolumes"),
        ("preset: open\ndefault: {maxVolumes: few}", "maxVolumes is a number, or none"),
        ("preset: open\ndefault: {maxBuilds: 0}", "default.maxBuilds \"0\": what waits would wait"),
        ("preset: open\ndefault: {maxEvaluations: 0}", "default.maxEvaluations \"0\""),
        (
            "preset: open\ndefault: {evaluationTime: soon}",
            "default.evaluationTime \"soon\": it is no time",
        ),
        ("preset: open\ndefault: {evaluationTime: 0s}", "default.evaluationTime \"0s\""),
        (
            "preset: open\ndefault: {evaluationMemory: 63Mi}",
            "evaluationMemory \"63Mi\": it is no size",
        ),
        ("preset: open\ndefault: {storePath: some}", "storePath is true, false or public"),
        (
            "preset: open\ndefault: {publicKeys: [x]}",
            "default.publicKeys \"x\": it is no public key",
        ),
        (
            "preset: open\ndefault: {publicKeys: ['x:U0VDUkVU']}",
            "default.publicKeys \"x\": it has no",
        ),
        ("preset: open\ndefault: {substituters: 3}", "substituters is true, false or a list"),
        (
            "preset: open\ndefault: {substituters: [cache.example.org]}",
            "default.substituters \"cache.example.org\": it is no URL of a store, such as https:",
        ),
        ("preset: open\ndefault: {substituters: ['://c']}", "it is no URL of a store"),
        ("preset: open\ndefault: {substituters: ['https://']}", "it is no URL of a store"),
        ("preset: open\ndefault: {substituters: ['']}", "it is no URL of a store"),
        (
            "preset: open\ndefault: {substituters: ['https://a https://b']}",
            "write one URL for each entry",
        ),
        (
            "preset: open\nnamespaces: {web: {substituters: ['https://u:hunter2@c']}}",
            "namespaces.web.substituters \"https://c\": it has a password in it: leave that out",
        ),
        ("[", "no YAML"),
    ] {
        let error = Policy::parse(text).expect_err(text).to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{text:?}: {error}");
    }
    let bomb = format!("preset: open\na: &a [{}]\nb: [*a,*a,*a]", "x,".repeat(10_000));
    Policy::parse(&bomb).unwrap_err();
    let long = format!("preset: open\n#{}", "x".repeat(256 << 10));
    assert!(matches!(Policy::parse(&long), Err(InvalidPolicy::TooLong { .. })));
    let text = "preset: open\ndefault: {maxVolumes: 1}\nnamespaces: {x: {maxVolumes: none}}";
    let policy = Policy::parse(text).unwrap();
    assert!(policy.rules("x").check_count(9).is_ok() && policy.rules("y").check_count(9).is_err());
    // All namespaces, as a pattern.
    let all = Policy::parse("preset: open\nnamespaces: {'*': {nixExpr: false}}").unwrap();
    assert_eq!(
        all.rules("x").list()[2],
        ("nixExpr", "false".into(), "namespaces.*.nixExpr".into())
    );
}

#[test]
fn who_may_not_name_any_path_sees_none() {
    let policy = policy();
    let source = |path| Source::parse("storePath", path).unwrap();
    for (namespace, sight, is_private) in
        [("ci", Sight::Store, false), ("web", Sight::Own, true), ("closed", Sight::Own, false)]
    {
        let rules = policy.rules(namespace);
        assert_eq!((rules.sight(), rules.keeps_private(&source(PATH))), (sight, is_private));
        assert!(rules.signers().is_none());
    }
    let open = Policy::parse("preset: open").unwrap();
    assert_eq!(open.rules("x").sight(), Sight::Store);
}

/// Both become a log line or an Event, and a policy may have thousands of either.
#[test]
fn what_is_said_is_short_whatever_the_policy_holds() {
    let name = format!(
        "preset: open\nnamespaces:\n  ? \"a\\n{}\"\n  : {{maxSize: '1'}}",
        "c".repeat(6000)
    );
    let error = Policy::parse(&name).unwrap_err().to_string();
    assert!(error.starts_with("namespaces \"a\\nccc") && error.len() < 400, "{error}");
    let owners: Vec<_> = (0..400).map(|n| format!("'github:owner-{n}/'")).collect();
    let text = format!("preset: strict\ndefault: {{flakeRef: [{}]}}", owners.join(","));
    let asked = spec("flakeRef", "gitlab:o/r", None, Access::ReadOnly);
    let refusal = Policy::parse(&text).unwrap().rules("x").check(&asked).unwrap_err().text("x");
    assert!(
        refusal.contains("github:owner-9/, …: name a flake") && refusal.len() < 500,
        "{refusal}"
    );
}

#[test]
fn limits_are_inherited_and_say_where_they_stand() {
    let text = "preset: strict\ndefault: {maxBuilds: 2, evaluationTime: 1m 30s}\n\
                namespaces:\n  web: {maxBuilds: none, maxEvaluations: 1, evaluationMemory: 1Gi}\n";
    let policy = Policy::parse(text).unwrap();
    let (web, other) = (policy.rules("web").limits(), policy.rules("other").limits());
    assert_eq!(web.builds(), None);
    let bound = |most, rule: &str| Some(Bound { most, rule: rule.to_owned() });
    assert_eq!(other.builds(), bound(2, "default.maxBuilds"));
    assert_eq!(web.evaluations(), bound(1, "namespaces.web.maxEvaluations"));
    assert_eq!(other.evaluations(), bound(2, "preset strict, maxEvaluations"));
    for limits in [web, other] {
        let time = limits.time().unwrap();
        assert_eq!((time.most.as_secs(), &*time.rule), (90, "default.evaluationTime"));
    }
    let memory = web.memory().unwrap();
    assert_eq!((memory.most, &*memory.rule), (1 << 30, "namespaces.web.evaluationMemory"));
    let memory = other.memory().unwrap();
    assert_eq!((memory.most, &*memory.rule), (2 << 30, "preset strict, evaluationMemory"));
    let list = policy.rules("web").list();
    let shown: Vec<_> = list.iter().map(|(key, value, by)| (*key, &**value, &**by)).collect();
    assert_eq!(
        shown[shown.len() - 4..],
        [
            ("maxBuilds", "none", "namespaces.web.maxBuilds"),
            ("maxEvaluations", "1", "namespaces.web.maxEvaluations"),
            ("evaluationTime", "1m 30s", "default.evaluationTime"),
            ("evaluationMemory", "1073741824", "namespaces.web.evaluationMemory"),
        ]
    );
}

/// As docs/policy.md has them.
#[test]
fn one_team_of_many_has_not_all_of_a_node() {
    let shown = |text: &str| {
        let rules = Policy::parse(text).unwrap().rules("x").list();
        let rows = rules.into_iter().filter(|(key, ..)| {
            key.starts_with("evaluation") || key.starts_with("max") && *key != "maxSize"
        });
        rows.map(|(key, value, _)| format!("{key} {value}")).collect::<Vec<_>>()
    };
    let strict = [
        "maxVolumes none",
        "maxBuilds 2",
        "maxEvaluations 2",
        "evaluationTime 5m",
        "evaluationMemory 2147483648",
    ];
    assert_eq!(shown("preset: strict"), strict);
    let none = strict.map(|row| format!("{} none", row.split_once(' ').unwrap().0));
    assert_eq!(shown("preset: open"), none);
    let taken_back = "preset: strict\ndefault: {maxBuilds: none, maxEvaluations: none, \
                      evaluationTime: none, evaluationMemory: none}";
    assert_eq!(shown(taken_back), none);
}

/// Whether the entry lets the node ask the store that it has under this URL.
fn asks(entry: &str, url: &str) -> bool {
    let text = format!("preset: strict\ndefault: {{substituters: ['{entry}']}}");
    Policy::parse(&text).unwrap().rules("x").fetch_from().unwrap().allows(url)
}

#[test]
fn one_store_has_many_urls() {
    for (entry, url) in [
        ("https://c.example", "https://c.example"),
        ("https://c.example", "https://c.example/"),
        ("https://c.example/", "https://C.example:443?priority=10"),
        ("https://c.example?priority=1&trusted=true", "https://c.example?want-mass-query=1"),
        ("https://c.example/nix", "https://user:password@c.example/nix/"),
        ("http://c.example", "http://c.example:80/"),
        ("ssh-ng://cache", "ssh-ng://nix@cache:22?trusted=1&ssh-key=/k"),
        ("ssh-ng://nix@cache", "ssh-ng://nix@cache?compress=true"),
        ("s3://b?region=x&endpoint=e", "s3://b?endpoint=e&priority=3&region=x"),
        ("file:///srv/cache", "file:///srv/cache/?trusted=1"),
        ("/srv/store", "/srv/store/?priority=3"),
        ("http://[2001:db8::1]:5000", "http://[2001:DB8::1]:5000/"),
        ("daemon", "daemon"),
    ] {
        assert!(asks(entry, url), "{entry} {url}");
    }
    for (entry, url) in [
        ("https://c.example", "http://c.example"),
        ("https://c.example", "https://c.example:80"),
        ("https://c.example", "https://c.example.org"),
        ("https://c.example", "https://c.example@evil.example"),
        ("https://c.example", "https://evil.example/https://c.example"),
        ("https://c.example", "https://evil.example?x=@c.example"),
        ("https://c.example/nix", "https://c.example/NIX"),
        ("https://c.example/nix", "https://c.example/nix/more"),
        ("https://c.example/nix", "https://c.example"),
        ("ssh-ng://nix@cache", "ssh-ng://root@cache"),
        ("ssh-ng://nix@cache", "ssh-ng://cache"),
        ("ssh-ng://cache", "ssh://cache"),
        ("ssh-ng://cache", "ssh-ng://cache?remote-store=/other"),
        ("s3://b", "s3://b?endpoint=evil.example"),
        ("s3://b?endpoint=e", "s3://b"),
        // What is not known may lead elsewhere.
        ("https://c.example", "https://c.example?new=1"),
        ("/srv/store", "file:///srv/store"),
        ("file:///srv/cache", "file:///srv/cache2"),
        ("daemon", "local"),
        ("local", "local?root=/x"),
    ] {
        assert!(!asks(entry, url), "{entry} {url}");
    }
}

/// So that what two namespaces may fetch is fetched once, whoever says so.
#[test]
fn the_same_stores_are_the_same_by_any_rule() {
    let text = "preset: strict\ndefault: {substituters: ['https://a.example', 'https://b.example']}\n\
                namespaces:\n  same: {substituters: ['https://b.example', 'https://a.example']}\n  \
                fewer: {substituters: ['https://b.example']}\n";
    let policy = Policy::parse(text).unwrap();
    let of = |name: &str| policy.rules(name).fetch_from().unwrap();
    let hashed = |name: &str| {
        let mut hasher = DefaultHasher::new();
        of(name).hash(&mut hasher);
        hasher.finish()
    };
    assert_eq!(of("x"), of("same"));
    assert_eq!(hashed("x"), hashed("same"));
    assert_ne!(of("x"), of("fewer"));
    assert_ne!(hashed("x"), hashed("fewer"));
    // As they were written.
    assert!(of("same").to_string().ends_with(" https://b.example, https://a.example alone"));
}

#[test]
fn substituters_are_inherited_and_shown() {
    let text = "preset: strict\ndefault: {substituters: ['https://a.example', 'ssh-ng://nix@b']}\n\
                namespaces:\n  all: {substituters: true}\n  none: {substituters: false}\n  \
                empty: {substituters: []}\n";
    let policy = Policy::parse(text).unwrap();
    assert_eq!(Policy::parse("preset: strict").unwrap().rules("x").fetch_from(), None);
    assert_eq!(policy.rules("all").fetch_from(), None);
    let told = |name: &str| policy.rules(name).fetch_from().unwrap().to_string();
    let from = "the policy's substituters let this namespace fetch from";
    assert_eq!(told("x"), format!("{from} https://a.example, ssh-ng://b alone"));
    for name in ["none", "empty"] {
        assert_eq!(told(name), format!("{from} nowhere"));
        assert!(!policy.rules(name).fetch_from().unwrap().allows("https://a.example"));
    }
    let shown = |name: &str| {
        let list = policy.rules(name).list();
        let row = list.into_iter().find(|(key, ..)| *key == "substituters").unwrap();
        format!("{} by {}", row.1, row.2)
    };
    assert_eq!(shown("x"), "https://a.example, ssh-ng://b by default.substituters");
    assert_eq!(shown("all"), "true by namespaces.all.substituters");
    assert_eq!(shown("empty"), "false by namespaces.empty.substituters");
    let from = policy.rules("x").fetch_from().unwrap();
    let has = ["https://c.example", "ssh-ng://nix@b?trusted=1"];
    assert_eq!(from.unknown_to(&has), ["https://a.example"]);
}
