//! `nix-csi policy`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::status::table;
use super::{Failure, message};
use crate::config::{ExplainArgs, Output, PolicyCommand};
use crate::grpc::client;
use crate::grpc::proto::admin::{PolicyRequest, PolicyResponse};
use crate::model::{Access, Attributes, Layout, Policy, Rules, Source, VolumeSize, VolumeSpec};
use crate::read::text_at_most;

/// Bytes; a ConfigMap holds no more.
const MAX: usize = 1 << 20;

pub async fn policy(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check { file } => {
            read(&file)?;
            println!("{}: a policy that can be used", file.display());
            Ok(())
        }
        PolicyCommand::Explain(args) => explain(&args).await,
    }
}

fn read(file: &Path) -> Result<Policy, Failure> {
    let told = |why: String| Failure(format!("{}: {why}", file.display()));
    let text = text_at_most(file, MAX).map_err(|error| told(error.to_string()))?;
    Policy::parse(&text).map_err(|error| told(error.to_string()))
}

/// What is refused is no failure of the command, whose exit code tells it as well.
async fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let spec = spec(args)?;
    let InForce { policy, origin, unknown } = match &args.file {
        Some(file) => {
            let (policy, origin) = (Some(read(file)?), file.display().to_string());
            InForce { policy, origin, unknown: Vec::new() }
        }
        None => of_node(args).await?,
    };
    let Some(policy) = policy else {
        match args.output {
            Output::Table => println!("there is no policy: pods may ask for everything"),
            Output::Json => println!("{}", json!({ "policy": null, "allowed": true })),
        }
        return Ok(());
    };
    let rules = policy.rules(&args.namespace);
    let refusal = spec.as_ref().and_then(|spec| rules.check(spec).err());
    match args.output {
        Output::Table => {
            let mut rows = table(&["KEY", "VALUE", "SAID BY"]);
            for (key, value, rule) in rules.list() {
                rows.add_row([key, &value, &rule]);
            }
            println!("policy of {origin}, for namespace {}\n{rows}", args.namespace);
            if !unknown.is_empty() {
                println!(
                    "not used, since this node has no such substituter: {}",
                    unknown.join(", ")
                );
            }
            if let Some(spec) = spec.as_ref().filter(|_| refusal.is_none()) {
                println!("the volume is allowed{}", provided(rules, &spec.source));
            }
        }
        Output::Json => {
            let list = rules.list().into_iter();
            let list: BTreeMap<_, _> = list
                .map(|(key, value, rule)| (key, json!({ "value": value, "by": rule })))
                .collect();
            let refused = refusal
                .as_ref()
                .map(|refusal| json!({ "rule": refusal.rule, "reason": refusal.to_string() }));
            let provided = spec.as_ref().map(|spec| provided(rules, &spec.source));
            let provided = provided.as_deref().map(|text| text.trim_start_matches(" if "));
            let told = json!({ "policy": origin, "provided": provided, "namespace": args.namespace, "rules": list,
                "unknownSubstituters": unknown,
                "allowed": spec.as_ref().map(|_| refusal.is_none()), "refused": refused });
            println!("{}", serde_json::to_string_pretty(&told)?);
        }
    }
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(Failure(refusal.text(&args.namespace))),
    }
}

/// What is only known when the closure is there.
fn provided(rules: &Rules, source: &Source) -> String {
    let mut all = Vec::new();
    if rules.keeps_private(source) {
        all.push("its path is signed with one of the publicKeys, or a source of the namespace has come to it");
    }
    if rules.signers().is_some() {
        all.push("all of its closure is signed with one of the publicKeys");
    }
    if all.is_empty() { String::new() } else { format!(" if {}", all.join(", and ")) }
}

/// A policy, and where it comes from.
struct InForce {
    policy: Option<Policy>,
    origin: String,
    /// Substituters that it names and the node does not have.
    unknown: Vec<String>,
}

/// The policy that counts on the node.
async fn of_node(args: &ExplainArgs) -> Result<InForce, Failure> {
    let mut admin = client::admin(args.admin_endpoint.path()).await?;
    let namespace = args.namespace.clone();
    let asked = admin.policy(PolicyRequest { namespace }).await.map_err(|e| message(&e))?;
    let PolicyResponse { text, origin, refused, awaited, unknown_substituters: unknown } =
        asked.into_inner();
    if !awaited.is_empty() {
        return Err(Failure(format!(
            "the policy is not known, so that nobody may mount: {awaited}"
        )));
    }
    if !refused.is_empty() {
        eprintln!("nix-csi: what is there now does not count: {refused}");
    }
    let policy = (!text.is_empty()).then(|| Policy::parse(&text)).transpose()?;
    Ok(InForce { policy, origin, unknown })
}

fn spec(args: &ExplainArgs) -> Result<Option<VolumeSpec>, Failure> {
    let given =
        [("flakeRef", &args.flake_ref), ("storePath", &args.store_path), ("nixExpr", &args.expr)];
    let Some((key, text)) = given.iter().find_map(|(key, text)| Some((key, text.as_ref()?))) else {
        return Ok(None);
    };
    let size = args.size.as_deref().map(VolumeSize::parse).transpose()?;
    Ok(Some(VolumeSpec {
        access: if args.rw { Access::Writable } else { Access::ReadOnly },
        access_mode: 0,
        attributes: Attributes::default(),
        source: Source::parse(key, text)?,
        pod: None,
        layout: Layout::Plain,
        size,
        secret: None,
        tokens: None,
    }))
}
