//! Reads `portico.toml`, by the crate toml, and keeps where everything stood, so that whoever minds a value can say the
//! line. What may stand there is not known here: `python/portico/config/` says it.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The deepest nesting of tables and arrays that is read. The parser has a limit of its own, which is higher; what is
/// made of the text is walked by recursion, here and by the caller.
const DEEPEST: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The line, from 1 on. For an entry of a table it is that of its key.
    pub line: usize,
    /// What stands there.
    pub value: Toml,
}

/// What TOML can say, but for dates and times.
#[derive(Debug, Clone, PartialEq)]
pub enum Toml {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// `true` or `false`.
    Switch(bool),
    /// `[...]`, and repeated `[[name]]`.
    List(Vec<Node>),
    /// A table, in alphabetical order.
    Table(Vec<(String, Node)>),
}

/// What is wrong with a text, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// Reads a whole text.
///
/// # Errors
/// Everything in it that is no TOML, in the order of the lines.
pub fn parse(text: &str) -> Result<Node, Vec<Mistake>> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<_> = errors
        .iter()
        .map(|error| Mistake {
            line: lines.at(error.span().map_or(0, |span| span.start)),
            message: error.message().lines().collect::<Vec<_>>().join("; "),
        })
        .collect();
    let entries = lines.table(root.get_ref(), 0, &mut mistakes);
    if mistakes.is_empty() {
        return Ok(Node { line: 1, value: Toml::Table(entries) });
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    mistakes.dedup();
    Err(mistakes)
}

/// Where each line of a text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines(std::iter::once(0).chain(ends).collect())
    }

    /// The line of a byte.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|begin| *begin <= offset)
    }

    fn table(&self, table: &DeTable<'_>, depth: usize, mistakes: &mut Vec<Mistake>) -> Vec<(String, Node)> {
        table
            .iter()
            .filter_map(|(key, value)| {
                let line = self.at(key.span().start);
                let value = self.value(value, line, depth + 1, mistakes)?;
                Some((key.get_ref().to_string(), Node { line, value }))
            })
            .collect()
    }

    fn value(
        &self,
        value: &Spanned<DeValue<'_>>,
        line: usize,
        depth: usize,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Toml> {
        let mut refuse = |message: String| {
            mistakes.push(Mistake { line, message });
            None
        };
        if depth > DEEPEST {
            return refuse(format!("nested more than {DEEPEST} deep"));
        }
        Some(match value.get_ref() {
            DeValue::String(text) => Toml::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Toml::Integer(number),
                Err(_) => return refuse(format!("the number {number} does not fit into 64 bits")),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Toml::Real(number),
                Err(_) => return refuse(format!("{number} is no number")),
            },
            DeValue::Boolean(on) => Toml::Switch(*on),
            DeValue::Datetime(time) => {
                return refuse(format!("{time} is a date or a time, and nothing here is: a text stands in quotes"));
            }
            DeValue::Array(values) => Toml::List(
                values
                    .iter()
                    .filter_map(|value| {
                        let line = self.at(value.span().start);
                        let value = self.value(value, line, depth + 1, mistakes)?;
                        Some(Node { line, value })
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Toml::Table(self.table(table, depth, mistakes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Toml::Table(entries) = &node.value else { panic!("no table") };
        &entries.iter().find(|(name, _)| name == key).unwrap().1
    }

    #[test]
    fn everything_has_its_line() {
        let root =
            parse("[h.\"x.y\"]\ncert = '''\nab'''\nlist = [\n  1,\n  0xf,\n]\n[[l]]\n[[l]]\nr = 1_0.5\n").unwrap();
        let host = entry(entry(&root, "h"), "x.y");
        assert_eq!(host.line, 1);
        assert_eq!(entry(host, "cert"), &Node { line: 2, value: Toml::Text("ab".into()) });
        let list = [Node { line: 5, value: Toml::Integer(1) }, Node { line: 6, value: Toml::Integer(15) }];
        assert_eq!(entry(host, "list"), &Node { line: 4, value: Toml::List(list.into()) });
        let Toml::List(both) = &entry(&root, "l").value else { panic!("no list") };
        assert_eq!(both.iter().map(|node| node.line).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(entry(&both[1], "r"), &Node { line: 10, value: Toml::Real(10.5) });
    }

    #[test]
    fn every_mistake_is_told() {
        let mistakes = parse("a = 1\na = 2\n\nb = \nc = 99999999999999999999\n").unwrap_err();
        assert_eq!(mistakes.iter().map(|mistake| mistake.line).collect::<Vec<_>>(), [2, 4, 5]);
        assert!(mistakes[0].message.contains("duplicate key"), "{mistakes:?}");
        assert!(mistakes[2].message.contains("64 bits"), "{mistakes:?}");
    }

    proptest::proptest! {
        /// Whatever somebody has written, by accident or not: an answer, and lines that are there.
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z\\[\\]{}=.,\"'#\n0-9_ -]|\\PC){0,200}") {
            let lines = text.lines().count().max(1) + 1;
            match parse(&text) {
                Ok(root) => proptest::prop_assert_eq!(root.line, 1),
                Err(mistakes) => {
                    proptest::prop_assert!(!mistakes.is_empty());
                    for mistake in mistakes {
                        proptest::prop_assert!((1..=lines).contains(&mistake.line), "{mistake:?}");
                        proptest::prop_assert!(!mistake.message.contains('\n'));
                    }
                }
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for open in ["[", "{a="] {
            let text = format!("a = {}", open.repeat(100_000));
            assert!(parse(&text).is_err());
        }
        let closed = format!("a = {}{}", "[".repeat(40), "]".repeat(40));
        assert!(parse(&closed).unwrap_err()[0].message.contains("nested more than 32"));
    }
}
