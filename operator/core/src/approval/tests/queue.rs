//! Tests of the queue.

use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::approval::{Bucket, Limits, Queue, Rate};

const LIMITS: Limits = Limits { per_node: 3, per_requester: 8 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Returns a CSR whose content is never parsed.
fn request(name: &str, user: &str, created: i64) -> SigningRequest {
    let mut request = object("x", b"");
    request.name = name.to_owned();
    request.uid = format!("uid-{name}");
    request.username = user.to_owned();
    request.created = Some(at(created));
    request
}

fn taken(queue: &mut Queue, now: i64, at_most: usize) -> Vec<String> {
    queue.take(at(now), at_most).into_iter().map(|entry| entry.request.name).collect()
}

#[test]
fn node_with_many_csrs_does_not_delay_others() {
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
fn newest_csr_of_node_is_first_and_oldest_are_dropped() {
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
fn requesters_alternate() {
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
fn node_rate_limit_is_ten_at_once_and_ten_per_minute() {
    let mut queue = Queue::new(Limits { per_node: 100, per_requester: 100 });
    for index in 0..100 {
        queue.put(request(&format!("{index:03}"), "system:node:n", index));
    }
    assert_eq!(taken(&mut queue, 100, 100).len(), 10);
    assert_eq!(taken(&mut queue, 105, 100).len(), 0);
    assert!(queue.next_due().is_some_and(|due| due > at(105)));
    assert_eq!(taken(&mut queue, 160, 100).len(), 10);
    // Other nodes are not affected.
    queue.put(request("other", "system:node:other", 0));
    assert_eq!(taken(&mut queue, 160, 100), ["other"]);
}

#[test]
fn waiting_csr_returns_when_due_or_node_changes() {
    let mut queue = Queue::new(LIMITS);
    queue.put(request("r", "system:node:n", 0));
    let entry = queue.take(at(1), 1).remove(0);
    queue.requeue(entry, Some(at(100)));
    assert_eq!((queue.next_due(), taken(&mut queue, 99, 9).len()), (Some(at(100)), 0));
    queue.wake("another");
    assert_eq!(taken(&mut queue, 99, 9).len(), 0);
    queue.wake("n");
    let entry = queue.take(at(99), 1).remove(0);
    queue.requeue(entry, Some(at(100)));
    assert_eq!(taken(&mut queue, 100, 9), ["r"]);
    assert_eq!(queue.next_due(), None);
}

#[test]
fn list_with_known_csr_changes_nothing() {
    let mut queue = Queue::new(LIMITS);
    queue.put(request("r", "system:node:n", 0));
    let mut entry = queue.take(at(1), 1).remove(0);
    (entry.waits, entry.reported) = (3, Some("NodeNotFound"));
    queue.requeue(entry, Some(at(100)));
    queue.put(request("r", "system:node:n", 0));
    assert_eq!(taken(&mut queue, 99, 9).len(), 0);
    let entry = queue.take(at(100), 9).remove(0);
    assert_eq!((entry.waits, entry.reported), (3, Some("NodeNotFound")));
    // Another object with the same name is another CSR.
    queue.requeue(entry, Some(at(200)));
    queue.put(SigningRequest { uid: "other".to_owned(), ..request("r", "system:node:n", 0) });
    assert_eq!(queue.take(at(101), 9).remove(0).waits, 0);
}

#[test]
fn removes_csrs_missing_in_new_list() {
    let mut queue = Queue::new(LIMITS);
    for name in ["a", "b"] {
        queue.put(request(name, "system:node:n", 0));
    }
    queue.retain(&BTreeSet::from(["b".to_owned()]));
    assert_eq!(taken(&mut queue, 1, 9), ["b"]);
    assert!(queue.remove("b").is_none());
}

#[test]
fn token_rate_limit_allows_many_csrs_newest_first() {
    let mut queue = Queue::new(LIMITS);
    for index in 0..12 {
        let node = format!("worker-{index}");
        let mut request = request(&format!("r{index:02}"), "system:bootstrap:abcdef", index);
        request.request = Csr::of(&node).pem();
        assert!(queue.put(request).is_empty(), "each CSR is for another node");
    }
    assert_eq!(queue.len(), 12);
    assert_eq!(taken(&mut queue, 20, 99), ["r11", "r10", "r09", "r08", "r07", "r06", "r05", "r04"]);
    // The other CSRs follow as the bucket of the token refills.
    assert_eq!(taken(&mut queue, 20, 99).len(), 0);
    let mut rest = taken(&mut queue, 60, 99);
    rest.sort();
    assert_eq!(rest, ["r00", "r01", "r02", "r03"]);
}

#[test]
fn csrs_above_requester_limit_are_not_due() {
    let mut queue = Queue::new(Limits { per_node: 1, per_requester: 1 });
    for index in 0..2 {
        let mut request = request(&format!("r{index}"), "system:bootstrap:abcdef", index);
        request.request = Csr::of(&format!("worker-{index}")).pem();
        queue.put(request);
    }
    let entry = queue.take(at(5), 9).remove(0);
    assert_eq!(entry.request.name, "r1");
    queue.requeue(entry, Some(at(500)));
    assert_eq!(queue.next_due(), Some(at(500)));
}

#[test]
fn bucket_allows_burst_then_one_per_refill() {
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
