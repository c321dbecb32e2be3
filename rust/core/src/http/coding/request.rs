//! Content codings of request bodies: which ones a request has, and undoing them within limits of space and time.
//!
//! A few bytes may stand for any number (a "bomb"): what is decoded counts against `max_request_read_bytes`, and beyond
//! [`FREE`] against what came as well. Decoding goes in steps, each a fraction of a millisecond, with turns for others.

use bytes::{Bytes, BytesMut};

use super::Coding;
use super::decoder::Decoder;
use crate::config::Config;
use crate::error::{Refusal, RequestError};
use crate::http::Headers;

/// The most codings of one body. Nobody has a use for more than one.
const MAX_CODINGS: usize = 3;
/// The most that one step gives.
const WRITE: usize = 16 * 1024;
/// After so many steps in a row the event loop has a turn for others.
pub(crate) const TURN: usize = 4;
/// So much is decoded however little it came as.
const FREE: u64 = 1024 * 1024;
/// Beyond that no more than this many times what came. Text rarely gets to 50; a file of zeros comes to 1000 by gzip, and
/// to any number by the others.
const RATIO: u64 = 200;

/// A content coding that request bodies are decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestCoding {
    /// Zstandard (RFC 8878), with windows of 8 MiB at the most (RFC 9659).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
    /// The zlib format (RFC 1950), which HTTP calls deflate.
    Deflate,
}

impl RequestCoding {
    /// The words for them in settings and headers.
    pub(crate) const WORDS: &'static [&'static str] = &["zstd", "br", "gzip", "deflate"];

    /// The coding of that name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        match Coding::named(name) {
            Some(Coding::Zstd) => Some(RequestCoding::Zstd),
            Some(Coding::Brotli) => Some(RequestCoding::Brotli),
            Some(Coding::Gzip) => Some(RequestCoding::Gzip),
            None => name.eq_ignore_ascii_case(b"deflate").then_some(RequestCoding::Deflate),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            RequestCoding::Zstd => Coding::Zstd.name(),
            RequestCoding::Brotli => Coding::Brotli.name(),
            RequestCoding::Gzip => Coding::Gzip.name(),
            RequestCoding::Deflate => "deflate",
        }
    }
}

/// A body on its way through its decoders, the coding that was applied last first.
pub(crate) struct Decoding {
    codings: Vec<RequestCoding>,
    /// The decoders of these, made when there is something to decode: they take up to 73 KiB, and a client may leave a body at
    /// its head.
    stages: Vec<Stage>,
    /// What came and was not decoded yet.
    input: Bytes,
    /// All that came.
    came: u64,
    /// Nothing more comes.
    ended: bool,
    /// The most that may come out of it.
    limit: u64,
    output: Box<[u8]>,
}

/// One decoder, and what the one before it has left for it.
struct Stage {
    decoder: Decoder,
    name: &'static str,
    input: BytesMut,
    /// All that it gave.
    gave: u64,
    /// It gives nothing more.
    over: bool,
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some of the body.
    Data(Bytes),
    /// Nothing to be seen: take another one.
    More,
    /// There is nothing to decode before more is pushed, or the end told.
    Hungry,
    /// That was all of it.
    Whole,
}

