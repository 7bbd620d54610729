//! Metrics of HTTP requests.

use std::time::Duration;

use metrics::{Counter, Family, Histogram, Label, Registry, Unit};

/// From a cached page to a query that a person gives up on.
const QUERY_SECONDS: [f64; 12] = [
    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0,
];

/// Counters of requests.
#[derive(Clone)]
pub struct HttpMetrics {
    queries: Family<Counter, 2>,
    query_seconds: Family<Histogram>,
    stopped: Family<Counter>,
    refused: Family<Counter>,
    /// Queries that were answered by the answer to an identical one.
    pub joined: Counter,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            queries: Family::new(["route", "status"]),
            query_seconds: Family::with_constructor(["route"], || Histogram::new(QUERY_SECONDS)),
            stopped: Family::new(["reason"]),
            refused: Family::new(["reason"]),
            joined: Counter::default(),
        }
    }
}

impl HttpMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "queries",
            "HTTP requests, by route and status",
            self.queries.clone(),
        );
        registry.register_with_unit(
            "query_duration",
            "Time that a request took",
            Unit::Seconds,
            self.query_seconds.clone(),
        );
        registry.register(
            "queries_stopped",
            "Queries that ran and ended without an answer, by reason",
            self.stopped.clone(),
        );
        registry.register(
            "queries_refused",
            "Queries that waited for a place and got none, by reason",
            self.refused.clone(),
        );
        registry.register(
            "queries_joined",
            "Queries that got the answer to an identical one that ran already",
            self.joined.clone(),
        );
    }

    /// Notes a query that ended without an answer.
    pub fn count_stopped(&self, reason: &'static str) {
        self.stopped.of([reason]).inc();
    }

    /// Notes a query that got no place.
    pub fn count_refused(&self, reason: &'static str) {
        self.refused.of([reason]).inc();
    }

    /// Notes a request.
    pub fn observe_query(&self, route: &str, status: u16, duration: Duration) {
        let route = Label::from(route.to_owned());
        self.queries
            .of([route.clone(), status.to_string().into()])
            .inc();
        self.query_seconds
            .of([route])
            .observe(duration.as_secs_f64());
    }
}
