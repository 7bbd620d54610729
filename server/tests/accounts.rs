//! Accounts of windows: impossible ones are refused, those that do not balance are stored and marked.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use model::text::window_at;
use model::{ContainerAccount, ContainerUsage, LabelSet, Window};
use running::Running;
use serde_json::json;
use test_push::push_request;
use tonic::Code;

fn window(sequence: u64) -> Window {
    let start_ms = server::serve::http::routes::now_ms() - 120_000 + 10_000 * sequence as i64;
    window_at("comm=a,node=a | main | 3", start_ms, sequence)
}

async fn metric(server: &Running, name: &str) -> String {
    let metrics = server.get("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {metrics}"))
        .trim()
        .to_owned()
}

type Change = fn(&mut Window);

/// Check that sums that no node can have are refused with words, and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn impossible_accounts_are_refused() {
    let server = Running::start().await;
    let changes: [(&str, Change); 6] = [
        ("account.busy_ns is 18446744073709551615 ns", |window| {
            window.head.account.busy_ns = u64::MAX;
        }),
        ("account.entries is 1000000000 samples", |window| {
            window.head.account.entries = 1_000_000_000;
        }),
        (
            "account.outcomes is 18446744073709551615 samples",
            |window| {
                let counts = ["a", "b", "c"].map(|name| (name.to_owned(), u64::MAX / 2));
                window.head.account.outcomes = counts.into();
            },
        ),
        (
            "account.dropped is 18446744073709551615 samples",
            |window| {
                window.head.account.dropped = [("ring".to_owned(), u64::MAX)].into();
            },
        ),
        ("containers 0: kernel_ns is 4503599627370496 ns", |window| {
            window.containers.push(ContainerAccount {
                labels: LabelSet::default(),
                usage: ContainerUsage {
                    kernel_ns: 1 << 52,
                    ..ContainerUsage::default()
                },
            });
        }),
        ("the profile: CPU time is 4503599627370496 ns", |window| {
            window.rows[0].ns = 1 << 52;
        }),
    ];
    for (words, change) in changes {
        let mut window = window(1);
        change(&mut window);
        let refused = server.push(push_request(&window)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(words), "{refused}");
        let words = ", and 512 processors have ";
        assert!(refused.message().contains(words), "{refused}");
    }
    let refused = "pilotlight_server_windows_refused_total{reason=\"account\"}";
    assert_eq!(metric(&server, refused).await, "6");
    let nodes = server.json("/api/v1/nodes").await;
    assert_eq!(nodes["nodes"], json!([]));
    server.push(push_request(&window(1))).await.unwrap();
}

/// Check that windows whose account does not balance count, and that the metric and the node tell of them, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_do_not_balance_are_marked() {
    let mut server = Running::start().await;
    let changes: [fn(&mut Window); 5] = [
        |_| {},
        |window| window.head.account.entries += 1,
        |window| window.head.account.sampled_ns -= 1,
        |window| window.head.account.dropped = [("ring".to_owned(), 1)].into(),
        // Two were lost, and counted.
        |window| {
            let account = &mut window.head.account;
            account.entries += 2;
            account.outcomes.insert("ring".to_owned(), 2);
            account.dropped = [("ring".to_owned(), 2)].into();
        },
    ];
    for (sequence, change) in (1..).zip(changes) {
        let mut window = window(sequence);
        change(&mut window);
        server.push(push_request(&window)).await.unwrap();
        // A repeat is not counted again.
        assert!(server.push(push_request(&window)).await.unwrap().duplicate);
    }
    let unbalanced = "pilotlight_server_windows_unbalanced_total";
    assert_eq!(metric(&server, unbalanced).await, "3");
    for is_restarted in [false, true] {
        if is_restarted {
            server = server.restart().await;
        }
        let nodes = server.json("/api/v1/nodes").await;
        let node = &nodes["nodes"][0];
        assert_eq!(
            (&node["windows"], &node["samples"]),
            (&json!(5), &json!(15))
        );
        assert_eq!(node["unbalanced_windows"], 3);
    }
}
