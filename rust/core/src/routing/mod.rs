//! Many handlers behind one: a [`Router`] finds, by path and method, who answers a request, before that one is asked for
//! anything. Each handler behind it so keeps what it is: its judge, its event loop, its thread.
//!
//! The path decides first: the closest pattern, segment by segment a literal before `{name}` before `{*name}`. Then the
//! methods at that pattern count, and no others.

mod path;
mod pattern;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use matchit::Params;

pub(crate) use self::path::match_path;
use self::pattern::Kind;
pub use self::pattern::Pattern;
use crate::dispatch::{self, Admitted, Handler, Reply, Resolved};
use crate::error::Error;
use crate::http::{Request, Response};
use crate::locks::RwLock;

/// Handlers by path and method. They can be added while it is in use.
#[derive(Default)]
pub struct Router {
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    nodes: Vec<Node>,
    /// The node of each [`Pattern::shape`].
    shapes: HashMap<String, usize>,
    exact: matchit::Router<usize>,
    /// Patterns that end in `{*name}`, by how many segments they have before it: matchit takes no `/{*a}` beside `/{b}`,
    /// and these differ from the exact ones in how long the path may be, from each other in where that begins.
    rests: Vec<(usize, matchit::Router<usize>)>,
    missing: Option<Arc<dyn Handler>>,
}

/// What there is for one pattern.
struct Node {
    kinds: Box<[Kind]>,
    methods: Vec<(Method, Leaf)>,
    /// Who answers all other methods.
    mount: Option<Leaf>,
}

struct Leaf {
    handler: Arc<dyn Handler>,
    names: Box<[Arc<str>]>,
    /// Of a mount, how many segments are its own; what follows is its handler's.
    prefix: Option<usize>,
    /// The pattern as it was written; of a mount without a slash at its end.
    pattern: Arc<str>,
    /// The pattern of the mount that led here first, and that with this one: so that it is not put together for each request.
    below: OnceLock<(Arc<str>, Arc<str>)>,
}

impl Leaf {
    fn new(pattern: &Pattern, handler: Arc<dyn Handler>, prefix: Option<usize>) -> Self {
        let names = pattern.parameters().map(Arc::from).collect();
        let text = pattern.text();
        let text = if prefix.is_some() { text.trim_end_matches('/') } else { text };
        Leaf { handler, names, prefix, pattern: text.into(), below: OnceLock::new() }
    }

    /// The whole pattern of what was mounted at `outer`.
    fn pattern_below(&self, outer: Option<&Arc<str>>) -> Arc<str> {
        let Some(outer) = outer.filter(|outer| !outer.is_empty()) else { return self.pattern.clone() };
        let join = || Arc::from(format!("{outer}{}", self.pattern));
        let (known, joined) = self.below.get_or_init(|| (outer.clone(), join()));
        if Arc::ptr_eq(known, outer) { joined.clone() } else { join() }
    }
}

/// Who answers a method at a path, and what was found on the way.
pub struct Found {
    /// Who answers.
    pub handler: Arc<dyn Handler>,
    /// The parameters of the pattern, decoded, in the order of the path.
    pub parameters: Vec<(Arc<str>, String)>,
    /// Of a mount, how long its prefix is: in the form in which paths are matched, and decoded.
    prefix: (usize, usize),
    /// The pattern, behind those of the mounts that led here.
    pattern: Arc<str>,
}

/// Nobody does.
pub struct Missed {
    /// The methods that there are for the path, as `Allow` lists them; empty where there are none.
    pub allow: String,
    /// Who is to answer that.
    handler: Option<Arc<dyn Handler>>,
}

/// A handler that was replaced. To be dropped where that may run anything.
pub type Replaced = Option<Arc<dyn Handler>>;

