//! The health status of the service that takes windows, for `grpc.health.v1`.

use proto::v1::ingest_server::IngestServer;
use tonic_health::server::HealthReporter;

use super::service::IngestService;
use crate::store_state::StoreWatch;

/// Sets the status, and keeps it up to date until the state is no longer watched: serving while windows can be stored.
pub async fn report_ingest(health: HealthReporter, mut state: StoreWatch) {
    let mut is_ready = state.borrow_and_update().writable.is_ok();
    set(&health, is_ready).await;
    tokio::spawn(async move {
        // Only a change is set: each setting is sent to all who watch the status.
        while let Ok(changed) = state
            .wait_for(|state| state.writable.is_ok() != is_ready)
            .await
            .map(|state| state.writable.is_ok())
        {
            is_ready = changed;
            set(&health, is_ready).await;
        }
    });
}

async fn set(health: &HealthReporter, is_ready: bool) {
    if is_ready {
        health.set_serving::<IngestServer<IngestService>>().await;
    } else {
        health
            .set_not_serving::<IngestServer<IngestService>>()
            .await;
    }
}
