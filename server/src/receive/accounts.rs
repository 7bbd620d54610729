//! Limits on accounts: what processors can do in the time of a window. Pure.

use model::{Account, ContainerUsage, Row, Window};

use super::entries::{FREQUENCY_MAX, PROCESSORS_MAX};
use super::refusal::{Refusal, RefusalReason};

/// Time before a window whose samples may be in it: those that waited for their process, and a busy machine.
const SAMPLED_EARLIER_MS: u64 = 60_000;

/// Time before a window that may be in the kernel's accounts: they count from the last reading on, which may be that of another window if
/// the collector was stopped.
const READ_EARLIER_MS: u64 = 3_600_000;

/// Checks that the accounts of a window and the samples in it are possible: at most all processors for all of its time.
///
/// # Errors
/// The first number above its limit, named.
pub fn check_accounts(window: &Window) -> Result<(), Refusal> {
    let limits = Limits::new(window.head.window_ms);
    limits.check_account(&window.head.account)?;
    for (at, account) in window.containers.iter().enumerate() {
        limits.check_container(at, &account.usage)?;
    }
    let sum = |number: fn(&Row) -> u64| {
        let numbers = window.rows.iter().map(number);
        numbers.fold(0, u64::saturating_add)
    };
    limits.check_samples("the profile: samples", sum(|row| row.samples))?;
    limits.check_sampled("the profile: CPU time", sum(|row| row.ns))
}

/// Highest sums that a window can have.
struct Limits {
    sampled_ns_max: u64,
    kernel_ns_max: u64,
    samples_max: u64,
}

impl Limits {
    fn new(window_ms: i64) -> Self {
        let processor_ms = |earlier_ms: u64| {
            let ms = window_ms.unsigned_abs().saturating_add(earlier_ms);
            ms.saturating_mul(PROCESSORS_MAX)
        };
        let sampled_ms = processor_ms(SAMPLED_EARLIER_MS);
        Self {
            sampled_ns_max: sampled_ms.saturating_mul(1_000_000),
            kernel_ns_max: processor_ms(READ_EARLIER_MS).saturating_mul(1_000_000),
            samples_max: sampled_ms.saturating_mul(FREQUENCY_MAX) / 1000,
        }
    }

    fn check_account(&self, account: &Account) -> Result<(), Refusal> {
        let Account {
            entries,
            expected,
            sampled_ns,
            busy_ns,
            collector_cpu_ns,
            bpf_ns,
            outcomes,
            dropped,
            stolen_ns,
        } = account;
        self.check_samples("account.entries", *entries)?;
        self.check_samples("account.expected", *expected)?;
        self.check_sampled("account.sampled_ns", *sampled_ns)?;
        for (name, ns) in [
            ("account.busy_ns", busy_ns),
            ("account.collector_cpu_ns", collector_cpu_ns),
            ("account.bpf_ns", bpf_ns),
            ("account.stolen_ns", stolen_ns),
        ] {
            self.check_read(name, *ns)?;
        }
        for (name, counts) in [("account.outcomes", outcomes), ("account.dropped", dropped)] {
            let sum = counts.values().copied().fold(0, u64::saturating_add);
            self.check_samples(name, sum)?;
        }
        Ok(())
    }

    fn check_container(&self, at: usize, usage: &ContainerUsage) -> Result<(), Refusal> {
        let ContainerUsage {
            kernel_ns,
            throttled_ns,
            unread_ns,
            excluded_samples,
        } = *usage;
        for (name, ns) in [
            ("kernel_ns", kernel_ns),
            ("throttled_ns", throttled_ns),
            ("unread_ns", unread_ns),
        ] {
            self.check_read(&format!("containers {at}: {name}"), ns)?;
        }
        self.check_samples(
            &format!("containers {at}: excluded_samples"),
            excluded_samples,
        )
    }

    fn check_sampled(&self, name: &str, ns: u64) -> Result<(), Refusal> {
        check(name, ns, self.sampled_ns_max, "ns")
    }

    fn check_read(&self, name: &str, ns: u64) -> Result<(), Refusal> {
        check(name, ns, self.kernel_ns_max, "ns")
    }

    fn check_samples(&self, name: &str, samples: u64) -> Result<(), Refusal> {
        check(name, samples, self.samples_max, "samples")
    }
}

fn check(name: &str, number: u64, max: u64, unit: &str) -> Result<(), Refusal> {
    if number <= max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::Account,
        format!(
            "{name} is {number} {unit}, and {PROCESSORS_MAX} processors have {max} in that time"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use model::text::window;

    use super::*;

    /// Check that 512 processors of a 10 s window, and a minute or an hour before it, are the limit of each number.
    #[test]
    fn numbers_are_bounded_by_processors_and_time() {
        const SAMPLED_MAX: u64 = 512 * 70 * 1_000_000_000;
        const READ_MAX: u64 = 512 * 3610 * 1_000_000_000;
        const SAMPLES_MAX: u64 = 512 * 70 * 1000;
        let check = |change: &dyn Fn(&mut Window)| {
            let mut window = window("comm=a | main | 3");
            window.containers = vec![Default::default()];
            change(&mut window);
            check_accounts(&window).map_err(|refusal| {
                assert_eq!(refusal.reason, RefusalReason::Account);
                refusal.message
            })
        };
        type Change = fn(&mut Window, u64);
        let sampled: [Change; 2] = [
            |window, ns| window.head.account.sampled_ns = ns,
            |window, ns| window.rows[0].ns = ns,
        ];
        let read: [Change; 7] = [
            |window, ns| window.head.account.busy_ns = ns,
            |window, ns| window.head.account.collector_cpu_ns = ns,
            |window, ns| window.head.account.bpf_ns = ns,
            |window, ns| window.head.account.stolen_ns = ns,
            |window, ns| window.containers[0].usage.kernel_ns = ns,
            |window, ns| window.containers[0].usage.throttled_ns = ns,
            |window, ns| window.containers[0].usage.unread_ns = ns,
        ];
        let samples: [Change; 6] = [
            |window, count| window.head.account.entries = count,
            |window, count| window.head.account.expected = count,
            |window, count| window.head.account.outcomes = [("complete".into(), count)].into(),
            |window, count| window.head.account.dropped = [("ring".into(), count)].into(),
            |window, count| window.containers[0].usage.excluded_samples = count,
            |window, count| window.rows[0].samples = count,
        ];
        let all = [
            (&sampled[..], SAMPLED_MAX),
            (&read[..], READ_MAX),
            (&samples[..], SAMPLES_MAX),
        ];
        for (changes, max) in all {
            for (at, change) in changes.iter().enumerate() {
                assert_eq!(check(&|window| change(window, max)), Ok(()), "{at}");
                for number in [max + 1, u64::MAX] {
                    let message = check(&|window| change(window, number)).unwrap_err();
                    let words = format!("512 processors have {max} in that time");
                    assert!(message.contains(&number.to_string()), "{message}");
                    assert!(message.ends_with(&words), "{message}");
                }
            }
        }
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut window = window("comm=a | main | 3\ncomm=b | main | 3");
        window
            .rows
            .iter_mut()
            .for_each(|row| row.samples = u64::MAX / 2 + 1);
        let message = check_accounts(&window).unwrap_err().message;
        assert!(
            message.starts_with("the profile: samples is 18446744073709551615"),
            "{message}"
        );
    }
}