impl Router {
    /// Has a handler answer a method at a pattern, in place of whoever did.
    ///
    /// # Errors
    /// [`Error::Config`] where matchit does not take the pattern.
    pub fn route(&self, method: &Method, pattern: &Pattern, handler: Arc<dyn Handler>) -> Result<Replaced, Error> {
        let leaf = Leaf::new(pattern, handler, None);
        let mut table = self.table.write();
        let methods = &mut table.node(pattern)?.methods;
        match methods.iter_mut().find(|(known, _)| known == method) {
            Some((_, known)) => Ok(Some(std::mem::replace(known, leaf).handler)),
            None => {
                methods.push((method.clone(), leaf));
                Ok(None)
            }
        }
    }

    /// Has a handler answer every path at and below a prefix, in place of whoever did, by any method that no route there
    /// has. It sees the path without the prefix.
    ///
    /// # Errors
    /// [`Error::Config`] for a prefix that ends in `{*name}`.
    pub fn mount(&self, prefix: &Pattern, handler: &Arc<dyn Handler>) -> Result<Replaced, Error> {
        if prefix.before_rest().is_some() {
            let text = prefix.text();
            return Err(Error::Config(format!(
                "path {text:?}: a prefix, below which all is mounted, has no {{*name}}"
            )));
        }
        let prefix = prefix.clone().into_prefix();
        let mut replaced = None;
        let mut table = self.table.write();
        let whole = (prefix.len() > 0).then(|| prefix.clone());
        for pattern in whole.into_iter().chain([prefix.and(false), prefix.and(true)]) {
            let leaf = Leaf::new(&prefix, handler.clone(), Some(prefix.len()));
            replaced = table.node(&pattern)?.mount.replace(leaf).map(|leaf| leaf.handler).or(replaced);
        }
        Ok(replaced)
    }

    /// Who answers instead of the server where there is no route, by [`Request::missed`].
    pub fn set_missing(&self, handler: Arc<dyn Handler>) -> Replaced {
        self.table.write().missing.replace(handler)
    }

    /// Who answers a method at a path as it came; of that the first `root` bytes, in the form in which paths are matched, are
    /// the prefix at which this router is mounted.
    ///
    /// # Errors
    /// There is no route; not for that method, where others are allowed.
    pub fn find(&self, method: &Method, raw_path: &str, root: usize) -> Result<Found, Missed> {
        self.find_below(None, method, raw_path, root)
    }

    /// The same where this router is mounted by the pattern `outer`.
    fn find_below(
        &self,
        outer: Option<&Arc<str>>,
        method: &Method,
        raw_path: &str,
        root: usize,
    ) -> Result<Found, Missed> {
        let whole = path::match_path(raw_path);
        let path = match whole.get(root..) {
            None | Some("") => "/",
            Some(path) => path,
        };
        let table = self.table.read();
        let missed = |allow| Missed { allow, handler: table.missing.clone() };
        let Some((node, values)) = table.find(path) else { return Err(missed(String::new())) };
        let Some(leaf) = node.leaf(method) else { return Err(missed(node.allow())) };
        let values = values.iter().map(|(_, value)| path::decode(value));
        let parameters = leaf.names.iter().cloned().zip(values).collect();
        let prefix = match leaf.prefix {
            None | Some(0) => (0, 0),
            Some(prefix) => {
                let end = memchr::memchr_iter(b'/', path.as_bytes()).nth(prefix).unwrap_or(path.len());
                (end, path::decoded_len(&path[..end]))
            }
        };
        Ok(Found { handler: leaf.handler.clone(), parameters, prefix, pattern: leaf.pattern_below(outer) })
    }

    /// Takes what another one has, in place of what there is.
    pub fn replace(&self, other: &Router) {
        let table = std::mem::take(&mut *other.table.write());
        // Dropped outside the lock, because dropping handlers may run anything.
        let _table = std::mem::replace(&mut *self.table.write(), table);
    }
}

impl Handler for Router {
    fn call(&self, mut request: Box<Request>, reply: Reply) {
        match self.resolve(&mut request) {
            Resolved::Next(handler) => match dispatch::follow(handler, &mut request) {
                Admitted::By(handler) => handler.call(request, reply),
                Admitted::Answered(response) => reply.send(response),
            },
            Resolved::Answered(response) => reply.send(response),
            Resolved::Itself => reply.fail(),
        }
    }

