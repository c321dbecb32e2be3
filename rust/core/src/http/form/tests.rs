use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;
use crate::config::Value;

const MULTIPART: &str = "multipart/form-data; boundary=X";

fn limits(settings: &[(&str, i64)]) -> Arc<Limits> {
    let settings = settings.iter().map(|(name, value)| (name.to_string(), Value::Integer(*value)));
    Arc::new(Limits::from(&Config::parse(settings).unwrap()))
}

/// A form of parts, each given by the rest of its content-disposition, more of its head, and its content.
fn multipart(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, more, content) in parts {
        body.extend(format!("--X\r\ncontent-disposition: form-data{disposition}\r\n{more}\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--X--\r\n");
    body
}

/// Name, file name, content type and content of each part.
type Seen = Vec<(String, Option<String>, Option<String>, Vec<u8>)>;

fn seen(parts: Vec<FormPart>) -> Seen {
    let look = |part: FormPart| match part.value {
        FormValue::Text(text) => (part.name, None, None, text.into_bytes()),
        FormValue::File { filename, content_type, content } => {
            let mut bytes = vec![0; content.size() as usize];
            assert_eq!(content.read_at(0, &mut bytes).unwrap(), bytes.len());
            (part.name, Some(filename), content_type, bytes)
        }
    };
    parts.into_iter().map(look).collect()
}

fn read(body: &[u8]) -> Result<Seen, RequestError> {
    parse_form(MULTIPART, body, &limits(&[])).map(seen)
}

fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Arc<Limits>) -> Result<Seen, RequestError> {
    let mut reader = FormReader::new(MULTIPART, limits)?.unwrap();
    for piece in pieces {
        reader.push(piece)?;
        reader.write().unwrap();
    }
    reader.end()?;
    reader.write().unwrap();
    Ok(seen(reader.into_parts()))
}

fn message(body: &[u8]) -> String {
    let error = read(body).unwrap_err();
    assert_eq!(error.refusal, Refusal::Framing);
    error.to_string()
}