impl Decoding {
    /// For a body with these headers; none where it is to be left as it is.
    ///
    /// # Errors
    /// [`Refusal::ContentCoding`]: a coding that is not offered, or too many of them.
    pub(crate) fn of(headers: &Headers, config: &Config) -> Result<Option<Box<Self>>, RequestError> {
        if config.decompression.is_empty() {
            return Ok(None);
        }
        let mut codings = Vec::new();
        let items = headers.get_all("content-encoding").flat_map(|value| value.split(|&byte| byte == b','));
        for name in items.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
            if name.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let coding = RequestCoding::named(name).filter(|coding| config.decompression.contains(coding));
            let Some(coding) = coding else {
                let name = String::from_utf8_lossy(&name[..name.len().min(32)]).into_owned();
                return Err(unacceptable(format!("the content coding {name:?} is not one of decompression")));
            };
            if codings.len() == MAX_CODINGS {
                return Err(unacceptable(format!("more than {MAX_CODINGS} content codings of one body")));
            }
            codings.push(coding);
        }
        if codings.is_empty() {
            return Ok(None);
        }
        codings.reverse();
        let limit = config.max_request_read_bytes as u64;
        let (stages, input, output) = (Vec::new(), Bytes::new(), Box::default());
        Ok(Some(Box::new(Decoding { codings, stages, input, came: 0, ended: false, limit, output })))
    }

    /// Makes the decoders.
    fn begin(&mut self) -> Result<(), RequestError> {
        let no_memory = || RequestError::new(Refusal::InFlight, "no memory for a decoder of a request body");
        for coding in &self.codings {
            let decoder = Decoder::new(*coding).ok_or_else(no_memory)?;
            self.stages.push(Stage { decoder, name: coding.name(), input: BytesMut::new(), gave: 0, over: false });
        }
        self.output = vec![0; WRITE].into_boxed_slice();
        Ok(())
    }

    /// Takes more of what came, when a step was hungry for it.
    pub(crate) fn push(&mut self, data: Bytes) {
        self.came += data.len() as u64;
        if self.input.is_empty() {
            self.input = data;
        } else {
            self.input = [&self.input[..], &data].concat().into();
        }
    }

    /// Notes that nothing more comes.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Decodes a little of what is here.
    ///
    /// # Errors
    /// [`Refusal::Undecodable`] and [`Refusal::BodyBytes`]; [`Refusal::InFlight`]: there is no memory.
    pub(crate) fn step(&mut self) -> Result<Step, RequestError> {
        if self.ended && self.came == 0 {
            // No body has no coding, whatever its headers say.
            return Ok(Step::Whole);
        }
        if self.stages.is_empty() {
            if self.came == 0 {
                return Ok(Step::Hungry);
            }
            self.begin()?;
        }
        let mut at = self.stages.len() - 1;
        // From the last towards the first, to one that can do something.
        loop {
            let ends = if at == 0 { self.ended } else { self.stages[at - 1].over };
            let stage = &mut self.stages[at];
            let here = if at == 0 { self.input.len() } else { stage.input.len() };
            if stage.decoder.can_step(here) {
                return self.run(at);
            }
            if ends {
                if !stage.decoder.is_whole() {
                    return Err(undecodable(stage.name, "is cut off"));
                }
                stage.over = true;
                return Ok(if at == self.stages.len() - 1 { Step::Whole } else { Step::More });
            }
            if at == 0 {
                return Ok(Step::Hungry);
            }
            at -= 1;
        }
    }

    /// A step of one decoder.
    fn run(&mut self, at: usize) -> Result<Step, RequestError> {
        let Decoding { stages, input, came, limit, output, .. } = self;
        let last = at == stages.len() - 1;
        let (stages, behind) = stages.split_at_mut(at + 1);
        let stage = &mut stages[at];
        let from = if at == 0 { &input[..] } else { &stage.input[..] };
        let damaged = |_| undecodable(stage.name, "is damaged, or its window is too large");
        let stepped = stage.decoder.step(from, output).map_err(damaged)?;
        if at == 0 {
            drop(input.split_to(stepped.read));
        } else {
            drop(stage.input.split_to(stepped.read));
        }
        stage.gave += stepped.written as u64;
        if stage.gave > *limit {
            let message = format!("a body that decodes to over {limit} bytes (max_request_read_bytes)");
            return Err(RequestError::new(Refusal::BodyBytes, message));
        }
        if stage.gave > FREE.max(came.saturating_mul(RATIO)) {
            let message = format!("a body that decodes to over {RATIO} times what came of it");
            return Err(RequestError::new(Refusal::BodyBytes, message));
        }
        let given = &output[..stepped.written];
        if given.is_empty() {
            return Ok(Step::More);
        }
        if last {
            return Ok(Step::Data(Bytes::copy_from_slice(given)));
        }
        behind[0].input.extend_from_slice(given);
        Ok(Step::More)
    }

    /// Decodes all that is here, with turns for others.
    ///
    /// # Errors
    /// Those of [`Decoding::step`].
    pub(crate) async fn run_through(&mut self, mut take: impl FnMut(Bytes)) -> Result<(), RequestError> {
        let mut steps = 0;
        loop {
            match self.step()? {
                Step::Data(piece) => take(piece),
                Step::More => {}
                Step::Hungry | Step::Whole => return Ok(()),
            }
            steps += 1;
            if steps % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl std::fmt::Debug for Decoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoding").field("came", &self.came).field("ended", &self.ended).finish_non_exhaustive()
    }
}

fn unacceptable(message: String) -> RequestError {
    RequestError::new(Refusal::ContentCoding, message)
}

fn undecodable(name: &str, what: &str) -> RequestError {
    RequestError::new(Refusal::Undecodable, format!("the {name} coding of the body {what}"))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
