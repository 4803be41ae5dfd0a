//! Which substituters Nix has by its settings. Pure.

/// The substituters that Nix would ask, from `nix show-config --json`. `None` if it doesn't say.
pub(in crate::nix) fn effective(json: &[u8]) -> Option<Vec<String>> {
    let settings: serde_json::Value = serde_json::from_slice(json).ok()?;
    let value = |name: &str| settings.get(name).map(|s| s.get("value").unwrap_or(s));
    if value("substitute").and_then(serde_json::Value::as_bool) == Some(false) {
        return Some(Vec::new());
    }
    let value = value("substituters")?;
    let texts: Vec<&str> = match value.as_array() {
        Some(list) => list.iter().map(serde_json::Value::as_str).collect::<Option<_>>()?,
        None => vec![value.as_str()?],
    };
    let mut urls: Vec<String> = Vec::new();
    for url in texts.into_iter().flat_map(str::split_whitespace) {
        if !urls.iter().any(|other| other == url) {
            urls.push(url.to_owned());
        }
    }
    Some(urls)
}
