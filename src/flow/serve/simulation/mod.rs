//! The scheduler's own loop over months of simulated time: restarts, failing runs, stores that are away, a clock that jumps.

mod world;

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    task::{LocalSet, spawn_local},
    time::{Instant, sleep},
};

use self::world::World;
use super::{board::Board, scheduler::Pace};
use crate::failure::{Exit, Failure, Signal};

const SCHEDULES: [(&str, &str, &str, &str, i64); 7] = [
    ("hourly", "one", "0 * * * *", "UTC", 0),
    ("daily", "one", "0 2 * * *", "Europe/Berlin", 0),
    ("nightly", "two", "30 2 * * *", "America/New_York", 7),
    ("often", "two", "15 */4 * * *", "Asia/Kathmandu", 5),
    ("weekly", "three", "30 1 * * 0", "Australia/Lord_Howe", 0),
    ("monthly", "three", "0 0 1 * *", "UTC", 0),
    ("halves", "four", "0,30 * * * *", "Europe/Berlin", 0),
];

#[tokio::test(start_paused = true)]
async fn in_a_year_of_restarts_and_failures_no_backup_is_missed_and_none_is_doubled() {
    let test = async {
        let world = World::new("2026-01-01T00:10:00Z", 4, &SCHEDULES[..6]);
        // Longer waits than in production: the clock of a simulation does not jump by itself.
        let pace = Pace { wait_max: Duration::from_hours(1), look_every: Duration::from_hours(3) };
        world.live("2027-01-01T00:00:00Z", pace).await;
        world.assert_none_missed_none_doubled("2027-01-01T00:00:00Z");
        assert!(world.done("hourly").len() > 8700);
        let state = world.state();
        assert_eq!(state.running_most, 2);
        assert!(state.proofs > 8000);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn at_its_own_pace_a_week_over_a_clock_change_is_complete_too() {
    let test = async {
        for seed in 0..3 {
            let world = World::new("2026-10-22T00:10:00Z", seed, &SCHEDULES);
            world.live("2026-10-29T00:00:00Z", Pace::default()).await;
            world.assert_none_missed_none_doubled("2026-10-29T00:00:00Z");
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_is_followed_within_a_minute_and_doubles_nothing() {
    let test = async {
        let world = World::new("2026-03-10T00:10:00Z", 1, &SCHEDULES[..2]);
        world.state().fails = false;
        world.state().runs_take = Duration::from_secs(5);
        let running = spawn_local(world.scheduler(Pace::default()).run(std::future::pending()));
        // No look is near that would wake the loop.
        sleep(Duration::from_mins(7)).await;
        assert_eq!(world.done("hourly").len(), 1);
        world.state().jumped = SignedDuration::from_hours(2);
        sleep(Duration::from_secs(90)).await;
        assert_eq!(world.done("hourly").last(), Some(&"2026-03-10T02:00:00Z".parse().unwrap()));
        world.state().jumped = SignedDuration::ZERO;
        sleep(Duration::from_mins(100)).await;
        assert_eq!(world.done("hourly").len(), 2);
        sleep(Duration::from_mins(90)).await;
        assert_eq!(world.done("hourly").last(), Some(&"2026-03-10T03:00:00Z".parse().unwrap()));
        running.abort();
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_overlaps_its_next_moments_is_followed_by_the_newest_alone() {
    let test = async {
        let schedules = [("a", "one", "* * * * *", "UTC", 0), ("b", "one", "* * * * *", "UTC", 0)];
        let world = World::new("2026-03-10T00:00:30Z", 1, &schedules);
        world.state().fails = false;
        world.state().runs_take = Duration::from_mins(10);
        let running = spawn_local(world.scheduler(Pace::default()).run(std::future::pending()));
        sleep(Duration::from_hours(10)).await;
        running.abort();
        let (a, b) = (world.done("a"), world.done("b"));
        // They take turns, though both are due all the time; one that is looked at lets the other pass.
        assert!(a.len() > 40 && a.len().abs_diff(b.len()) < 9, "{} and {}", a.len(), b.len());
        assert!(a.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(world.state().violations, Vec::<String>::new());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn told_to_end_it_starts_nothing_and_waits_for_what_runs_but_not_for_ever() {
    let test = async {
        let world = World::new("2026-03-10T00:59:50Z", 1, &SCHEDULES[..1]);
        world.state().fails = false;
        world.state().runs_take = Duration::from_secs(3);
        let (end, ended) = tokio::sync::oneshot::channel();
        let ended = async {
            ended.await.unwrap();
            Failure::Ended { signal: Signal::Terminate }
        };
        let running = spawn_local(world.scheduler(Pace::default()).run(ended));
        sleep(Duration::from_secs(9)).await;
        let before = world.done("hourly").len();
        end.send(()).unwrap();
        let failure = running.await.unwrap();
        assert_eq!(failure.exit(), Exit::Terminated);
        sleep(Duration::from_hours(3)).await;
        assert_eq!((before, world.done("hourly").len()), (1, 1));

        world.state().runs_take = Duration::from_hours(100);
        let begun = Instant::now();
        let end = async {
            sleep(Duration::from_mins(1)).await;
            Failure::Ended { signal: Signal::Terminate }
        };
        world.scheduler(Pace::default()).run(end).await;
        assert!(begun.elapsed() < Duration::from_secs(60 + 26));
        assert_eq!(world.done("hourly").len(), 1);
        // Let go of what was dropped.
        tokio::task::yield_now().await;
        assert!(world.state().running.is_empty());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_once_each_store_answered_and_not_from_the_signal_on() {
    let test = async {
        let world = World::new("2026-03-10T00:00:30Z", 1, &SCHEDULES[..2]);
        world.state().fails = false;
        world.state().runs_take = Duration::from_mins(30);
        world.state().away_until = Instant::now() + Duration::from_secs(3);
        let (scheduler, board) = world.scheduler_with_board(Pace::default());
        let end = async {
            sleep(Duration::from_mins(20)).await;
            Failure::Ended { signal: Signal::Terminate }
        };
        let running = spawn_local(scheduler.run(end));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(board.shown().is_not_ready().len(), 2);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(board.shown().is_not_ready(), Vec::<String>::new());
        sleep(Duration::from_mins(15)).await;
        // A long run keeps the loop from nothing.
        assert_eq!(board.shown().is_stuck(Instant::now()), None);
        while !world.state().running.is_empty() && board.shown().is_not_ready().is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(board.shown().is_not_ready(), ["the service ends"]);
        running.await.unwrap();
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_turns_no_more_shows() {
    let board = Board::of(BTreeMap::new(), Timestamp::UNIX_EPOCH);
    assert_eq!(board.shown().is_stuck(Instant::now()), None);
    sleep(Duration::from_mins(4)).await;
    let finding = board.shown().is_stuck(Instant::now()).unwrap();
    assert!(finding.contains("240 s"), "{finding}");
}

#[tokio::test(start_paused = true)]
async fn two_services_on_one_host_double_nothing() {
    let test = async {
        let world = World::new("2026-03-10T00:10:00Z", 1, &SCHEDULES);
        world.state().is_shared = true;
        let one = spawn_local(world.scheduler(Pace::default()).run(std::future::pending()));
        sleep(Duration::from_millis(50)).await;
        let other = spawn_local(world.scheduler(Pace::default()).run(std::future::pending()));
        sleep(Duration::from_mins(71 * 60 + 40)).await;
        one.abort();
        other.abort();
        world.assert_none_missed_none_doubled("2026-03-13T00:00:00Z");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_never_works_is_tried_less_and_less() {
    let test = async {
        let world =
            World::new("2026-03-10T02:00:10Z", 1, &[("daily", "one", "0 2 * * *", "UTC", 0)]);
        world.state().fails = false;
        world.state().never_works = true;
        let running = spawn_local(world.scheduler(Pace::default()).run(std::future::pending()));
        // At 0, 1, 3, 7, 15, 31, 47, 63, 79, 95 and 111 minutes.
        sleep(Duration::from_mins(2)).await;
        assert_eq!(world.state().attempts, 2);
        sleep(Duration::from_mins(116)).await;
        assert_eq!(world.state().attempts, 11);
        world.state().never_works = false;
        sleep(Duration::from_mins(20)).await;
        assert_eq!(world.done("daily"), ["2026-03-10T02:00:00Z".parse::<Timestamp>().unwrap()]);
        running.abort();
    };
    LocalSet::new().run_until(test).await;
}
