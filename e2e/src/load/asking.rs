//! Asking over HTTP as client-go does, so that what it hides from its user is no failure here either, and nothing else.

use std::time::Duration;

use anyhow::{Result, bail};
use hyper::body::Bytes;
use tokio::time::sleep;

use super::connection::{Access, Answer, Connection};
use super::tally::Tally;

/// client-go asks again up to ten times where the answer has a `Retry-After` (429, and any 5xx).
const RETRIES: u32 = 10;

/// The longest time that a `Retry-After` is heeded: the API server says 5 s while it shuts down, and 1 s when busy.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

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
        match self.asked(path).await {
            Ok(body) => {
                self.tally.answered(self.client);
                Some(body)
            }
            Err(error) => {
                self.connection = None;
                self.tally.failed(self.client, &format!("GET {path}: {error:#}"));
                None
            }
        }
    }

    async fn asked(&mut self, path: &str) -> Result<Bytes> {
        for _ in 0..=RETRIES {
            let answer = self.exchanged(path).await?;
            match answer.retry_after {
                Some(seconds) if answer.status == 429 || answer.status.is_server_error() => {
                    self.tally.again(self.client);
                    self.connection = None;
                    sleep(Duration::from_secs(seconds).min(LONGEST_RETRY)).await;
                }
                _ => return answer.success(),
            }
        }
        bail!("there was no other answer than one with Retry-After in {RETRIES} tries")
    }

    /// A GET for which no answer came on a connection that was used before is sent again on a new one, as Go's
    /// `net/http` does: the server may close an idle connection just when it is used. On a new connection there is no
    /// such excuse.
    async fn exchanged(&mut self, path: &str) -> Result<Answer> {
        if let Some(mut connection) = self.kept() {
            match connection.get(path).await {
                Ok(answer) => {
                    self.connection = Some(connection);
                    return Ok(answer);
                }
                Err(_) => self.tally.again(self.client),
            }
        }
        let mut connection = (self.access)().connect().await?;
        let answer = connection.get(path).await?;
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
