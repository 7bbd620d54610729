//! Check rules of relabelling against the results that Prometheus' documentation and source give, and mistakes in files.

use k8s::{Labels, Relabeling};

/// Applies rules to labels "name=value …"; "dropped" if the series is.
fn relabel(rules: &str, labels: &str) -> String {
    let text = format!("relabel_configs:\n{rules}");
    let rules = Relabeling::parse(&text).unwrap_or_else(|err| panic!("{err}: {text}"));
    let mut labels: Labels = labels
        .split_whitespace()
        .map(|pair| pair.split_once('=').expect("a pair"))
        .map(|(name, value)| (name.to_owned().into(), value.to_owned()))
        .collect();
    if !rules.apply(&mut labels) {
        return "dropped".into();
    }
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
    labels.collect::<Vec<_>>().join(" ")
}

fn mistake(rules: &str) -> String {
    let text = format!("relabel_configs:\n{rules}");
    Relabeling::parse(&text).expect_err(&text).to_string()
}

/// Check `replace`: defaults, joined sources, templates, no match, and an empty result.
#[test]
fn replace() {
    let labels = "a=foo b=bar c=baz";
    let cases = [
        (
            "{source_labels: [a], target_label: d}",
            "a=foo b=bar c=baz d=foo",
        ),
        (
            "{source_labels: [a, b], target_label: d, regex: 'f(.*);(.*)r', replacement: '$1-$2'}",
            "a=foo b=bar c=baz d=oo-ba",
        ),
        (
            "{source_labels: [a, missing, b], separator: '/', target_label: d}",
            "a=foo b=bar c=baz d=foo//bar",
        ),
        (
            "{source_labels: [a], target_label: 'x_${1}', regex: '(.o).*', replacement: '${1}$$'}",
            "a=foo b=bar c=baz x_fo=fo$",
        ),
        (
            "{source_labels: [a], regex: '(?P<all>.+)', target_label: d, replacement: '$all$unknown'}",
            "a=foo b=bar c=baz d=foo",
        ),
        // An expression matches the whole text.
        ("{source_labels: [a], regex: 'fo', target_label: d}", labels),
        (
            "{source_labels: [a], regex: 'fo|oo', target_label: d, replacement: x}",
            labels,
        ),
        ("{source_labels: [missing], target_label: b}", "a=foo c=baz"),
        ("{target_label: b, replacement: ''}", "a=foo c=baz"),
        (
            "{target_label: d, replacement: fixed}",
            "a=foo b=bar c=baz d=fixed",
        ),
        ("{target_label: d, replacement: 7}", "a=foo b=bar c=baz d=7"),
        // A name that is none is not set.
        ("{source_labels: [a], target_label: '${1}-x'}", labels),
        ("{source_labels: [a], target_label: __tmp}", labels),
    ];
    for (rule, expected) in cases {
        assert_eq!(relabel(&format!("- {rule}\n"), labels), expected, "{rule}");
    }
}

/// Check the actions that keep and drop series.
#[test]
fn keep_and_drop() {
    let labels = "a=foo b=foo c=baz";
    let cases = [
        ("{action: keep, source_labels: [a], regex: 'f.*'}", true),
        ("{action: keep, source_labels: [a], regex: 'o.*'}", false),
        ("{action: drop, source_labels: [a], regex: 'f.*'}", false),
        ("{action: drop, source_labels: [a], regex: 'o.*'}", true),
        ("{action: keep, source_labels: [missing], regex: ''}", true),
        (
            "{action: drop, source_labels: [missing], regex: '.+'}",
            true,
        ),
        (
            "{action: KeepEqual, source_labels: [a], target_label: b}",
            true,
        ),
        (
            "{action: keepequal, source_labels: [a], target_label: c}",
            false,
        ),
        (
            "{action: dropequal, source_labels: [a], target_label: b}",
            false,
        ),
        (
            "{action: dropequal, source_labels: [a], target_label: c}",
            true,
        ),
    ];
    for (rule, is_kept) in cases {
        let expected = if is_kept { labels } else { "dropped" };
        assert_eq!(relabel(&format!("- {rule}\n"), labels), expected, "{rule}");
    }
}

/// Check the actions over names, and the order of rules.
#[test]
fn names() {
    let labels = "__meta_kubernetes_pod_label_team=shop __meta_kubernetes_pod_label_tier=web a=foo";
    let cases = [
        (
            "- {action: labelmap, regex: '__meta_kubernetes_pod_label_(.+)'}\n",
            "a=foo team=shop tier=web",
        ),
        (
            "- {action: labelmap, regex: '__meta_kubernetes_pod_label_(.+)', replacement: 'pod_$1'}\n\
             - {action: labeldrop, regex: 'pod_tier|a'}\n",
            "pod_team=shop",
        ),
        ("- {action: labelkeep, regex: 'b'}\n", ""),
        (
            "- {source_labels: [__meta_kubernetes_pod_label_team], target_label: __tmp}\n\
             - {action: uppercase, source_labels: [__tmp, a], separator: '', target_label: a}\n\
             - {action: lowercase, source_labels: [a], target_label: b}\n",
            "a=SHOPFOO b=shopfoo",
        ),
    ];
    for (rules, expected) in cases {
        assert_eq!(relabel(rules, labels), expected, "{rules}");
    }
}

