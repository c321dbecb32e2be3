//! An identity out of a folder full of files: by what is in them, whatever their names are.

use std::path::{Path, PathBuf};

use super::contents::{Contents, StoredKey, open_pfx};
use super::decrypt::Work;
use super::source::{Credentials, Form, Password, Source};
use super::{Identity, chain, checks, load, pfx, provider};
use crate::error::Error;

/// Files that are looked at. Others of a larger folder would be missed, so there it is an error.
const MAX_FILES: usize = 1_000;
/// For all of them together, see [`Work`]: half a minute at the very most.
const ITERATIONS: u64 = 4 * Work::FOR_A_FILE;
/// How many reasons an error lists.
const MAX_REASONS: usize = 10;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A part of the subject or of a name in the certificate, in any case.
    pub subject: Option<String>,
    /// A host that it must cover, in the form of [`crate::tls::host_name`].
    pub host: Option<String>,
    /// For what is encrypted.
    pub password: Option<Password>,
}

/// What was found.
pub struct Found {
    /// Where it is: files, to be read again on a reload.
    pub credentials: Credentials,
    /// What it is.
    pub identity: Identity,
    /// The subjects of others that would have done, and ended earlier or have a shorter chain.
    pub others: Vec<String>,
}

/// A file that may have a part in it.
struct Candidate {
    path: PathBuf,
    is_pfx: bool,
    contents: Contents,
    /// The public keys of its private ones.
    keys: Vec<Vec<u8>>,
}

/// Looks through the files of a folder and of the folders in it, but not deeper, for certificates with their keys: PFX,
/// both in one file, or in two. Takes the one that is valid longest.
///
/// # Errors
/// [`Error::Certificate`], saying what was looked at and why nothing will do.
pub fn find_certificate(folder: &Path, wanted: &Wanted) -> Result<Found, Error> {
    let wrong = |why: String| Error::Certificate(format!("no certificate found in {}: {why}", folder.display()));
    let mut work = Work::new(ITERATIONS);
    let mut reasons = Vec::new();
    let mut candidates = Vec::new();
    let files = files(folder).map_err(wrong)?;
    let mut found: Vec<Found> = Vec::new();
    for path in &files {
        match Candidate::read(path, wanted.password.as_ref(), &mut work) {
            Ok(Some(candidate)) => candidates.push(candidate),
            Ok(None) => {}
            Err(why) => reasons.push(format!("{}: {why}", path.display())),
        }
    }
    let mut lonely = 0;
    for candidate in &candidates {
        for form in forms(candidate, &candidates) {
            let Some(form) = form else {
                lonely += 1;
                continue;
            };
            let credentials = Credentials { form, password: wanted.password.clone() };
            match load(&credentials, wanted.host.as_deref(), &mut work) {
                Ok(identity) if wanted.suits(&identity) => {
                    found.push(Found { credentials, identity, others: Vec::new() });
                }
                Ok(identity) => reasons.push(format!("{} is not what was asked for", identity.subject)),
                Err(error) => reasons.push(error.to_string()),
            }
        }
    }
    // The last of equals is taken: with the same end and chain, the one in a file of its own wins over two files.
    found.sort_by_key(|found| {
        let one_file = !matches!(found.credentials.form, Form::Pair { key: Some(_), .. });
        (found.identity.not_after, found.identity.chain_length(), one_file)
    });
    let Some(mut best) = found.pop() else {
        reasons.dedup();
        let more = reasons.len().saturating_sub(MAX_REASONS);
        reasons.truncate(MAX_REASONS);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let lonely = if lonely > 0 { format!("; certificates without their key: {lonely}") } else { String::new() };
        let listed = if reasons.is_empty() {
            ": none holds a certificate with its key".to_string()
        } else {
            format!(": {}{more}", reasons.join("; "))
        };
        return Err(wrong(format!("{}looked at {} files{listed}{lonely}", wanted.described(), files.len())));
    };
    best.others = found.into_iter().rev().map(|found| found.identity.subject).collect();
    Ok(best)
}

impl Wanted {
    fn suits(&self, identity: &Identity) -> bool {
        let within = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let subject = self
            .subject
            .as_deref()
            .is_none_or(|part| within(&identity.subject, part) || identity.names.iter().any(|name| within(name, part)));
        subject && self.host.as_deref().is_none_or(|host| checks::covers(&identity.names, host))
    }

    fn described(&self) -> String {
        let subject = self.subject.as_ref().map(|part| format!("with {part:?} in its subject or names"));
        let host = self.host.as_ref().map(|host| format!("for the host {host}"));
        let all: Vec<_> = subject.into_iter().chain(host).collect();
        if all.is_empty() { String::new() } else { format!("asked for one {}; ", all.join(" and ")) }
    }
}

/// The regular files, in the order of their names, those that are hidden left out: editors and Kubernetes keep old
/// ones there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(format!("it cannot be read: {error}")),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_FILES {
                return Err(format!("it has more than {MAX_FILES} files, and none was looked at"));
            }
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(about) if about.is_file() => files.push(path),
                Ok(about) if about.is_dir() && depth == 0 => folders.push((path, 1)),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Candidate {
    /// What is in a file; none where it is of another kind.
    fn read(path: &Path, password: Option<&Password>, work: &mut Work) -> Result<Option<Self>, String> {
        let bytes = Source::File(path.to_path_buf()).read()?;
        let is_pfx = pfx::is_pfx(&bytes);
        let contents = if is_pfx {
            // Its certificates count only if they have their key, and both are open only together.
            let contents = open_pfx(&bytes, password, work).map_err(|failure| failure.to_string())?;
            Contents { keys: Vec::new(), ..contents }
        } else {
            Contents::read(bytes)?
        };
        if contents.certificates.is_empty() && contents.keys.is_empty() {
            return Ok(None);
        }
        let mut candidate = Candidate { path: path.to_path_buf(), is_pfx, contents, keys: Vec::new() };
        candidate.open_keys(password, work)?;
        Ok(Some(candidate))
    }

    fn open_keys(&mut self, password: Option<&Password>, work: &mut Work) -> Result<(), String> {
        for key in std::mem::take(&mut self.contents.keys).into_iter().take(super::MAX_KEYS) {
            let key = StoredKey::open(key, password, work).map_err(|failure| format!("a key in it: {failure}"))?;
            let signing = provider().key_provider.load_private_key(key);
            self.keys.extend(signing.ok().and_then(|key| Some(key.public_key()?.to_vec())));
        }
        Ok(())
    }
}

/// The ways in which a file's certificates can be used: with the key in it, or that in another file. None stands for
/// certificates that are a server's, but whose key is nowhere.
fn forms(candidate: &Candidate, all: &[Candidate]) -> Vec<Option<Form>> {
    let file = || Source::File(candidate.path.clone());
    if candidate.is_pfx {
        return vec![Some(Form::Pfx(file()))];
    }
    let Ok(parsed) = chain::parse(&candidate.contents.certificates) else { return Vec::new() };
    let Some(first) = parsed.first() else { return Vec::new() };
    let fits = |other: &Candidate| other.keys.iter().any(|key| parsed.iter().any(|cert| cert.has_key(key)));
    if fits(candidate) {
        return vec![Some(Form::Pair { cert: file(), key: None })];
    }
    let with = all.iter().filter(|other| fits(other));
    let forms: Vec<_> =
        with.map(|other| Some(Form::Pair { cert: file(), key: Some(Source::File(other.path.clone())) })).collect();
    if forms.is_empty() && !first.x509.is_ca() {
        return vec![None];
    }
    forms
}
