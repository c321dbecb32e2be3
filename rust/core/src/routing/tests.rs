use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Version;
use proptest::prelude::*;

use super::*;
use crate::connection::{Address, ConnectionInfo};
use crate::http::Headers;
use crate::http::target::{Target, decode_path};

struct Leaf;

impl Handler for Leaf {
    fn call(&self, _: Box<Request>, reply: Reply) {
        reply.fail();
    }
}

/// Routes as `GET /path`, mounts as `* /path`.
#[derive(Default)]
struct Site {
    router: Router,
    leaves: Vec<(String, Arc<dyn Handler>)>,
}

impl Site {
    fn of(routes: &[&str]) -> Self {
        let mut site = Site::default();
        routes.iter().for_each(|route| site.add(route, Arc::new(Leaf)));
        site
    }

    fn add(&mut self, route: &str, leaf: Arc<dyn Handler>) {
        let (method, path) = route.split_once(' ').unwrap();
        let pattern = Pattern::parse(path).unwrap();
        let replaced = match method {
            "*" => self.router.mount(&pattern, &leaf).unwrap(),
            method => self.router.route(&method.parse().unwrap(), &pattern, leaf.clone()).unwrap(),
        };
        assert!(replaced.is_none());
        self.leaves.push((route.to_string(), leaf));
    }

    /// Who answers, and the request as that one sees it; or the server's answer, its status and `Allow`.
    fn ask(&self, method: &str, target: &str) -> Result<(&str, Request), (u16, String)> {
        let mut request = request(method, target);
        let handler = match self.router.resolve(&mut request) {
            Resolved::Next(handler) => match dispatch::follow(handler, &mut request) {
                Admitted::By(handler) => handler,
                Admitted::Answered(response) => return Err(told(&response)),
            },
            Resolved::Answered(response) => return Err(told(&response)),
            Resolved::Itself => panic!("a router answers nothing itself"),
        };
        let (route, _) = self.leaves.iter().find(|(_, leaf)| Arc::ptr_eq(leaf, &handler)).unwrap();
        Ok((route, request))
    }

    fn route(&self, target: &str) -> Option<&str> {
        self.ask("GET", target).ok().map(|(route, _)| route)
    }
}

fn told(response: &Response) -> (u16, String) {
    let allow = response.headers.iter().find(|(name, _)| name == header::ALLOW);
    (response.status.as_u16(), allow.map_or(String::new(), |(_, value)| value.to_str().unwrap().to_string()))
}

fn request(method: &str, target: &str) -> Request {
    let address = Address::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    let connection = ConnectionInfo::new(1, address.clone(), address, false);
    let method: Method = method.parse().unwrap();
    Request {
        target: Target::parse(&method, Bytes::copy_from_slice(target.as_bytes())).unwrap(),
        method,
        version: Version::HTTP_11,
        headers: Headers::default(),
        body: Bytes::new(),
        incoming: None,
        connection: Some(Arc::new(connection)),
        id: None,
        route: None,
        pattern: None,
        told: Default::default(),
        tunnel: false,
    }
}

fn parameters(request: &Request) -> Vec<(&str, &str)> {
    request.path_parameters().collect()
}

#[test]
fn the_closest_pattern_answers() {
    let site =
        Site::of(&["GET /{*a}", "GET /{a}", "GET /a", "GET /{a}/b", "GET /a/{*b}", "GET /{a}/{*b}", "GET /a/b/c"]);
    for (target, route) in [
        ("/", None),
        ("/a", Some("GET /a")),
        ("/b", Some("GET /{a}")),
        ("/b/", Some("GET /{*a}")),
        ("/b/b", Some("GET /{a}/b")),
        ("/a/b", Some("GET /a/{*b}")),
        ("/a/b/c", Some("GET /a/b/c")),
        ("/a/b/d", Some("GET /a/{*b}")),
        ("/b/c/d", Some("GET /{a}/{*b}")),
        ("//", Some("GET /{*a}")),
    ] {
        assert_eq!(site.route(target), route, "{target}");
    }
}