#[test]
fn urlencoded() {
    let pairs = |body: &[u8]| {
        let parts = parse_form("application/x-www-form-urlencoded; charset=utf-8", body, &limits(&[])).unwrap();
        seen(parts).into_iter().map(|it| (it.0, String::from_utf8(it.3).unwrap())).collect::<Vec<_>>()
    };
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    assert_eq!(pairs(b"a=1+2&b=%7B%22"), [pair("a", "1 2"), pair("b", "{\"")]);
    assert_eq!(pairs(b"&&a&=b&c==&"), [pair("a", ""), pair("", "b"), pair("c", "=")]);
    assert_eq!(
        pairs(b"a=%&b=%4&c=%zz&d=%ff&e=100%"),
        [("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "\u{fffd}"), ("e", "100%")].map(|it| pair(it.0, it.1))
    );
    assert_eq!(pairs(b""), []);
}

#[test]
fn urlencoded_in_any_pieces() {
    let body = b"name=J%C3%BCrgen&a=1+2&&b=&c=%";
    let whole = parse_form("application/x-www-form-urlencoded", body, &limits(&[])).map(seen).unwrap();
    for size in 1..body.len() {
        let mut reader = FormReader::new("application/x-www-form-urlencoded", &limits(&[])).unwrap().unwrap();
        body.chunks(size).for_each(|piece| reader.push(piece).unwrap());
        reader.end().unwrap();
        assert_eq!(seen(reader.into_parts()), whole);
    }
}

#[test]
fn fields_and_files() {
    let body = multipart(&[
        ("; name=\"a\"", "", b"1"),
        ("; name=f; filename=\"x.png\"", "content-type: image/png\r\n", b"\0\x01\r\n--\r\n--Y\r\n"),
        ("; name=\"empty\"; filename=\"\"", "", b""),
        ("; name=\"l\"", "Content-Type: text/plain; charset=iso-8859-1\r\n", b"\xe9"),
    ]);
    let file = |name: &str, filename: &str, kind: Option<&str>, content: &[u8]| {
        (name.to_string(), Some(filename.to_string()), kind.map(str::to_string), content.to_vec())
    };
    let expected = [
        ("a".to_string(), None, None, b"1".to_vec()),
        file("f", "x.png", Some("image/png"), b"\0\x01\r\n--\r\n--Y\r\n"),
        file("empty", "", None, b""),
        ("l".to_string(), None, None, "\u{e9}".into()),
    ];
    assert_eq!(read(&body).unwrap(), expected);
    // A preamble, padding, a part that ends with its head, an epilogue, and no line end behind the last boundary.
    let body = b"hi\r\n--X \t\r\ncontent-disposition: form-data; name=a\r\n\r\n--X\r\ncontent-disposition: form-data; name=b\r\n\r\n\r\n--X-- \r\n--X\r\nbye";
    assert_eq!(read(body).unwrap().len(), 2);
    assert_eq!(read(b"--X--").unwrap(), []);
}

#[test]
fn any_cut_gives_the_same() {
    let body = multipart(&[
        ("; name=\"a\"", "", b"\r\n--\r\n-\r\r\n--\r"),
        ("; name=f; filename=x", "x-more: 1\r\n", &b"\r\n--Y".repeat(20)),
        ("; name=g; filename=y", "", b""),
    ]);
    let whole = read(&body).unwrap();
    for memory in [0, 50, 1000] {
        let limits = limits(&[("form_memory_bytes", memory)]);
        for at in 0..=body.len() {
            assert_eq!(read_pieces([&body[..at], &body[at..]], &limits).unwrap(), whole, "{at}");
        }
        assert_eq!(read_pieces(body.chunks(1), &limits).unwrap(), whole);
    }
    // What is missing at its end is missed, but for the line end.
    for at in 0..body.len() - 2 {
        assert!(read(&body[..at]).is_err(), "{at}");
        assert!(read_pieces(body[..at].chunks(3), &limits(&[])).is_err(), "{at}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (disposition, more, why) in [
        ("", "", "has no name"),
        ("; name=a; name=b", "", "a parameter comes twice"),
        ("; name=\"a", "", "a quote is not closed"),
        ("; name=\"a\\\"", "", "a quote is not closed"),
        ("; name=\"a\"b", "", "behind a closing quote"),
        ("; name=a\"b", "", "a quote in the middle"),
        ("; name", "", "a parameter without a value"),
        ("; =a", "", "no name of a parameter"),
        ("; name=\"a\0\"", "", "a control character"),
        ("; name=\"a\rb\"", "", "a control character"),
        ("; name=\"a\nb\"", "", "a control character"),
        ("; name=a", "content-disposition: form-data; name=b\r\n", "comes twice"),
        ("; name=a", "folded: 1\r\n 2\r\n", "a line without a colon"),
        ("; name=a", "space : 1\r\n", "no name of a header"),
        ("; name=a", "content-transfer-encoding: base64\r\n", "base64 is not undone here"),
        ("; name=a; filename*=nonsense", "", "filename* is malformed"),
        ("; name=a; filename*=utf-8''a%00", "", "filename* is malformed"),
        ("-not; name=a", "", "is not form-data"),
    ] {
        let text = message(&multipart(&[(disposition, more, b"1")]));
        assert!(
            text.contains(why) && text.contains("malformed form: the head of part 1"),
            "{disposition} {more}: {text}"
        );
    }
    assert!(message(b"--X\r\n\r\n1\r\n--X--").contains("no content-disposition"));
    for body in [&b"--Xy"[..], b"--X--y", b"--X-", b"--X--\ry", b"--X\n", b"--X y"] {
        assert!(read(body).is_err(), "{body:?}");
    }
    assert!(message(&multipart(&[("; name=a", "", b"1\r\n--Xtra\r\n")])).contains("behind a boundary in its line"));
    assert!(message(b"nothing of the kind").contains("no line of it is the boundary"));
}

#[test]
fn file_names() {
    for (given, name) in [
        ("filename=\"a b.txt\"", "a b.txt"),
        ("filename=a b.txt", "a b.txt"),
        (r#"filename="C:\dir\x.txt""#, r"C:\dir\x.txt"),
        (r#"filename="a\"b\\c""#, "a\"b\\c"),
        ("filename=\"a;b=c\"", "a;b=c"),
        ("filename=\"%22..%2f\"", "%22..%2f"),
        ("filename=\"../../x\"", "../../x"),
        ("filename=\"\u{e9}\"", "\u{e9}"),
        ("filename*=UTF-8''caf%C3%A9", "caf\u{e9}"),
        ("filename*=iso-8859-1'en'caf%E9", "caf\u{e9}"),
        ("filename*=utf-8''other; filename=plain", "plain"),
    ] {
        let body = multipart(&[(&format!("; name=f; {given}; "), "content-transfer-encoding: Binary\r\n", b"")]);
        assert_eq!(read(&body).unwrap()[0].1.as_deref(), Some(name), "{given}");
    }
}

#[test]
fn boundaries() {
    let boundary = |text: &str| FormReader::new(&format!("Multipart/Form-Data{text}"), &limits(&[]));
    for good in ["; boundary=X", ";charset=utf-8; BOUNDARY=\"a b\"", &format!("; boundary={}", "x".repeat(70))] {
        assert!(boundary(good).unwrap().is_some(), "{good}");
    }
    let long = format!("; boundary={}", "x".repeat(10_000));
    for bad in [
        "",
        "; boundary=",
        "; boundary=\"\"",
        &long,
        "; boundary=a; boundary=b",
        "; boundary=\"a",
        "; boundary=\u{e9}",
        "; boundary=\"a \"",
    ] {
        assert!(boundary(bad).is_err(), "{bad}");
    }
    assert!(FormReader::new("application/json", &limits(&[])).unwrap().is_none());
}

#[test]
fn limits_hold() {
    let part = |name: &str, content: usize| multipart(&[(&format!("; name=\"{name}\""), "", &b"1".repeat(content))]);
    let file = multipart(&[("; name=f; filename=x", "", &[0; 100])]);
    let many = multipart(&[("; name=a", "", b"1".as_slice()); 4]);
    let urlencoded = |body: &[u8], limits| parse_form("application/x-www-form-urlencoded", body, &limits).map(drop);
    let multipart = |body: &[u8], limits| parse_form(MULTIPART, body, &limits).map(drop);
    let head = [b"--X\r\nx: ".as_slice(), &[b'1'; 1100]].concat();
    let lines = [b"--X\r\n".as_slice(), &b"x: 1\r\n".repeat(101), b"\r\n"].concat();
    for (result, setting) in [
        (multipart(&part("a", 100), limits(&[("max_form_field_bytes", 100)])), "max_form_field_bytes"),
        (multipart(&part(&"n".repeat(100), 0), limits(&[("max_form_field_bytes", 99)])), "max_form_field_bytes"),
        (multipart(&many, limits(&[("max_form_parts", 3)])), "max_form_parts"),
        (multipart(&file, limits(&[("max_form_file_bytes", 99)])), "max_form_file_bytes"),
        (multipart(&head, limits(&[("max_header_bytes", 1024)])), "max_header_bytes"),
        (multipart(&lines, limits(&[])), "max_headers"),
        (urlencoded(b"a&b&c&d", limits(&[("max_form_parts", 3)])), "max_form_parts"),
        (urlencoded(b"a=12&b=34", limits(&[("max_form_field_bytes", 5)])), "max_form_field_bytes"),
        (urlencoded(&b"%".repeat(17), limits(&[("max_form_field_bytes", 5)])), "max_form_field_bytes"),
    ] {
        let error = result.expect_err(setting);
        assert_eq!(error.refusal, Refusal::BodyBytes);
        assert!(error.message.ends_with(&format!("({setting})")), "{error}");
    }
    for result in [
        multipart(&part("a", 99), limits(&[("max_form_field_bytes", 100)])),
        multipart(&many, limits(&[("max_form_parts", 4)])),
        multipart(&file, limits(&[("max_form_file_bytes", 100), ("max_form_field_bytes", 2)])),
        urlencoded(b"a&b&c&d&&&", limits(&[("max_form_parts", 4)])),
        urlencoded(b"a=%31%32&b=34", limits(&[("max_form_field_bytes", 6)])),
    ] {
        result.unwrap();
    }
}

#[test]
fn files_that_have_no_room_share_a_file_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut limits = Limits::clone(&limits(&[("form_memory_bytes", 100)]));
    limits.folder = Some(folder.path().to_path_buf());
    let sizes = [60, 50, 40, 100_000, 0];
    let parts: Vec<_> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
    let parts: Vec<_> = parts.iter().map(|content| ("; name=f; filename=x", "", content.as_slice())).collect();
    let body = multipart(&parts);
    let mut reader = FormReader::new(MULTIPART, &Arc::new(limits)).unwrap().unwrap();
    for piece in body.chunks(17) {
        reader.push(piece).unwrap();
        reader.write().unwrap();
    }
    reader.end().unwrap();
    reader.write().unwrap();
    let parts = reader.into_parts();
    let mut files = Vec::new();
    for (part, content) in parts.iter().zip(&sizes) {
        let FormValue::File { content: upload, .. } = &part.value else { panic!("no file") };
        if let Upload::InFile { file, .. } = upload {
            files.push(file.clone());
        }
        let path = folder.path().join("saved");
        upload.save(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![*content as u8; *content]);
    }
    assert_eq!(files.len(), 2, "the second and the fourth");
    assert!(Arc::ptr_eq(&files[0], &files[1]));
    let known = files[0].metadata().unwrap();
    assert_eq!((known.nlink(), known.mode() & 0o777), (0, 0o600));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what was saved");
}

proptest! {
    #[test]
    fn pieces_of_anything_are_read_as_the_whole(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "--X", "\r\n", "\r", "\n", "--", "-", " ", "content-disposition: form-data; name=a", "; filename=\"x", "\"", "x", ":",
        ]), 0..40),
        size in 1usize..9,
    ) {
        let body = tokens.concat().into_bytes();
        prop_assert_eq!(read_pieces(body.chunks(size), &limits(&[])), read(&body));
    }
}
