//! Crash a future at any of its await points, without the code under test knowing.

use std::{
    future::poll_fn,
    mem,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// Poll at most so many times, then drop the future where it stands, like a crash.
pub(crate) fn run_for<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..polls).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// The same in a runtime: drop the future so many polls after it has reached the place. None when it was dropped.
pub(crate) async fn run_until<T>(
    is_reached: impl Fn() -> bool,
    more_polls: usize,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = more_polls;
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if !is_reached() => Poll::Pending,
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// An await point: a place where a test may crash.
pub(crate) async fn pause() {
    let mut paused = false;
    poll_fn(|_| if mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

#[test]
fn a_future_is_dropped_where_it_stands() {
    let mut steps = 0;
    let outcome = run_for(2, async {
        for _ in 0..3 {
            steps += 1;
            pause().await;
        }
    });
    assert_eq!((outcome, steps), (None, 2));
    assert_eq!(run_for(2, pause()), Some(()));
}
