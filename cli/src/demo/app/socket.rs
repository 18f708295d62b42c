//! The WebSocket: echoes text until either side is done.

use super::Shared;
use super::serve::text;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

/// How long a client may take to answer our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Answers 101 and echoes in a task of its own.
pub(super) fn upgrade(app: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return text(StatusCode::BAD_REQUEST, "a WebSocket needs a key\n".to_owned());
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "a WebSocket needs a key\n".to_owned());
    };
    let app = Arc::clone(app);
    drop(tokio::spawn(async move {
        let _under_way = app.under_way("/ws");
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            echo(&app, socket).await;
        }
    }));
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(app: &Shared, mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
    let mut parting = app.parting();
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if socket.send(message).await.is_err() { return }
                }
                // A close is answered by the library; the stream ends after it.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            () = async { drop(parting.wait_for(|parting| *parting).await) } => break,
        }
    }
    let away = CloseFrame { code: CloseCode::Away, reason: "stopping".into() };
    if socket.send(Message::Close(Some(away))).await.is_ok() {
        let rest = async { while let Some(Ok(_)) = socket.next().await {} };
        let _ = tokio::time::timeout(GOODBYE, rest).await;
    }
}