/// Check `hashmod` with the MD5 sums of RFC 1321: of "abc" 900150983cd24fb0d6963f7d28e17f72, of "" d41d8cd98f00b204e9800998ecf8427e.
#[test]
fn hashmod() {
    let modulus = u64::MAX;
    let rule =
        format!("- {{action: hashmod, source_labels: [a], target_label: d, modulus: {modulus}}}\n");
    assert_eq!(
        relabel(&rule, "a=abc"),
        format!("a=abc d={}", 0xd696_3f7d_28e1_7f72_u64)
    );
    assert_eq!(
        relabel(&rule, ""),
        format!("d={}", 0xe980_0998_ecf8_427e_u64)
    );
    let rule = "- {action: hashmod, source_labels: [a], target_label: d, modulus: 8}\n";
    assert_eq!(relabel(rule, "a=abc"), "a=abc d=2");
}

/// Check that mistakes are named with their line and rule.
#[test]
fn mistakes() {
    let good = "- source_labels: [a]\n  target_label: b\n";
    let cases = [
        (
            "- source_labels: [a]\n  regex: '('\n  target_label: b\n",
            "line 5, rule 2: regex \"(\": unclosed group",
        ),
        (
            "- regex: 'a)(b'\n  target_label: b\n",
            "line 4, rule 2: regex \"a)(b\": unopened group",
        ),
        (
            "- regex: '\\w{1,200}'\n  target_label: b\n",
            "line 4, rule 2: regex \"\\\\w{1,200}\" takes more than 262144 bytes",
        ),
        (
            "- source_labels: [a]\n",
            "line 4, rule 2: target_label is missing",
        ),
        (
            "- target_label: a-b\n",
            "line 4, rule 2: target_label has \"a-b\": a label name has the form",
        ),
        (
            "- target_label: b\n  source_labels: [a, 'b.c']\n",
            "line 5, rule 2: source_labels has \"b.c\"",
        ),
        (
            "- target_label: node\n",
            "line 4, rule 2: the label node cannot be changed",
        ),
        (
            "- action: rename\n",
            "line 4, rule 2: action is \"rename\": expected one of replace, keep,",
        ),
        (
            "- action: hashmod\n  target_label: b\n",
            "line 4, rule 2: hashmod needs a modulus above 0",
        ),
        (
            "- action: hashmod\n  target_label: b\n  modulus: 0\n",
            "line 6, rule 2: hashmod needs a modulus above 0",
        ),
        (
            "- action: labeldrop\n  regex: a\n  source_labels: [b]\n",
            "line 6, rule 2: labeldrop and labelkeep use regex alone",
        ),
        (
            "- action: keepequal\n  target_label: b\n  regex: b\n",
            "line 6, rule 2: keepequal and dropequal use",
        ),
        (
            "- action: lowercase\n  target_label: b\n  replacement: b\n",
            "line 6, rule 2: lowercase and uppercase do not",
        ),
    ];
    for (rule, expected) in cases {
        let mistake = mistake(&format!("{good}{rule}"));
        assert!(
            mistake.starts_with(expected),
            "{rule}\n{mistake}\n{expected}"
        );
    }
}

/// Check that mistakes of the form have their place too.
#[test]
fn mistakes_of_form() {
    let good = "- source_labels: [a]\n  target_label: b\n";
    let unknown = mistake(&format!("{good}- target_label: b\n  replace: c\n"));
    assert!(unknown.starts_with("line 5, rule 2: "), "{unknown}");
    assert!(
        unknown.contains("replace") && !unknown.contains("column"),
        "{unknown}"
    );
    let text = mistake(&format!("{good}{good}- modulus: many\n  target_label: b\n"));
    assert!(text.starts_with("line 6, rule 3: "), "{text}");
    let broken = mistake(&format!("{good}- [\n"));
    assert!(broken.starts_with("line "), "{broken}");
    for text in ["", "rules: []\n", "- target_label: b\n"] {
        let key = Relabeling::parse(text).unwrap_err().to_string();
        assert!(
            key.ends_with("the file has one key, relabel_configs, with a list of rules"),
            "{key}"
        );
    }
    assert!(
        Relabeling::parse("relabel_configs: []\n")
            .unwrap()
            .is_empty()
    );
}

/// Check the limits of a file.
#[test]
fn limits() {
    let many = "- {target_label: b}\n".repeat(129);
    assert_eq!(mistake(&many), "129 rules, and at most 128 are taken");
    let long = format!("# {}\n", "x".repeat(256 * 1024));
    assert!(mistake(&long).ends_with("and at most 262144 are read"));
    let deep = format!(
        "- {{regex: '{}a{}', target_label: b}}\n",
        "(".repeat(70),
        ")".repeat(70)
    );
    assert!(mistake(&deep).contains("nest"), "{}", mistake(&deep));
}
