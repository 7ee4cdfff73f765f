//! Whose turn it is.

use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::approval::{Bucket, Limits, Queue, Rate};

const LIMITS: Limits = Limits { per_node: 3, per_requester: 8 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A request that nobody has to be able to read.
fn request(name: &str, user: &str, created: i64) -> SigningRequest {
    let mut request = object("x", b"");
    request.name = name.to_owned();
    request.uid = format!("uid-{name}");
    request.username = user.to_owned();
    request.created = Some(at(created));
    request
}

fn taken(queue: &mut Queue, now: i64, at_most: usize) -> Vec<String> {
    queue.take(at(now), at_most).into_iter().map(|turn| turn.request.name).collect()
}

#[test]
fn one_node_with_many_requests_does_not_hold_up_the_others() {
    let mut queue = Queue::new(LIMITS);
    for index in 0..1000 {
        queue.put(request(&format!("a-noisy-{index:04}"), "system:node:a", index));
    }
    for node in ["b", "c", "d"] {
        queue.put(request(&format!("z-{node}"), &format!("system:node:{node}"), 2000));
    }
    assert_eq!(taken(&mut queue, 2000, 4), ["a-noisy-0999", "z-b", "z-c", "z-d"]);
}

#[test]
fn of_one_node_the_newest_comes_first_and_the_oldest_are_let_go() {
    let mut queue = Queue::new(LIMITS);
    let mut gone = vec![];
    for (name, created) in [("b", 2), ("e", 5), ("a", 1), ("d", 4), ("c", 3)] {
        gone.extend(queue.put(request(name, "system:node:n", created)));
    }
    gone.sort();
    assert_eq!(gone, ["a", "b"]);
    assert_eq!((queue.len(), queue.oldest()), (3, Some(at(3))));
    assert_eq!(taken(&mut queue, 10, 10), ["e", "d", "c"]);
    assert!(queue.is_empty());
}

#[test]
fn the_turn_goes_round() {
    let mut queue = Queue::new(LIMITS);
    for node in ["a", "b", "c"] {
        for index in 0..2 {
            queue.put(request(&format!("{node}{index}"), &format!("system:node:{node}"), index));
        }
    }
    assert_eq!(taken(&mut queue, 10, 2), ["a1", "b1"]);
    assert_eq!(taken(&mut queue, 10, 2), ["c1", "a0"]);
    assert_eq!(taken(&mut queue, 10, 9), ["b0", "c0"]);
}

#[test]
fn a_node_has_ten_new_requests_at_once_and_ten_a_minute() {
    let mut queue = Queue::new(Limits { per_node: 100, per_requester: 100 });
    for index in 0..100 {
        queue.put(request(&format!("{index:03}"), "system:node:n", index));
    }
    assert_eq!(taken(&mut queue, 100, 100).len(), 10);
    assert_eq!(taken(&mut queue, 105, 100).len(), 0);
    assert!(queue.next_due().is_some_and(|due| due > at(105)));
    assert_eq!(taken(&mut queue, 160, 100).len(), 10);
    // Others are not affected.
    queue.put(request("other", "system:node:other", 0));
    assert_eq!(taken(&mut queue, 160, 100), ["other"]);
}

#[test]
fn what_waits_comes_again_when_it_is_due_or_when_its_node_changes() {
    let mut queue = Queue::new(LIMITS);
    queue.put(request("r", "system:node:n", 0));
    let turn = queue.take(at(1), 1).remove(0);
    queue.put_back(turn, Some(at(100)));
    assert_eq!((queue.next_due(), taken(&mut queue, 99, 9).len()), (Some(at(100)), 0));
    queue.wake("another");
    assert_eq!(taken(&mut queue, 99, 9).len(), 0);
    queue.wake("n");
    let turn = queue.take(at(99), 1).remove(0);
    queue.put_back(turn, Some(at(100)));
    assert_eq!(taken(&mut queue, 100, 9), ["r"]);
    assert_eq!(queue.next_due(), None);
}

#[test]
fn a_list_that_brings_a_request_again_changes_nothing() {
    let mut queue = Queue::new(LIMITS);
    queue.put(request("r", "system:node:n", 0));
    let mut turn = queue.take(at(1), 1).remove(0);
    (turn.waits, turn.told) = (3, Some("NodeNotFound"));
    queue.put_back(turn, Some(at(100)));
    queue.put(request("r", "system:node:n", 0));
    assert_eq!(taken(&mut queue, 99, 9).len(), 0);
    let turn = queue.take(at(100), 9).remove(0);
    assert_eq!((turn.waits, turn.told), (3, Some("NodeNotFound")));
    // Another object of the same name is another request.
    queue.put_back(turn, Some(at(200)));
    queue.put(SigningRequest { uid: "other".to_owned(), ..request("r", "system:node:n", 0) });
    assert_eq!(queue.take(at(101), 9).remove(0).waits, 0);
}

#[test]
fn what_is_not_in_a_new_list_is_gone() {
    let mut queue = Queue::new(LIMITS);
    for name in ["a", "b"] {
        queue.put(request(name, "system:node:n", 0));
    }
    queue.retain(&BTreeSet::from(["b".to_owned()]));
    assert_eq!(taken(&mut queue, 1, 9), ["b"]);
    assert!(queue.remove("b").is_none());
}

#[test]
fn a_token_lets_many_machines_ask_at_once_and_its_newest_requests_come_first() {
    let mut queue = Queue::new(LIMITS);
    for index in 0..12 {
        let node = format!("worker-{index}");
        let mut request = request(&format!("r{index:02}"), "system:bootstrap:abcdef", index);
        request.request = Csr::of(&node).pem();
        assert!(queue.put(request).is_empty(), "each is of another node");
    }
    assert_eq!(queue.len(), 12);
    assert_eq!(taken(&mut queue, 20, 99), ["r11", "r10", "r09", "r08", "r07", "r06", "r05", "r04"]);
    // The rest has its turn as the room of the token comes back.
    assert_eq!(taken(&mut queue, 20, 99).len(), 0);
    let mut rest = taken(&mut queue, 60, 99);
    rest.sort();
    assert_eq!(rest, ["r00", "r01", "r02", "r03"]);
}

#[test]
fn what_is_beyond_a_requesters_limit_keeps_nobody_awake() {
    let mut queue = Queue::new(Limits { per_node: 1, per_requester: 1 });
    for index in 0..2 {
        let mut request = request(&format!("r{index}"), "system:bootstrap:abcdef", index);
        request.request = Csr::of(&format!("worker-{index}")).pem();
        queue.put(request);
    }
    let turn = queue.take(at(5), 9).remove(0);
    assert_eq!(turn.request.name, "r1");
    queue.put_back(turn, Some(at(500)));
    assert_eq!(queue.next_due(), Some(at(500)));
}

#[test]
fn a_bucket_gives_its_burst_and_then_one_after_each_refill() {
    let rate = Rate { burst: 3, refill: SignedDuration::from_secs(10) };
    let mut bucket = Bucket::default();
    for _ in 0..3 {
        assert_eq!(bucket.take(rate, at(0)), Ok(()));
    }
    assert_eq!(bucket.take(rate, at(0)), Err(at(10)));
    assert_eq!(bucket.take(rate, at(10)), Ok(()));
    assert_eq!(bucket.take(rate, at(10)), Err(at(20)));
    for _ in 0..3 {
        assert_eq!(bucket.take(rate, at(1000)), Ok(()));
    }
    assert!(bucket.take(rate, at(1000)).is_err());
}
