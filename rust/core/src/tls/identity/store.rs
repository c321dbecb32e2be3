//! An identity out of a folder full of files: by what is in them, whatever their names are.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

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
    /// Others that would have done, the best first: subjects and files.
    pub others: Vec<String>,
    /// Files and certificates that were passed over, and why.
    pub passed_over: Vec<String>,
}

/// A file that may have a part in it.
struct Candidate {
    path: PathBuf,
    is_pfx: bool,
    contents: Contents,
    /// The public keys of its private ones, in the form of [`chain::key_of`].
    keys: Vec<chain::PublicKey>,
}

/// Looks through the files of a folder and of the folders in it, but not deeper, for certificates with their keys: PFX,
/// both in one file, or in two. Takes the one that is valid longest, a self-signed one only where no other will do.
///
/// # Errors
/// [`Error::Certificate`], saying what was looked at and why nothing will do.
pub fn find_certificate(folder: &Path, wanted: &Wanted) -> Result<Found, Error> {
    let wrong = |why: String| Error::Certificate(format!("no certificate found in {}: {why}", folder.display()));
    let mut work = Work::new(ITERATIONS);
    let mut reasons = Vec::new();
    let files = files(folder).map_err(wrong)?;
    let candidates = candidates(&files, wanted.password.as_ref(), &mut work, &mut reasons);
    let (forms, lonely) = forms(&candidates);
    let mut found: Vec<Found> = Vec::new();
    for form in forms {
        let credentials = Credentials { form, password: wanted.password.clone() };
        match load(&credentials, wanted.host.as_deref(), &mut work) {
            Ok(identity) if wanted.suits(&identity) => {
                found.push(Found { credentials, identity, others: Vec::new(), passed_over: Vec::new() });
            }
            Ok(identity) => {
                reasons.push(format!("{} is not what was asked for ({})", identity.subject, told_files(&credentials)));
            }
            Err(error) => reasons.push(error.to_string()),
        }
    }
    reasons.dedup();
    // The last is taken: the one that is valid longest, but a self-signed one of ten years does not hide that of an authority;
    // with the same end and chain, the one in a file of its own wins over two files.
    found.sort_by_key(|found| {
        let one_file = !matches!(found.credentials.form, Form::Pair { key: Some(_), .. });
        let identity = &found.identity;
        (!identity.self_signed, identity.not_after, identity.chain_length(), one_file)
    });
    let Some(mut best) = found.pop() else {
        let listed = if reasons.is_empty() {
            ": none holds a certificate with its key".to_string()
        } else {
            format!(": {}", some_of(&reasons))
        };
        let lonely = if lonely.is_empty() {
            String::new()
        } else {
            format!("; certificates without their key: {} ({})", lonely.len(), some_of(&lonely))
        };
        return Err(wrong(format!("{}looked at {} files{listed}{lonely}", wanted.described(), files.len())));
    };
    let told = |found: Found| format!("{} ({})", found.identity.subject, told_files(&found.credentials));
    best.others = found.into_iter().rev().map(told).collect();
    best.passed_over = reasons;
    Ok(best)
}

fn told_files(credentials: &Credentials) -> String {
    credentials.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn some_of(reasons: &[String]) -> String {
    let more = reasons.len().saturating_sub(MAX_REASONS);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", reasons[..reasons.len().min(MAX_REASONS)].join("; "))
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

/// The files that have a part in them; of files with the same content the first.
fn candidates(
    files: &[PathBuf],
    password: Option<&Password>,
    work: &mut Work,
    reasons: &mut Vec<String>,
) -> Vec<Candidate> {
    let mut known = HashSet::new();
    let mut candidates = Vec::new();
    for path in files {
        let candidate = Source::File(path.clone()).read().and_then(|bytes| {
            let new = known.insert(digest::digest(&digest::SHA256, &bytes).as_ref().to_vec());
            if new { Candidate::read(path, bytes, password, work) } else { Ok(None) }
        });
        match candidate {
            Ok(candidate) => candidates.extend(candidate),
            Err(why) => reasons.push(format!("{}: {why}", path.display())),
        }
    }
    candidates
}

impl Candidate {
    /// What is in a file; none where it is of another kind.
    fn read(path: &Path, bytes: Vec<u8>, password: Option<&Password>, work: &mut Work) -> Result<Option<Self>, String> {
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
            self.keys.extend(signing.ok().and_then(|key| chain::key_of(&key.public_key()?)));
        }
        Ok(())
    }
}

/// The ways in which the certificates of all files can be used: with a key in the same file, or that in another one. The
/// second are the files of certificates that are a server's, but whose key is nowhere.
///
/// A key that is in several files is taken from one, rather from one without certificates: else the number of ways would
/// be that of certificates times that of keys.
fn forms(all: &[Candidate]) -> (Vec<Form>, Vec<String>) {
    let mut homes: HashMap<&chain::PublicKey, &Candidate> = HashMap::new();
    let (alone, beside): (Vec<_>, Vec<_>) =
        all.iter().partition(|candidate| candidate.contents.certificates.is_empty());
    for candidate in alone.into_iter().chain(beside) {
        for key in &candidate.keys {
            homes.entry(key).or_insert(candidate);
        }
    }
    let (mut forms, mut lonely) = (Vec::new(), Vec::new());
    for candidate in all {
        let file = || Source::File(candidate.path.clone());
        if candidate.is_pfx {
            forms.push(Form::Pfx(file()));
            continue;
        }
        let Ok(parsed) = chain::parse(&candidate.contents.certificates) else { continue };
        let Some(first) = parsed.first() else { continue };
        let keys: Vec<_> = parsed.iter().filter_map(|cert| chain::key_of(cert.x509.public_key().raw)).collect();
        if keys.iter().any(|key| candidate.keys.contains(key)) {
            forms.push(Form::Pair { cert: file(), key: None });
            continue;
        }
        let mut with: Vec<_> = keys.iter().filter_map(|key| homes.get(key)).map(|home| &home.path).collect();
        with.dedup();
        if with.is_empty() && !first.x509.is_ca() {
            lonely.push(candidate.path.display().to_string());
        }
        forms.extend(with.into_iter().map(|key| Form::Pair { cert: file(), key: Some(Source::File(key.clone())) }));
    }
    (forms, lonely)
}