    fn resolve(&self, request: &mut Request) -> Resolved {
        let Request { method, target, route, pattern, .. } = request;
        let matched = route.as_ref().map_or(0, |route| route.matched);
        match self.find_below(pattern.as_ref(), method, target.raw_path(), matched) {
            Ok(Found { handler, parameters, prefix: (matched, root), pattern: found }) => {
                *pattern = Some(found);
                if matched > 0 || !parameters.is_empty() {
                    let route = route.get_or_insert_default();
                    route.parameters.extend(parameters);
                    route.matched += matched;
                    route.root += root;
                }
                Resolved::Next(handler)
            }
            Err(Missed { allow, handler: None }) => Resolved::Answered(missed(method, &allow)),
            Err(Missed { allow, handler: Some(handler) }) => {
                route.get_or_insert_default().missed = Some(allow);
                Resolved::Next(handler)
            }
        }
    }
}

impl Table {
    /// The node of a pattern, made where there is none.
    fn node(&mut self, pattern: &Pattern) -> Result<&mut Node, Error> {
        let Table { nodes, shapes, exact, rests, .. } = self;
        let index = match shapes.entry(pattern.shape()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let tree = match pattern.before_rest() {
                    None => exact,
                    Some(before) => {
                        let at = rests.iter().position(|(known, _)| *known == before);
                        let at = at.unwrap_or_else(|| {
                            rests.push((before, matchit::Router::new()));
                            rests.len() - 1
                        });
                        &mut rests[at].1
                    }
                };
                // Patterns and their shapes are such that there is nothing to conflict with.
                tree.insert(new.key().clone(), nodes.len())
                    .map_err(|error| Error::Config(format!("path {:?}: {error}", pattern.text())))?;
                nodes.push(Node { kinds: pattern.kinds(), methods: Vec::new(), mount: None });
                *new.insert(nodes.len() - 1)
            }
        };
        Ok(&mut nodes[index])
    }

    /// The closest pattern that matches, and what its parameters stand for.
    fn find<'t, 'p>(&'t self, path: &'p str) -> Option<(&'t Node, Params<'t, 'p>)> {
        let trees = std::iter::once(&self.exact).chain(self.rests.iter().map(|(_, tree)| tree));
        let found = trees.filter_map(|tree| tree.at(path).ok());
        found.map(|found| (&self.nodes[*found.value], found.params)).min_by(|(a, _), (b, _)| a.kinds.cmp(&b.kinds))
    }
}

impl Node {
    fn leaf(&self, method: &Method) -> Option<&Leaf> {
        let of = |method: &Method| self.methods.iter().find(|(known, _)| known == method).map(|(_, leaf)| leaf);
        let from_get = || if method == Method::HEAD { of(&Method::GET) } else { None };
        of(method).or_else(from_get).or(self.mount.as_ref())
    }

    /// The methods that it has, and those that come by themselves.
    fn allow(&self) -> String {
        let has = |method: &Method| self.methods.iter().any(|(known, _)| known == method);
        let mut allow: Vec<&str> = Vec::with_capacity(self.methods.len() + 2);
        for (method, _) in &self.methods {
            allow.push(method.as_str());
            if method == Method::GET && !has(&Method::HEAD) {
                allow.push("HEAD");
            }
        }
        if !has(&Method::OPTIONS) {
            allow.push("OPTIONS");
        }
        allow.join(", ")
    }
}

/// The answer where no route is: 404 without any method, else 405 (RFC 9110 section 15.5.6), and 204 to `OPTIONS` (section
/// 9.3.7).
fn missed(method: &Method, allow: &str) -> Response {
    if allow.is_empty() {
        return Response::plain(StatusCode::NOT_FOUND);
    }
    let mut response = match *method {
        Method::OPTIONS => Response::new(StatusCode::NO_CONTENT, Bytes::new()),
        _ => Response::plain(StatusCode::METHOD_NOT_ALLOWED),
    };
    // Methods are tokens, which may stand in a header.
    response.headers.extend(HeaderValue::from_str(allow).ok().map(|value| (header::ALLOW, value)));
    response
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
