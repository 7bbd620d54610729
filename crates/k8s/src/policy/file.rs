//! Files with a policy.
//!
//! In: YAML with the keys `rules`, `default` and `host`. Out: checked rules, or the first mistake with its line and the number of its
//! rule, from 1.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::Spanned;

use super::{
    Action, Policy,
    pattern::Pattern,
    rule::{HostMatcher, PairPattern, PodMatcher, Rule, WorkloadPattern},
};
use crate::rule_file::{Mistake, RuleFileError, check_rules, check_size};

/// Size of a file. A rule has some 80 bytes. A pod is decided in as many steps as the product of this and of its longest text, 1,024
/// bytes, at most: 0.1 s for patterns that are made to be slow, some microseconds for others.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// Rules of a file.
const RULES_MAX: usize = 256;

/// Bytes of a rule's text for people.
const TEXT_BYTES_MAX: usize = 256;

/// The remedy for a file without a policy.
const WANT: &str = "the file has the keys rules (a list), default and host (allow or deny); `default: allow` alone profiles everything";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    rules: Option<Vec<Spanned<T>>>,
    default: Option<Action>,
    host: Option<Action>,
}

type Texts = Option<Spanned<Vec<String>>>;
type PairTexts = Option<Spanned<BTreeMap<String, String>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    action: Action,
    namespaces: Texts,
    pod_labels: PairTexts,
    pod_annotations: PairTexts,
    workloads: Texts,
    units: Texts,
    cgroups: Texts,
}

enum AnyRule {
    Pod(Rule<PodMatcher>),
    Host(Rule<HostMatcher>),
}

/// Reads a policy.
pub(super) fn parse_policy(text: &str) -> Result<Policy, RuleFileError> {
    check_size(text, FILE_BYTES_MAX)?;
    // An empty file is more likely one that is being written than a wish.
    let has_content = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "---"
    };
    if !text.lines().any(has_content) {
        return Err(RuleFileError::of_file(format!("no policy: {WANT}")));
    }
    let file: File<RuleText> =
        serde_saphyr::from_str(text).map_err(|err| locate_error(text, &err))?;
    let mut policy = Policy {
        pod_rules: Vec::new(),
        host_rules: Vec::new(),
        default: file.default.unwrap_or(Action::Allow),
        host: file.host.unwrap_or(Action::Allow),
    };
    let mut number = 0;
    let rules = check_rules(file.rules.unwrap_or_default(), RULES_MAX, |rule, line| {
        number += 1;
        check_rule(&rule, number, line)
    })?;
    for rule in rules {
        match rule {
            AnyRule::Pod(rule) => policy.pod_rules.push(rule),
            AnyRule::Host(rule) => policy.host_rules.push(rule),
        }
    }
    Ok(policy)
}

fn locate_error(text: &str, err: &serde_saphyr::Error) -> RuleFileError {
    let rules = serde_saphyr::from_str::<File<IgnoredAny>>(text);
    let rules = rules.ok().and_then(|file| file.rules).unwrap_or_default();
    let mut err = RuleFileError::of_yaml(err, &rules);
    if err.rule == 0 {
        err.message += &format!(": {WANT}");
    }
    err
}

fn check_rule(text: &RuleText, number: usize, line: u64) -> Result<AnyRule, Mistake> {
    let RuleText {
        action,
        namespaces,
        pod_labels,
        pod_annotations,
        workloads,
        units,
        cgroups,
    } = text;
    let pod = PodMatcher {
        namespaces: read_patterns("namespaces", namespaces)?,
        labels: read_pairs("pod_labels", pod_labels)?,
        annotations: read_pairs("pod_annotations", pod_annotations)?,
        workloads: read_workloads(workloads)?,
    };
    let host = HostMatcher {
        units: read_patterns("units", units)?,
        cgroups: read_cgroups(cgroups)?,
    };
    let is_pod = namespaces.is_some()
        || pod_labels.is_some()
        || pod_annotations.is_some()
        || workloads.is_some();
    let is_host = units.is_some() || cgroups.is_some();
    let (action, text) = (*action, show(number, text));
    match (is_pod, is_host) {
        (true, false) => Ok(AnyRule::Pod(Rule {
            action,
            matcher: pod,
            text,
        })),
        (false, true) => Ok(AnyRule::Host(Rule {
            action,
            matcher: host,
            text,
        })),
        (true, true) => {
            let message = "a rule is for pods (namespaces, pod_labels, pod_annotations, workloads) or for other processes (units, \
                           cgroups): make two of it";
            Err((line, message.into()))
        }
        (false, false) => {
            let message = "a rule without a condition; use `default` for all other pods, and `host` for all other processes";
            Err((line, message.into()))
        }
    }
}

