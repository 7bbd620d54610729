//! Metrics of listeners.

use metrics::{Counter, Family, Registry};

/// Counters of connections.
#[derive(Clone)]
pub struct ListenMetrics {
    closed_connections: Family<Counter>,
    other_hosts: Counter,
}

impl Default for ListenMetrics {
    fn default() -> Self {
        Self {
            closed_connections: Family::new(["reason"]),
            other_hosts: Counter::default(),
        }
    }
}

impl ListenMetrics {
    /// Registers the metrics under the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections_closed",
            "Connections closed, by reason: limit (too many), gave_way (too many, and this one waited for its \
             client), silent (no whole request in time), unread (nothing of the answer was taken), slow (hardly anything was)",
            self.closed_connections.clone(),
        );
        registry.register(
            "other_host_requests",
            "Requests refused because their Host is not a name of this program",
            self.other_hosts.clone(),
        );
    }

    /// Counts a request that was refused because of its host name.
    pub fn count_other_host(&self) {
        self.other_hosts.inc();
    }

    /// Counts a connection that was closed because of a limit.
    pub fn count_closed_connection(&self, reason: &'static str) {
        self.closed_connections.of([reason]).inc();
    }
}
