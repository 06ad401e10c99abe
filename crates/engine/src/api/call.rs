// SPDX-License-Identifier: Apache-2.0
//! Around every call, whatever its service: a panic is that call's failure
//! (D20), its end is traced, and none keeps a stopping engine waiting.
//!
//! When the engine stops, streams end at once and calls that still work on
//! their answer have [`GRACE`] to finish; both then end with `UNAVAILABLE`,
//! which clients know as "connect again".

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        BoxFuture, Bytes,
        http::{HeaderMap, Request, Response},
    },
};
use tower::{Layer, Service};

/// What a call that is being answered when the engine stops may still take.
pub const GRACE: Duration = Duration::from_secs(2);

/// Puts a [`Call`] around a service.
#[derive(Debug, Clone)]
pub struct CallLayer {
    stop: watch::Receiver<bool>,
}

impl CallLayer {
    /// `stop` turns true when the engine stops.
    #[must_use]
    pub fn new(stop: watch::Receiver<bool>) -> Self {
        Self { stop }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Call<S>;

    fn layer(&self, inner: S) -> Call<S> {
        Call { inner, stop: self.stop.clone() }
    }
}

/// A service whose calls are contained, traced and ended in time.
#[derive(Debug, Clone)]
pub struct Call<S> {
    inner: S,
    stop: watch::Receiver<bool>,
}

impl<S> Service<Request<Body>> for Call<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut trace = Trace::new(request.uri().path());
        let stop = self.stop.clone();
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let response = tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(panic) => trace.panicked(panic.as_ref()).into_http(),
                },
                () = over(stop.clone()) => stopping().into_http(),
            };
            // An answer without a body has its status among the headers.
            trace.code = Status::from_header_map(response.headers()).map(|status| status.code());
            Ok(response.map(|body| Body::new(Answer::new(body, trace, stop))))
        })
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error: the sender is gone, and with it the engine.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Stopped, and the grace is over.
async fn over(stop: watch::Receiver<bool>) {
    stopped(stop).await;
    tokio::time::sleep(GRACE).await;
}

fn stopping() -> Status {
    Status::unavailable("the engine is stopping: containers keep running, connect again when it is back")
}

/// Says how a call ended, when it is dropped.
#[derive(Debug)]
struct Trace {
    method: String,
    started: Instant,
    /// `None`: the client went away.
    code: Option<Code>,
}

impl Trace {
    fn new(method: &str) -> Self {
        Self { method: method.to_owned(), started: Instant::now(), code: None }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Status {
        let text = panic.downcast_ref::<&str>().copied();
        let text =
            text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        tracing::error!(method = self.method, panic = text, "a request handler panicked");
        Status::internal(format!("the engine failed on this request: {text}"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        tracing::debug!(method = self.method, ?code, elapsed = ?self.started.elapsed(), "call");
    }
}

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of an answer, until its end or the engine's.
struct Answer {
    body: Body,
    trace: Trace,
    stopped: Signal,
    over: Signal,
    ended: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("trace", &self.trace).finish_non_exhaustive()
    }
}

impl Answer {
    fn new(body: Body, trace: Trace, stop: watch::Receiver<bool>) -> Self {
        Self {
            body,
            trace,
            stopped: Box::pin(stopped(stop.clone())),
            over: Box::pin(over(stop)),
            ended: false,
        }
    }

    /// The trailers that end a stream with `status`.
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        self.trace.code = Some(status.code());
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, Status>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.trace.code = Status::from_header_map(trailers).map(|s| s.code());
                }
            }
            Some(Err(status)) => self.trace.code = Some(status.code()),
            None => self.trace.code = self.trace.code.or(Some(Code::Ok)),
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        // First: a stream that always has something would never see the other.
        if this.over.as_mut().poll(cx).is_ready() {
            return this.end(&stopping());
        }
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx))) {
            Ok(Poll::Ready(frame)) => {
                this.note(frame.as_ref());
                Poll::Ready(frame)
            }
            Ok(Poll::Pending) if this.stopped.as_mut().poll(cx).is_ready() => this.end(&stopping()),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => {
                let status = this.trace.panicked(panic.as_ref());
                this.end(&status)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::{Stream, StreamExt as _, stream};
    use http_body::Body as _;

    use super::*;

    type Reply = BoxFuture<Response<Body>, Infallible>;

    /// A call that is answered with `answer`; the sender stops the engine.
    fn call<F>(answer: impl Fn() -> F) -> (watch::Sender<bool>, Reply)
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let service = tower::service_fn(|_: Request<Body>| answer().map(Ok));
        let reply = CallLayer::new(stopped).layer(service).call(Request::new(Body::empty()));
        (stop, reply)
    }

    /// A body of frames, which may panic or never end.
    struct Frames<S>(S);

    impl<S: Stream<Item = Frame<Bytes>> + Unpin> http_body::Body for Frames<S> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_next_unpin(cx).map(|frame| frame.map(Ok))
        }
    }

    fn streaming(frames: impl Stream<Item = Frame<Bytes>> + Unpin + Send + 'static) -> Response<Body> {
        Response::new(Body::new(Frames(frames)))
    }

    fn data() -> Frame<Bytes> {
        Frame::data(Bytes::from_static(b"x"))
    }

    /// How a call ended, by its headers or its trailers.
    async fn code(reply: Reply) -> Option<Code> {
        let Ok(response) = reply.await;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Some(status.code());
        }
        let mut body = response.into_body();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            if let Ok(trailers) = frame.expect("frame").into_trailers() {
                return Status::from_header_map(&trailers).map(|status| status.code());
            }
        }
        None
    }

    #[tokio::test]
    async fn a_panic_is_that_calls_failure() {
        let (_stop, before) = call(|| async { panic!("before the answer") });
        assert_eq!(code(before).await, Some(Code::Internal));
        let (_stop, within) = call(|| async {
            streaming(stream::iter(0..3).map(|n| if n < 2 { data() } else { panic!("within the answer") }))
        });
        assert_eq!(code(within).await, Some(Code::Internal));
    }

    #[tokio::test]
    async fn an_answer_passes_as_it_is() {
        let (_stop, whole) = call(|| async { streaming(stream::iter([data(), data()])) });
        assert_eq!(code(whole).await, None);
        let (_stop, failed) = call(|| async { Status::not_found("x").into_http() });
        assert_eq!(code(failed).await, Some(Code::NotFound));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_ends_at_once_when_the_engine_stops() {
        let (stop, reply) = call(|| async { streaming(stream::pending()) });
        stop.send(true).expect("listening");
        let before = tokio::time::Instant::now();
        assert_eq!(code(reply).await, Some(Code::Unavailable));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn work_has_a_grace_and_no_more() {
        let (stop, slow) = call(|| async {
            tokio::time::sleep(GRACE / 2).await;
            Status::already_exists("done in time").into_http()
        });
        stop.send(true).expect("listening");
        assert_eq!(code(slow).await, Some(Code::AlreadyExists));

        let (stop, stuck) = call(std::future::pending);
        stop.send(true).expect("listening");
        assert_eq!(code(stuck).await, Some(Code::Unavailable));

        let (stop, busy) = call(|| async {
            let tick = tokio::time::interval(Duration::from_millis(10));
            streaming(Box::pin(stream::unfold(tick, |mut tick| async {
                tick.tick().await;
                Some((data(), tick))
            })))
        });
        stop.send(true).expect("listening");
        assert_eq!(code(busy).await, Some(Code::Unavailable));
    }
}