fn read_patterns(name: &str, texts: &Texts) -> Result<Vec<Pattern>, Mistake> {
    let Some(texts) = texts else {
        return Ok(Vec::new());
    };
    let line = texts.referenced.line();
    if texts.value.is_empty() || texts.value.iter().any(String::is_empty) {
        return Err((line, empty(name)));
    }
    let patterns = texts.value.iter().map(|text| Pattern::new(text));
    Ok(patterns.collect())
}

fn empty(name: &str) -> String {
    format!("{name} is empty or has an empty entry, which matches nothing; \"*\" matches all")
}

fn read_pairs(name: &str, texts: &PairTexts) -> Result<Vec<PairPattern>, Mistake> {
    let Some(texts) = texts else {
        return Ok(Vec::new());
    };
    let line = texts.referenced.line();
    if texts.value.is_empty() || texts.value.keys().any(String::is_empty) {
        return Err((line, empty(name)));
    }
    let pairs = texts.value.iter();
    let pairs = pairs.map(|(name, value)| (name.as_str().into(), Pattern::new(value)));
    Ok(pairs.collect())
}

fn read_workloads(texts: &Texts) -> Result<Vec<WorkloadPattern>, Mistake> {
    read_patterns("workloads", texts)?;
    let Some(texts) = texts else {
        return Ok(Vec::new());
    };
    let patterns = texts.value.iter().map(|text| {
        let parts = text.split_once('/');
        let parts = parts.filter(|(kind, name)| !kind.is_empty() && !name.is_empty());
        let (kind, name) = parts.ok_or_else(|| {
            let message = format!(
                "workloads has {text:?}: expected KIND/NAME, like Deployment/cart or */cart"
            );
            (texts.referenced.line(), message)
        })?;
        Ok(WorkloadPattern {
            kind: Pattern::new(&kind.to_ascii_lowercase()),
            name: Pattern::new(name),
        })
    });
    patterns.collect()
}

fn read_cgroups(texts: &Texts) -> Result<Vec<Pattern>, Mistake> {
    let patterns = read_patterns("cgroups", texts)?;
    let Some(texts) = texts else {
        return Ok(patterns);
    };
    let mut wrong = texts.value.iter();
    match wrong.find(|text| !text.starts_with('/') || text.ends_with('/')) {
        None => Ok(patterns),
        Some(text) => {
            let message = format!(
                "cgroups has {text:?}: expected a path below /sys/fs/cgroup like /machine.slice, with a / at its begin and none at \
                 its end; what is below is included"
            );
            Err((texts.referenced.line(), message))
        }
    }
}

/// A rule for people.
fn show(number: usize, text: &RuleText) -> Box<str> {
    let RuleText {
        action,
        namespaces,
        pod_labels,
        pod_annotations,
        workloads,
        units,
        cgroups,
    } = text;
    let action = match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    };
    let lists = [
        ("namespaces", namespaces),
        ("workloads", workloads),
        ("units", units),
        ("cgroups", cgroups),
    ];
    let lists = lists.into_iter().filter_map(|(name, texts)| {
        let texts = texts.as_ref()?.value.join(", ");
        Some(format!("{name} {texts}"))
    });
    let pairs = [
        ("pod_labels", pod_labels),
        ("pod_annotations", pod_annotations),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, texts)| {
        let pairs = texts.as_ref()?.value.iter();
        let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
        let pairs: Vec<String> = pairs.collect();
        Some(format!("{name} {}", pairs.join(", ")))
    });
    let conditions: Vec<String> = lists.chain(pairs).collect();
    let mut text = format!("rule {number}: {action} {}", conditions.join("; "));
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text.into()
}
