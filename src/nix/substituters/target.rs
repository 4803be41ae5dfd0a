//! What has to answer for a substituter to be worth asking, by its URL. Pure.

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing that could be tried from here: Nix finds out.
    Unknown,
    Directory(PathBuf),
    /// It accepts a connection.
    Tcp {
        host: String,
        port: u16,
    },
    /// It accepts a connection and answers to a request for `path`.
    Http {
        host: String,
        port: u16,
        path: String,
    },
    /// It accepts a connection and says that it is an sshd.
    Ssh {
        host: String,
        port: u16,
    },
}

/// How Nix's children leave this machine, by their environment.
#[derive(Debug, Default)]
pub(super) struct Routes {
    http_proxy: bool,
    https_proxy: bool,
    /// What no proxy is for; lower case, without leading dots.
    no_proxy: Vec<String>,
    /// ssh connects to another place than the URL's, or through another program.
    ssh_elsewhere: bool,
    ssh_port: Option<u16>,
}

impl Routes {
    pub(super) fn new(environment: &[(OsString, OsString)]) -> Self {
        // The last of a name counts, as for a process.
        let value = |name: &str| {
            let mut named = environment.iter().rev().filter(|(key, _)| key == name);
            named.next().map(|(_, value)| value.to_string_lossy())
        };
        let set =
            |names: [&str; 2]| names.into_iter().any(|n| value(n).is_some_and(|v| !v.is_empty()));
        let exceptions = value("no_proxy").or_else(|| value("NO_PROXY")).unwrap_or_default();
        let exceptions = exceptions.split([',', ' ']).map(|e| e.trim().trim_start_matches('.'));
        let all = set(["all_proxy", "ALL_PROXY"]);
        let mut routes = Self {
            http_proxy: set(["http_proxy", "HTTP_PROXY"]) || all,
            https_proxy: set(["https_proxy", "HTTPS_PROXY"]) || all,
            no_proxy: exceptions.filter(|e| !e.is_empty()).map(str::to_lowercase).collect(),
            ..Self::default()
        };
        routes.read_ssh_options(&value("NIX_SSHOPTS").unwrap_or_default());
        routes
    }

    /// `-p 2222 -o ConnectTimeout=5`. With a file of its own (`-F`) ssh may go anywhere.
    fn read_ssh_options(&mut self, options: &str) {
        let mut words = options.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
        while let Some(word) = words.next() {
            let Some((flag, inline)) = word.strip_prefix('-').and_then(|w| w.split_at_checked(1))
            else {
                continue;
            };
            if !matches!(flag, "p" | "o" | "J" | "F" | "W") {
                continue;
            }
            let value = if inline.is_empty() { words.next().unwrap_or_default() } else { inline };
            let (name, setting) = match flag {
                "o" => value.split_once('=').unwrap_or((value, "")),
                "p" => ("port", value),
                "F" if matches!(value, "none" | "/dev/null") => continue,
                _ => ("proxyjump", value),
            };
            match name.to_ascii_lowercase().as_str() {
                "port" => self.ssh_port = self.ssh_port.or_else(|| setting.parse().ok()),
                "hostname" | "proxycommand" | "proxyjump" => self.ssh_elsewhere = true,
                _ => {}
            }
        }
    }

    fn has_proxy(&self, scheme: &str, host: &str) -> bool {
        let proxy = if scheme == "http" { self.http_proxy } else { self.https_proxy };
        proxy && !self.is_excepted(&host.to_lowercase())
    }

