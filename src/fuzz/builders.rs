//! What builders say of themselves, and the line of Nix's machines file that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;

use super::{pairs, refusal, text};
use crate::model::{
    Address, Announcement, Feature, KeyFile, Machine, PublicKey, System, check_known_hosts,
};

/// Nix reads it as one machine, whatever is in it.
pub(crate) fn one_machine(machine: &Machine) {
    let line = machine.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(!line.contains([';', '#']), "{line:?}");
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!(fields.len(), 8, "{line:?}");
    assert!(fields.iter().all(|field| !field.is_empty() && field.is_ascii()), "{line:?}");
    let host = fields[0].strip_prefix("ssh-ng://nix@").expect("a URI");
    assert!(!host.contains(['@', '/', '?']) && !host.starts_with('-'), "{line:?}");
    assert_eq!(Address::parse(host).as_ref(), Ok(&machine.address));
    let list = |field: &str| match field {
        "-" => Vec::new(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    let shown = |all: &BTreeSet<Feature>| all.iter().map(Feature::to_string).collect::<Vec<_>>();
    let systems: Vec<_> = machine.systems.iter().map(System::to_string).collect();
    assert_eq!(list(fields[1]), systems);
    assert_eq!(list(fields[5]), shown(&machine.features));
    assert_eq!(list(fields[6]), shown(&machine.mandatory_features));
}

/// Lines `address=…`, `system=…`, `key=…`, `jobs=…`, `speed=…`, `feature=…`, `mandatory=…`, `host-key=…`.
pub(crate) fn machine(data: &[u8]) {
    let text = text(data);
    let fields: BTreeMap<String, Vec<String>> =
        pairs(&text).fold(BTreeMap::new(), |mut all, (key, value)| {
            all.entry(key).or_default().push(value);
            all
        });
    let all = |key: &str| fields.get(key).into_iter().flatten().map(String::as_str);
    let address = match Address::parse(all("address").next().unwrap_or_default()) {
        Ok(address) => address,
        Err(error) => return refusal(&error),
    };
    assert_eq!(Address::parse(&address.to_string()).as_ref(), Ok(&address));
    let number = |key| {
        let number = all(key).next().and_then(|text| text.parse().ok());
        number.unwrap_or(NonZeroU32::MIN)
    };
    one_machine(&Machine {
        address,
        systems: all("system").filter_map(System::parse).collect(),
        key: all("key").find_map(|path| KeyFile::parse(Path::new(path)).ok()),
        max_jobs: number("jobs"),
        speed_factor: number("speed"),
        features: all("feature").filter_map(Feature::parse).collect(),
        mandatory_features: all("mandatory").filter_map(Feature::parse).collect(),
        host_key: all("host-key").find_map(|key| PublicKey::parse(key).ok()),
    });
}

pub(crate) fn announcement(data: &[u8]) {
    announced(&Announcement::parse(&text(data)));
}

/// A builder that says what was understood is understood as far as it has room to say it.
pub(crate) fn announced(said: &Announcement) {
    let shown = said.to_string();
    assert!(shown.len() <= 180 && !shown.contains(char::is_control), "{shown:?}");
    let heard = Announcement::parse(&format!("SSH-2.0-OpenSSH_9.9 {shown}"));
    assert!(heard.max_jobs == said.max_jobs);
    assert!(heard.systems.is_subset(&said.systems) && heard.features.is_subset(&said.features));
    assert_eq!(heard.to_string(), shown);
    one_machine(&Machine {
        address: Address::parse("10.0.0.1").expect("an address"),
        systems: said.systems.clone(),
        key: None,
        max_jobs: said.max_jobs.unwrap_or(NonZeroU32::MIN),
        speed_factor: NonZeroU32::MIN,
        features: said.features.clone(),
        mandatory_features: BTreeSet::new(),
        host_key: None,
    });
}

/// A `.pub` file, and a known_hosts file.
pub(crate) fn public_keys(data: &[u8]) {
    let text = text(data);
    match PublicKey::parse(&text) {
        Ok(key) => {
            let shown = key.to_string();
            assert_eq!(PublicKey::parse(&shown), Ok(key.clone()));
            assert!(text.starts_with(&shown) && !shown.contains(char::is_control));
            assert_eq!(shown.split(' ').count(), 2, "{shown:?}");
            assert!(!key.encoded().contains([' ', '\n']));
        }
        Err(error) => refusal(&error),
    }
    if let Err(error) = check_known_hosts(&text) {
        refusal(&error);
    }
}