#[test]
fn parameters_are_decoded_after_matching() {
    let site = Site::of(&["GET /users/{id}/x", "GET /files/{*path}", "GET /caf\u{e9}/{b}", "GET /100%/{{x}}"]);
    let of = |target: &str| {
        let (route, request) = site.ask("GET", target).unwrap();
        (route.to_string(), parameters(&request).into_iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(of("/users/a%2Fb%20%C3%A9/x"), ("GET /users/{id}/x".into(), vec!["a/b \u{e9}".into()]));
    assert_eq!(of("/%75sers/100%25/x").1, ["100%"]);
    assert_eq!(of("/users/%252F/x").1, ["%2F"]);
    assert_eq!(of("/users/%ff/x").1, ["\u{fffd}"]);
    assert_eq!(of("/files/a/b%2Fc").1, ["a/b/c"]);
    assert_eq!(of("/files//").1, ["/"]);
    assert_eq!(of("/caf%C3%A9/1").0, "GET /caf\u{e9}/{b}");
    assert_eq!(of("/100%25/%7Bx}").0, "GET /100%/{{x}}");
    for missing in ["/users//x", "/files/", "/files", "/users/a/b/x", "/files/..%2F..%2Fetc", "/caf%E9/1"] {
        assert_eq!(site.route(missing), None, "{missing}");
    }
}

#[test]
fn methods_of_a_pattern() {
    let site = Site::of(&["GET /a", "PUT /a", "DELETE /{x}", "HEAD /h", "OPTIONS /h", "BREW /{x}"]);
    assert_eq!(site.ask("PUT", "/a").unwrap().0, "PUT /a");
    assert_eq!(site.ask("HEAD", "/a").unwrap().0, "GET /a");
    assert_eq!(site.ask("HEAD", "/h").unwrap().0, "HEAD /h");
    assert_eq!(site.ask("OPTIONS", "/h").unwrap().0, "OPTIONS /h");
    assert_eq!(site.ask("BREW", "/b").unwrap().0, "BREW /{x}");
    // The closest pattern's methods count, and no others.
    assert_eq!(site.ask("DELETE", "/a").unwrap_err(), (405, "GET, HEAD, PUT, OPTIONS".into()));
    assert_eq!(site.ask("OPTIONS", "/a").unwrap_err(), (204, "GET, HEAD, PUT, OPTIONS".into()));
    assert_eq!(site.ask("GET", "/h").unwrap_err(), (405, "HEAD, OPTIONS".into()));
    assert_eq!(site.ask("HEAD", "/b").unwrap_err(), (405, "DELETE, BREW, OPTIONS".into()));
    assert_eq!(site.ask("OPTIONS", "/b/c").unwrap_err(), (404, String::new()));
}

#[test]
fn a_mount_sees_the_rest() {
    let site = Site::of(&["* /app", "GET /app/own", "POST /app", "* /{tenant}/files/", "* /a%b"]);
    let seen = |method: &str, target: &str| {
        let (route, request) = site.ask(method, target).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let parameters = parameters(&request).iter().map(|(_, value)| *value).collect::<String>();
        [route.to_string(), text(&request.root_path_bytes()), text(&request.path_bytes()), parameters]
    };
    assert_eq!(seen("GET", "/app"), ["* /app", "/app", "", ""]);
    assert_eq!(seen("PUT", "/app/"), ["* /app", "/app", "/", ""]);
    assert_eq!(seen("GET", "/app/x/%79"), ["* /app", "/app", "/x/y", ""]);
    assert_eq!(seen("GET", "/app//x"), ["* /app", "/app", "//x", ""]);
    assert_eq!(seen("GET", "/app/own"), ["GET /app/own", "", "/app/own", ""]);
    assert_eq!(seen("POST", "/app"), ["POST /app", "", "/app", ""]);
    assert_eq!(seen("GET", "/x%2Fy/files/a%2Fb"), ["* /{tenant}/files/", "/x/y/files", "/a/b", "x/y"]);
    assert_eq!(seen("GET", "/a%25b/c%25d"), ["* /a%b", "/a%b", "/c%d", ""]);
    assert_eq!(site.ask("DELETE", "/app/own").unwrap_err().0, 405);
    assert_eq!(site.route("/apple"), None);
    let prefix = Pattern::parse("/a/{*b}").unwrap();
    let leaf: Arc<dyn Handler> = Arc::new(Leaf);
    assert!(site.router.mount(&prefix, &leaf).is_err());
}

#[test]
fn routers_behind_routers() {
    let inner = Site::of(&["GET /", "GET /{y}/{x}", "* /deep/{z}"]);
    let (deep, router) = (inner.leaves.clone(), Arc::new(inner.router));
    let mut site = Site::default();
    site.add("* /{x}/in", router);
    site.leaves.extend(deep);
    let (route, _) = site.ask("GET", "/1/in").unwrap();
    assert_eq!(route, "GET /");
    assert_eq!(site.route("/1/in/"), Some("GET /"));
    let (route, request) = site.ask("GET", "/%31/in/2%2F/3").unwrap();
    assert_eq!((route, &*request.path()), ("GET /{y}/{x}", "/2//3"));
    assert_eq!(parameters(&request), [("x", "1"), ("y", "2/"), ("x", "3")]);
    let (route, request) = site.ask("PUT", "/%31/in/deep/4/5").unwrap();
    assert_eq!((route, &*request.path(), &*request.root_path_bytes()), ("* /deep/{z}", "/5", &b"/1/in/deep/4"[..]));
    assert_eq!(site.ask("PUT", "/1/in/").unwrap_err(), (405, "GET, HEAD, OPTIONS".into()));
    assert_eq!(site.ask("PUT", "/1/in/2").unwrap_err().0, 404);
}

#[test]
fn routers_in_a_circle_end() {
    let router = Arc::new(Router::default());
    let behind: Arc<dyn Handler> = router.clone();
    router.mount(&Pattern::parse("/").unwrap(), &behind).unwrap();
    let mut request = request("GET", "/a");
    let Admitted::Answered(response) = dispatch::follow(behind, &mut request) else { panic!("it never ends") };
    assert_eq!(response.status.as_u16(), 508);
    router.replace(&Router::default());
}

#[test]
fn somebody_else_answers_what_is_missing() {
    let mut site = Site::of(&["GET /a"]);
    let leaf: Arc<dyn Handler> = Arc::new(Leaf);
    site.router.set_missing(leaf.clone());
    site.leaves.push(("missing".into(), leaf));
    let missed = |method: &str, target: &str| {
        let (route, request) = site.ask(method, target).unwrap();
        (route.to_string(), request.missed().map(str::to_string))
    };
    assert_eq!(missed("GET", "/a"), ("GET /a".into(), None));
    assert_eq!(missed("GET", "/b"), ("missing".into(), Some(String::new())));
    assert_eq!(missed("PUT", "/a"), ("missing".into(), Some("GET, HEAD, OPTIONS".into())));
}

#[test]
fn without_parameters_nothing_is_noted() {
    let site = Site::of(&["GET /hello", "* /"]);
    for target in ["/hello", "/else", "/%68ello"] {
        assert!(site.ask("GET", target).unwrap().1.route.is_none(), "{target}");
    }
}

#[test]
fn handlers_are_replaced() {
    let site = Site::of(&["GET /{a}"]);
    let pattern = Pattern::parse("/{b}").unwrap();
    let replaced = site.router.route(&Method::GET, &pattern, Arc::new(Leaf)).unwrap();
    assert!(Arc::ptr_eq(&replaced.unwrap(), &site.leaves[0].1));
    let found = site.router.find(&Method::GET, "/1", 0).ok().unwrap();
    assert_eq!(found.parameters, [("b".into(), "1".to_string())]);
    let other = Site::of(&["GET /only"]);
    site.router.replace(&other.router);
    assert!(site.router.find(&Method::GET, "/1", 0).is_err() && site.router.find(&Method::GET, "/only", 0).is_ok());
}

/// What a match costs hardly grows with the number of routes. Best of several, as the machine may be busy.
#[test]
#[expect(clippy::print_stdout, reason = "whoever runs this with --nocapture wants the figures")]
fn the_cost_of_a_match_does_not_grow_with_the_routes() {
    let cost = |routes: usize| {
        let router = Router::default();
        for number in 0..routes / 2 {
            for path in [format!("/static/page{number}"), format!("/api/v{number}/users/{{id}}/posts/{{post}}")] {
                router.route(&Method::GET, &Pattern::parse(&path).unwrap(), Arc::new(Leaf)).unwrap();
            }
        }
        let step = (routes / 2).div_ceil(64);
        let asked = (0..routes / 2).step_by(step);
        let paths: Vec<_> =
            asked.flat_map(|n| [format!("/static/page{n}"), format!("/api/v{n}/users/7/posts/8")]).collect();
        let turn = || {
            let began = Instant::now();
            (0..2_000).for_each(|n| assert!(router.find(&Method::GET, &paths[n % paths.len()], 0).is_ok()));
            began.elapsed() / 2_000
        };
        (0..20).map(|_| turn()).min().unwrap_or(Duration::MAX)
    };
    let (few, some, many) = (cost(10), cost(1_000), cost(100_000));
    println!("a match with 10, 1 000, 100 000 routes: {few:?}, {some:?}, {many:?}");
    assert!(many < few * 12 + Duration::from_micros(1), "{few:?}, {some:?}, {many:?}");
}

/// The closest of some patterns, found by trying each.
fn naive<'p>(patterns: &'p [Pattern], path: &str) -> Option<(&'p Pattern, Vec<(String, String)>)> {
    let segments: Vec<_> = path[1..].split('/').collect();
    let matches = |pattern: &Pattern| {
        let mut values = Vec::new();
        let own: Vec<_> = pattern.text()[1..].split('/').collect();
        for (index, part) in own.iter().enumerate() {
            let name = part.trim_matches(['{', '}']);
            let value = match name.strip_prefix('*') {
                Some(_) => segments.get(index..)?.join("/"),
                None => (*segments.get(index)?).to_string(),
            };
            if name.len() == part.len() {
                (value == name).then_some(())?;
            } else {
                (!value.is_empty()).then(|| values.push((name.trim_start_matches('*').to_string(), value)))?;
            }
        }
        let whole = own.len() == segments.len() || pattern.before_rest().is_some();
        whole.then_some((pattern.kinds(), values))
    };
    let found = patterns.iter().filter_map(|pattern| Some((pattern, matches(pattern)?)));
    found.min_by(|(_, (a, _)), (_, (b, _))| a.cmp(b)).map(|(pattern, (_, values))| (pattern, values))
}

fn segment() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "", "{}", "{}"]).prop_map(str::to_string)
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (prop::collection::vec(segment(), 0..4), any::<bool>(), 0..3u8).prop_map(|(mut segments, rest, name)| {
        if rest || segments.is_empty() {
            segments.push(if rest { "{*}".into() } else { String::new() });
        }
        let named = segments.iter().enumerate().map(|(at, segment)| match segment.as_str() {
            "{}" => format!("/{{p{at}_{name}}}"),
            "{*}" => format!("/{{*r_{name}}}"),
            literal => format!("/{literal}"),
        });
        Pattern::parse(&named.collect::<String>()).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_routes_match_as_the_naive_matcher_says(
        patterns in prop::collection::vec(pattern(), 0..12),
        paths in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c", ""]), 1..5), 1..8),
    ) {
        let router = Router::default();
        // Of those that are the same the last one stays.
        let mut kept: Vec<Pattern> = Vec::new();
        let mut leaves: Vec<Arc<dyn Handler>> = Vec::new();
        for pattern in patterns {
            let leaf: Arc<dyn Handler> = Arc::new(Leaf);
            let replaced = router.route(&Method::GET, &pattern, leaf.clone()).unwrap();
            match kept.iter().position(|known| known.shape() == pattern.shape()) {
                Some(at) => {
                    prop_assert!(Arc::ptr_eq(&replaced.unwrap(), &leaves[at]));
                    (kept[at], leaves[at]) = (pattern, leaf);
                }
                None => {
                    prop_assert!(replaced.is_none());
                    kept.push(pattern);
                    leaves.push(leaf);
                }
            }
        }
        for path in paths {
            let path = format!("/{}", path.join("/"));
            let found = router.find(&Method::GET, &path, 0).ok();
            let expected = naive(&kept, &path);
            prop_assert_eq!(found.is_some(), expected.is_some(), "{}", &path);
            let (Some(found), Some((pattern, values))) = (found, expected) else { continue };
            let at = kept.iter().position(|known| known == pattern).unwrap();
            prop_assert!(Arc::ptr_eq(&found.handler, &leaves[at]), "{} is not for {}", &path, pattern.text());
            let parameters: Vec<_> = found.parameters.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            prop_assert_eq!(&parameters, &values);
            let filled = pattern.fill(|name| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()));
            prop_assert_eq!(filled.unwrap(), path);
        }
    }

    #[test]
    fn any_path_decodes_to_what_it_was(raw in "(/|%2[fF5eE]|\\.|%[0-9a-fA-F]{2}|%|[a-z]){0,24}") {
        let raw = format!("/{raw}");
        let path = path::match_path(&raw);
        prop_assert_eq!(percent_encoding::percent_decode_str(&path).collect::<Vec<_>>(), decode_path(&raw).into_owned());
        let dots = path.split('/').any(|segment| matches!(&*path::decode(segment), "." | ".."));
        prop_assert!(!dots, "{} became {}", &raw, &path);
    }

    #[test]
    fn what_is_filled_in_comes_out(a in "[^\\x00]{1,12}", b in "[^\\x00]{1,12}") {
        let pattern = Pattern::parse("/x/{a}/{*b}").unwrap();
        let router = Router::default();
        router.route(&Method::GET, &pattern, Arc::new(Leaf)).unwrap();
        if let Ok(path) = pattern.fill(|name| Some(if name == "a" { a.as_str() } else { b.as_str() })) {
            let found = router.find(&Method::GET, &path, 0).ok().unwrap();
            let values: Vec<_> = found.parameters.iter().map(|(_, value)| value.as_str()).collect();
            prop_assert_eq!(values, [a.as_str(), b.as_str()]);
        }
    }
}
