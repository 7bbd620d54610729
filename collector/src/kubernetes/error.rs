//! Errors of the API server.

use kube::{Error as ClientError, runtime::watcher};

/// Whether an API server refuses `sendInitialEvents`: it is older than 1.27, or its feature WatchList is off.
pub(super) fn refuses_streaming(err: &watcher::Error) -> bool {
    match err {
        watcher::Error::WatchStartFailed(ClientError::Api(status)) => {
            matches!(status.code, 400 | 422)
        }
        _ => false,
    }
}

/// Whether the API server answered the start of a watch with the status 410: it no longer has the watch's resource version.
pub(super) fn is_start_gone(err: &watcher::Error) -> bool {
    matches!(err, watcher::Error::WatchStartFailed(ClientError::Api(status)) if status.code == 410)
}

pub(super) fn reason_of(err: &watcher::Error) -> &'static str {
    match err {
        watcher::Error::InitialListFailed(err)
        | watcher::Error::WatchStartFailed(err)
        | watcher::Error::WatchFailed(err) => reason_of_client(err),
        watcher::Error::WatchError(status) => reason_of_code(status.code),
        watcher::Error::NoResourceVersion => "invalid",
    }
}

pub(super) fn reason_of_client(err: &ClientError) -> &'static str {
    match err {
        ClientError::Api(status) => reason_of_code(status.code),
        ClientError::HyperError(_) | ClientError::Service(_) | ClientError::ReadEvents(_) => {
            "unreachable"
        }
        ClientError::SerdeError(_) | ClientError::FromUtf8(_) => "invalid",
        _ => "other",
    }
}

pub(super) fn reason_of_code(code: u16) -> &'static str {
    match code {
        401 => "unauthorized",
        403 => "forbidden",
        410 => "gone",
        429 | 500.. => "server",
        _ => "other",
    }
}
