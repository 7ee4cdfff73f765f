//! Asking over HTTP as client-go does, so that what it hides from its user is no failure here either, and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::sleep;

use super::connection::{Access, Answer, Connection};
use super::tally::Tally;

/// client-go asks again up to ten times where the answer has a `Retry-After` (429, and any 5xx).
const RETRIES: u32 = 10;

/// The longest time that a `Retry-After` is heeded: the API server says 5 s while it shuts down, and 1 s when busy.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// A request that can be sent more than once.
struct Question<'a> {
    method: Method,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Bytes,
}

impl<'a> Question<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, headers: &[], body: Bytes::new() }
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Answer> {
        connection.send(self.method.clone(), self.path, self.headers, self.body.clone()).await
    }
}

/// Why there is no answer.
enum Lost {
    /// Nobody listened, or one of the two did not trust the other: nobody does that again.
    NotConnected(anyhow::Error),
    /// The connection ended first.
    Unanswered(anyhow::Error),
}

/// A client that keeps its connection for some requests.
pub struct Asking {
    client: &'static str,
    tally: Tally,
    access: Box<dyn Fn() -> Access + Send + Sync>,
    /// How many answers a connection is used for.
    keep: u32,
    connection: Option<Connection>,
    generation: u64,
}

impl Asking {
    /// A client of this name. `access` is asked whenever it connects, which it does after `keep` answers and in each
    /// phase.
    pub fn new(
        client: &'static str,
        tally: &Tally,
        keep: u32,
        access: impl Fn() -> Access + Send + Sync + 'static,
    ) -> Self {
        let (tally, generation) = (tally.clone(), tally.generation());
        Self { client, tally, access: Box::new(access), keep, connection: None, generation }
    }

    /// Asks once, counts that, and gives back the body of a success.
    pub async fn get(&mut self, path: &str) -> Option<Bytes> {
        let began = Instant::now();
        let answer = self.answer(&Question::get(path)).await;
        self.count(path, began, answer)
    }

    /// Like [`Asking::get`]; an answer that `judge` refuses counts as a failure too.
    pub async fn get_judged(&mut self, path: &str, judge: impl FnOnce(&Bytes) -> Result<()>) -> Option<Bytes> {
        let began = Instant::now();
        let answer = self.answer(&Question::get(path)).await;
        self.count(path, began, answer.and_then(|body| judge(&body).map(|()| body)))
    }

    /// Writes once and counts that. It always connects anew: a write whose answer is lost is not to be sent again, so
    /// that nobody could tell a connection that was closed while idle from a failure.
    pub async fn merge(&mut self, path: &str, patch: &Value) -> Option<Bytes> {
        self.connection = None;
        let question = Question {
            method: Method::PATCH,
            path,
            headers: &[("Content-Type", "application/merge-patch+json")],
            body: patch.to_string().into(),
        };
        let began = Instant::now();
        let answer = self.answer(&question).await;
        self.count(path, began, answer)
    }

    /// The body of a success, without counting anything but what is sent again.
    ///
    /// # Errors
    /// When there is none.
    pub async fn uncounted(&mut self, path: &str) -> Result<Bytes> {
        self.answer(&Question::get(path)).await
    }

    fn count(&mut self, path: &str, began: Instant, answer: Result<Bytes>) -> Option<Bytes> {
        match answer {
            Ok(body) => {
                self.tally.answered_after(self.client, began.elapsed());
                Some(body)
            }
            Err(error) => {
                self.connection = None;
                self.tally.failed(self.client, &format!("{path}: {error:#}"));
                None
            }
        }
    }

    async fn answer(&mut self, question: &Question<'_>) -> Result<Bytes> {
        for _ in 0..=RETRIES {
            let answer = match self.exchanged(question).await {
                Ok(answer) => answer,
                // client-go sends a GET again whose connection ends before the answer, also on a new one (`request.go`,
                // IsConnectionReset and IsProbableEOF); Go's `net/http` does so on one that was used before.
                Err(Lost::Unanswered(_)) if question.method == Method::GET => {
                    self.tally.again(self.client);
                    continue;
                }
                Err(Lost::NotConnected(error) | Lost::Unanswered(error)) => return Err(error),
            };
            match answer.retry_after {
                Some(seconds) if answer.status == 429 || answer.status.is_server_error() => {
                    self.tally.again(self.client);
                    self.connection = None;
                    sleep(Duration::from_secs(seconds).min(LONGEST_RETRY)).await;
                }
                _ => return answer.success(),
            }
        }
        bail!("there was no answer, or none but with Retry-After, in {RETRIES} tries")
    }

    /// Sends it on the connection that is there, or on a new one.
    async fn exchanged(&mut self, question: &Question<'_>) -> Result<Answer, Lost> {
        let mut connection = match self.kept() {
            Some(connection) => connection,
            None => (self.access)().connect().await.map_err(Lost::NotConnected)?,
        };
        let answer = question.ask(&mut connection).await.map_err(Lost::Unanswered)?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// The connection, unless it is time for another one.
    fn kept(&mut self) -> Option<Connection> {
        let generation = self.tally.generation();
        let is_new_phase = std::mem::replace(&mut self.generation, generation) != generation;
        let connection = self.connection.take()?;
        (!is_new_phase && !connection.is_closed() && connection.answers() < self.keep).then_some(connection)
    }
}
