//! Router paths. The first line of the input is a request's path, each of the others a route's pattern, after a `*` a mount's.
//! Whatever they are, nothing panics; no parameter has a dot segment; and a path that is made of what was found leads to the
//! same route with the same parameters.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use portico_core::http::Request;
use portico_core::{Handler, Pattern, Reply, Router};

struct Leaf(Pattern);

impl Handler for Leaf {
    fn call(&self, _: Box<Request>, reply: Reply) {
        reply.fail();
    }
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    // What the HTTP engines let through.
    let path: String = lines.next().unwrap_or_default().chars().filter(|it| matches!(it, '!'..='~')).collect();
    let path = format!("/{path}");
    let Ok(get) = "GET".parse() else { return };
    let router = Router::default();
    let mut leaves: Vec<Arc<Leaf>> = Vec::new();
    for line in lines.take(64) {
        let (mounted, pattern) = line.strip_prefix('*').map_or((false, line), |prefix| (true, prefix));
        let Ok(pattern) = Pattern::parse(pattern) else { continue };
        let leaf = Arc::new(Leaf(pattern.clone()));
        leaves.push(leaf.clone());
        let leaf: Arc<dyn Handler> = leaf;
        let added = if mounted { router.mount(&pattern, &leaf) } else { router.route(&get, &pattern, leaf) };
        assert!(added.is_ok() || mounted, "{line:?} is a pattern and no route");
    }
    let Ok(found) = router.find(&get, &path, 0) else { return };
    let values = &found.parameters;
    assert!(
        values.iter().all(|(_, value)| value.split('/').all(|part| part != "." && part != "..")),
        "{path:?}: {values:?}"
    );
    let is_found = |leaf: &&Arc<Leaf>| std::ptr::addr_eq(Arc::as_ptr(leaf), Arc::as_ptr(&found.handler));
    let Some(leaf) = leaves.iter().find(is_found) else { panic!("{path:?} leads nowhere") };
    let value = |name: &str| values.iter().find(|(known, _)| &**known == name).map(|(_, value)| value.as_str());
    let Ok(again) = leaf.0.fill(value) else { panic!("{path:?}: {values:?} are no parameters of {:?}", leaf.0.text()) };
    // A mount's own path may have a route, which goes before it.
    if let Ok(twice) = router.find(&get, &again, 0)
        && Arc::ptr_eq(&twice.handler, &found.handler)
    {
        assert_eq!(&twice.parameters, values, "{path:?} and {again:?}");
    }
});