    /// As curl does it: a name and what is below it. A network (`10.0.0.0/8`) matches nothing here,
    /// and Nix finds out.
    fn is_excepted(&self, host: &str) -> bool {
        self.no_proxy.iter().any(|exception| {
            exception == "*"
                || host
                    .strip_suffix(exception.trim_matches(['[', ']']))
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

impl Target {
    pub(super) fn of(url: &str, routes: &Routes) -> Self {
        let store = url.split('?').next().unwrap_or_default();
        let Some((scheme, rest)) = store.split_once("://") else {
            let is_path = ["/", "./", "../"].iter().any(|start| store.starts_with(start));
            return if is_path { Self::Directory(store.into()) } else { Self::Unknown };
        };
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split('/').next().unwrap_or_default();
        let place = host_and_port(authority);
        match (scheme.as_str(), place) {
            ("file", _) if rest.starts_with('/') => Self::Directory(rest.into()),
            ("http" | "https", Some((host, port))) if !routes.has_proxy(&scheme, &host) => {
                // Without a TLS of our own, no more is asked of https than that it listens.
                if scheme == "https" {
                    return Self::Tcp { host, port: port.unwrap_or(443) };
                }
                let path = rest[authority.len()..].trim_end_matches('/');
                let path = format!("{path}/nix-cache-info");
                Self::Http { host, port: port.unwrap_or(80), path }
            }
            // Nix starts no ssh for exactly this.
            ("ssh" | "ssh-ng", _) if authority == "localhost" => Self::Unknown,
            ("ssh" | "ssh-ng", Some((host, port))) if !routes.ssh_elsewhere => {
                Self::Ssh { host, port: port.or(routes.ssh_port).unwrap_or(22) }
            }
            _ => Self::Unknown,
        }
    }
}

/// `None` is nothing that can be asked for here, such as an IPv6 address with a zone.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let place = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let _: Ipv6Addr = host.parse().ok()?;
        (host, port)
    } else if place.parse::<Ipv6Addr>().is_ok() {
        (place, "")
    } else {
        place.split_at(place.find(':').unwrap_or(place.len()))
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(port) => Some(port.parse().ok()?),
    };
    let is_name = !host.is_empty() && !host.contains('%');
    is_name.then(|| (host.to_owned(), port))
}

/// ssh's options, what no proxy is for, and URLs, a line each. What is asked is what the URL names.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = crate::fuzz::text(data);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let environment = [("NIX_SSHOPTS", line()), ("no_proxy", line()), ("http_proxy", "http://p")];
    let routes = Routes::new(&environment.map(|(name, value)| (name.into(), value.into())));
    for url in line().split_whitespace() {
        let plain = Target::of(url, &Routes::default());
        let routed = Target::of(url, &routes);
        // A proxy, or ssh's own way, hides a place and shows none.
        let is_same = match (&plain, &routed) {
            (Target::Ssh { host, .. }, Target::Ssh { host: routed, .. }) => host == routed,
            _ => plain == routed || routed == Target::Unknown,
        };
        assert!(is_same, "{url:?}: {plain:?} and {routed:?}");
        let bare = |host: &str, port| {
            let is_v6 = host.contains(':');
            if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let again = match &plain {
            Target::Unknown => continue,
            Target::Directory(path) => {
                assert!(url.contains(path.to_str().expect("of a text")));
                continue;
            }
            Target::Tcp { host, port } => format!("https://{}", bare(host, *port)),
            Target::Ssh { host, port } => format!("ssh-ng://nix@{}", bare(host, *port)),
            Target::Http { host, port, path } => {
                // One request, of one line.
                assert!(!path.contains(char::is_whitespace) && path.starts_with('/'), "{path:?}");
                let path = path.strip_suffix("/nix-cache-info").expect("what is asked for");
                format!("http://{}{path}", bare(host, *port))
            }
        };
        assert_eq!(Target::of(&again, &Routes::default()), plain, "{url:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes(environment: &[(&str, &str)]) -> Routes {
        let pairs = environment.iter().map(|(key, value)| (key.into(), value.into()));
        Routes::new(&pairs.collect::<Vec<_>>())
    }

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp { host: host.to_owned(), port }
    }

    fn http(host: &str, port: u16, path: &str) -> Target {
        Target::Http { host: host.to_owned(), port, path: format!("{path}/nix-cache-info") }
    }

    fn ssh(host: &str, port: u16) -> Target {
        Target::Ssh { host: host.to_owned(), port }
    }

    #[test]
    fn urls_name_what_must_answer() {
        let directory = |path: &str| Target::Directory(path.into());
        for (url, target) in [
            ("https://cache.nixos.org", tcp("cache.nixos.org", 443)),
            ("HTTP://u:p@h/path:9?priority=1", http("h", 80, "/path:9")),
            ("http://h:8080/x@y:1/", http("h", 8080, "/x@y:1")),
            ("http://h:?a=b://c", http("h", 80, "")),
            ("https://[2001:db8::1]:5000?trusted=1", tcp("2001:db8::1", 5000)),
            ("ssh-ng://nix@h:2222?trusted=1", ssh("h", 2222)),
            ("ssh://[::1]", ssh("::1", 22)),
            ("ssh-ng://nix@2001:db8::1", ssh("2001:db8::1", 22)),
            ("ssh-ng://root@localhost", ssh("localhost", 22)),
            ("file:///srv/cache?trusted=1", directory("/srv/cache")),
            ("/srv/store?priority=3", directory("/srv/store")),
            ("./store", directory("./store")),
        ] {
            assert_eq!(Target::of(url, &Routes::default()), target, "{url}");
        }
        for url in [
            "",
            "local",
            "local?root=/x",
            "daemon",
            "auto",
            "unix:///run/s",
            "s3://bucket?region=x",
            "ssh-ng://localhost",
            "ssh://",
            "https:///x",
            "http://h:port",
            "http://[::1",
            "http://[h]",
            "http://[::1]x",
            "http://[fe80::1%25eth0]",
            "http://h:99999",
            "mounted-ssh-ng://h",
            "file://x",
        ] {
            assert_eq!(Target::of(url, &Routes::default()), Target::Unknown, "{url}");
        }
    }

    #[test]
    fn behind_a_proxy_nothing_is_known() {
        let http =
            routes(&[("http_proxy", "http://p"), ("no_proxy", "lan, .svc,[::1],10.0.0.0/8")]);
        for (url, known) in [
            ("http://h", false),
            ("https://h", true),
            ("http://lan", true),
            ("http://a.LAN:1", true),
            ("http://plan", false),
            ("http://c.ns.svc", true),
            ("http://[::1]", true),
            ("http://10.0.0.1", false),
            ("ssh-ng://h", true),
        ] {
            assert_eq!(Target::of(url, &http) != Target::Unknown, known, "{url}");
        }
        let known = |environment, url| Target::of(url, &routes(environment)) != Target::Unknown;
        assert!(known(&[("https_proxy", "x"), ("https_proxy", "")], "https://h"));
        assert!(!known(&[("ALL_PROXY", "x"), ("no_proxy", ""), ("NO_PROXY", "h")], "https://h"));
        assert!(known(&[("HTTPS_PROXY", "x"), ("NO_PROXY", "*")], "https://h"));
        assert!(known(&[("https_proxy", "x")], "http://h"));
    }

    #[test]
    fn ssh_options_move_the_target() {
        for (options, target) in [
            ("", ssh("h", 22)),
            ("-i /key -o ConnectTimeout=5 -oServerAliveInterval=3 -F /dev/null -v", ssh("h", 22)),
            ("-p 2222 -p 1", ssh("h", 2222)),
            ("-p2222", ssh("h", 2222)),
            ("-o Port=2222", ssh("h", 2222)),
            ("-oport=2222 -", ssh("h", 2222)),
            ("-J bastion", Target::Unknown),
            ("-F /etc/own", Target::Unknown),
            ("-o 'ProxyCommand nc %h'", Target::Unknown),
            ("-oHostName=other", Target::Unknown),
        ] {
            let routes = routes(&[("NIX_SSHOPTS", options)]);
            assert_eq!(Target::of("ssh-ng://u@h", &routes), target, "{options}");
        }
        let port = routes(&[("NIX_SSHOPTS", "-p 2222")]);
        assert_eq!(Target::of("ssh-ng://u@h:3", &port), ssh("h", 3));
    }

    proptest! {
        #[test]
        fn no_url_panics(url in "(https?|ssh-ng|file)?(://)?\\PC*|[a-z\\[\\]:@/?%.1é]{0,30}", options in "\\PC*") {
            let _ = Target::of(&url, &routes(&[("NIX_SSHOPTS", &options), ("no_proxy", &url)]));
        }
    }
}
